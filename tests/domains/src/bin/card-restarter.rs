//! Has the card started anew, `times=N` times, every now and then: what its guests must not notice but by a pause.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;

use dragonfly_rt::{argument, supervisor, time};
use log::{error, info};

dragonfly_rt::main!(run);

/// Until the guests have booted and are at work.
const FIRST: Duration = Duration::from_secs(15);
/// From one time to the next: not a multiple of anything that guests do.
const PERIOD: Duration = Duration::from_millis(2_617);

fn run() {
    let times = argument("times").and_then(|text| text.parse().ok()).unwrap_or(1_u32);
    time::sleep(FIRST);
    for time in 1..=times {
        match supervisor::restart("card") {
            Ok(()) => info!("the card was started anew, {time} of {times}"),
            Err(status) => error!("the card was not started anew: {status}"),
        }
        time::sleep(PERIOD);
    }
}
