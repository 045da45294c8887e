//! The thread that serves all rings: it polls them while there is work, and sleeps when there is none.

use dragonfly_abi::{FOREVER, Status};
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Notification, clock_now_ns};

use crate::card::Card;
use crate::platform::GatePlatform;

/// Serves for as long as the card lives. Rings are polled for as long as `poll_ns` after the last work; then kicks come by
/// `events`.
///
/// The lock is held for a round, in which each ring has its bounded turn: so long does a control message wait. Control threads
/// have the higher priority, so that they are next when it is free.
pub(crate) fn serve(card: &Mutex<Card<GatePlatform>>, events: Notification, poll_ns: u64) -> Result<(), Status> {
    let mut last_work_ns = clock_now_ns();
    loop {
        let now_ns = clock_now_ns();
        let round = card.lock().serve(now_ns);
        if round.has_worked {
            last_work_ns = now_ns;
        }
        let is_awake = round.has_worked || now_ns.saturating_sub(last_work_ns) < poll_ns;
        if is_awake || card.lock().enable_kicks() {
            // Whoever it waits for may run on the other half of its core, or by turns with it in an emulator.
            core::hint::spin_loop();
            continue;
        }
        let timeout_ns = round.wait_until_ns.map_or(FOREVER, |time_ns| time_ns.saturating_sub(clock_now_ns()));
        match events.wait_timed(timeout_ns) {
            Ok(_) | Err(Status::TimedOut | Status::WouldBlock) => {}
            Err(status) => return Err(status),
        }
    }
}
