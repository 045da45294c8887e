//! What a panic does: a line on the log, then a fault, so that the supervisor reports the domain.

use core::panic::PanicInfo;

use crate::logger::domain_name;
use crate::{arch, console};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => console::print_line(format_args!(
            "error {}: panicked at {}:{}: {}",
            domain_name(),
            place.file(),
            place.line(),
            info.message()
        )),
        None => console::print_line(format_args!("error {}: panicked: {}", domain_name(), info.message())),
    }
    arch::stop()
}
