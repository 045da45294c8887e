//! The thread beside the vCPUs': carries its console's bytes to and fro, and asks the devices when it is time.

use alloc::collections::VecDeque;
use core::time::Duration;

use dragonfly_abi::FOREVER;
use dragonfly_console::protocol::MAX_BYTES;
use dragonfly_rt::sys::{Notification, clock_now_ns};
use dragonfly_rt::time;

use crate::card::Card;
use crate::console::Console;
use crate::end::End;
use crate::shared::{Shared, wake};

/// How long output is collected before it is sent: one message costs more than the bytes in it.
const COLLECT: Duration = Duration::from_micros(500);

/// How long to wait for a busy line, or for a guest that does not take its input.
const BUSY_NS: u64 = 2_000_000;

/// How long the last output may wait for the line at a guest's end: what a serial port of 115,200 baud takes for a full
/// queue of the console server.
const LAST_OUTPUT_NS: u64 = 9_000_000_000;

/// Serves the guest, whose devices are this card's, until it comes to its end. `move_vcpu` lets a vCPU go on on a CPU.
pub(crate) fn serve(
    shared: &Shared,
    card: Option<&Card>,
    console: &mut Console,
    events: Notification,
    move_vcpu: impl Fn(u32, u32),
) -> End {
    let mut input = VecDeque::new();
    let mut bytes = [0; 256];
    const { assert!(256 <= MAX_BYTES) };
    loop {
        let now_ns = clock_now_ns();
        let busy = !console.is_idle() || !input.is_empty();
        let retry_ns = if busy { now_ns.saturating_add(BUSY_NS) } else { FOREVER };
        let deadline_ns = shared.next_deadline_ns().unwrap_or(FOREVER).min(retry_ns);
        let timeout_ns = if deadline_ns == FOREVER { FOREVER } else { deadline_ns.saturating_sub(now_ns) };
        // A time-out, or the retry after one, is as good as a signal.
        let bits = events.wait_timed(timeout_ns).unwrap_or(0);
        if bits & wake::INPUT != 0 {
            loop {
                let size = console.read(&mut bytes);
                input.extend(bytes.iter().take(size));
                if size < bytes.len() {
                    break;
                }
            }
            while let Some((vcpu, cpu)) = console.take_move() {
                move_vcpu(vcpu, cpu);
            }
        }
        shared.tell_of_broken(bits);
        if bits & wake::CONFIG != 0
            && let Some(card) = card
        {
            shared.tell_of_config(|| card.changed());
        }
        shared.with_machine(|machine, now_ns| {
            machine.tick(now_ns);
            let taken = machine.console_input(input.make_contiguous(), now_ns);
            input.drain(..taken.min(input.len()));
        });
        if bits & wake::OUTPUT != 0 {
            time::sleep(COLLECT);
        }
        console.write(shared.take_output().into_iter());
        if let Some(end) = shared.end() {
            finish_output(shared, console);
            return end;
        }
    }
}

/// Sends the last output, unless nobody takes it for some time.
fn finish_output(shared: &Shared, console: &mut Console) {
    let last_ns = clock_now_ns().saturating_add(LAST_OUTPUT_NS);
    while !console.write(shared.take_output().into_iter()) && clock_now_ns() < last_ns {
        time::sleep(Duration::from_nanos(BUSY_NS));
    }
}
