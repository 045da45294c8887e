//! The way from the first instruction to the program's own function, and what the domain was given.
#![expect(unsafe_code, reason = "takes over the stack and the start page, and calls the program by a symbol")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use dragonfly_abi::{ABI_VERSION, Handle, Rights, StartHandles, StartInfo};

use crate::arguments::{handle_number, value};
use crate::mapping::Mapping;
use crate::stack::{ControlBlock, bottom_of, first_block};
use crate::sys::{Memory, Notification, Object, exit_thread};
use crate::{arch, logger};

/// The start page. Null before the first thread has found it, and on a host.
static START_INFO: AtomicPtr<StartInfo> = AtomicPtr::new(ptr::null_mut());

/// Names the function where the program begins: `dragonfly_rt::main!(run);`.
///
/// When the function returns, the first thread ends; the domain has ended when its other threads have too. The
/// program's crate starts with `#![cfg_attr(target_os = "none", no_std, no_main)]`: built for a host it is empty.
#[macro_export]
macro_rules! main {
    ($run:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "Rust" fn dragonfly_main() {
            let run: fn() = $run;
            run();
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn() = $run;
        }
    };
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// Defined by [`main!`].
    safe fn dragonfly_main();
}

#[cfg(not(target_os = "none"))]
fn dragonfly_main() {}

/// Where the first thread comes to from its entry point.
///
/// # Safety
/// Only the entry point calls it, with what the kernel or the loader gave.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "only the entry point calls it"))]
pub(crate) unsafe extern "C" fn start(info: *mut StartInfo, stack_end: u64) -> ! {
    // SAFETY: whoever started the domain mapped a start page at the address and keeps it as it is.
    let page = unsafe { &*info };
    if page.magic != StartInfo::MAGIC || page.abi_version != ABI_VERSION {
        // Not even the log can be trusted to work.
        arch::stop();
    }
    let stack = bottom_of(stack_end);
    let block = first_block(page.message_buffer);
    // SAFETY: the stack is mapped down to there, and this function is at its other end.
    unsafe { block.place(stack) };
    START_INFO.store(info, Ordering::Release);
    logger::start();

    match Notification::create() {
        // SAFETY: as above; no other thread has been started, and nothing reads the block meanwhile.
        Ok(notification) => unsafe { ControlBlock { notification: notification.keep(), ..block }.place(stack) },
        Err(status) => panic!("cannot make the first thread's notification: {status}"),
    }
    dragonfly_main();
    exit_thread()
}

/// What the domain found when it started; `None` on a host.
#[must_use]
pub fn start_info() -> Option<&'static StartInfo> {
    // SAFETY: the pointer is null or that of the start page, which stays mapped and unchanged.
    unsafe { START_INFO.load(Ordering::Acquire).as_ref() }
}

/// How many CPUs the machine has.
#[must_use]
pub fn cpus() -> u32 {
    start_info().map_or(1, |info| info.cpus)
}

/// The domain's arguments.
#[must_use]
pub fn arguments() -> &'static str {
    start_info()
        .and_then(|info| {
            let bytes = info.arguments.get(..info.arguments_length as usize)?;
            // What is no text is left out rather than taking the rest with it.
            bytes.utf8_chunks().next().map(|chunk| chunk.valid())
        })
        .unwrap_or("")
}

/// The value of the argument `key=value`.
#[must_use]
pub fn argument(key: &str) -> Option<&'static str> {
    value(arguments(), key)
}

/// The handle that the domain was started with under a name.
#[must_use]
pub fn named<T: Object>(name: &str) -> Option<T> {
    handle_number(arguments(), name).map(|number| T::from_handle(Handle(number)))
}

/// The bundle, if the domain was given it. Each call maps it anew and for good.
#[must_use]
pub fn bundle() -> Option<&'static [u8]> {
    let size = start_info()?.bundle_size;
    if size == 0 {
        return None;
    }
    let mapping =
        Mapping::new(Memory::from_handle(StartHandles::BUNDLE), 0, size.next_multiple_of(4096), Rights::READ).ok()?;
    let pointer = mapping.keep();
    // SAFETY: the mapping stays, is that large, and nobody may write to the bundle's memory: the kernel gives it out
    // readable only.
    Some(unsafe { core::slice::from_raw_parts(pointer.cast_const(), usize::try_from(size).ok()?) })
}
