//! Random registers for a thread that goes on after a fault.

use dragonfly_random::Random;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Gate, Message};

use super::super::Context;
use super::{Neighbour, any_address, any_number};
use crate::check::{Failure, Outcome, that};
use crate::light::{Builder, Child, Words};

/// Runs into a fault at once, and again wherever it is sent.
#[unsafe(naked)]
extern "C" fn faulter(_: &Words) -> ! {
    core::arch::naked_asm!("2:", "ud2", "jmp 2b")
}

pub fn random_states(context: &Context) -> Outcome {
    let seed = context.options.seed.unwrap_or(11);
    let mut random = Random::new(seed);
    let neighbour = Neighbour::start()?;
    for round in 0..context.repeat(300, 3000, 100_000) {
        let cpu = round as u32 % cpus();
        let progress = if round % 100 == 0 { Some(neighbour.progress()?) } else { None };
        let child = Child::new()?;
        let gate = Gate::create()?;
        let light =
            Builder::new(cpu).fault_gate(*gate, 0).budget(20_000, 1_000_000).spawn(child.domain(), faulter, &[])?;
        for _ in 0..5 {
            // A state may send it into an endless loop: then no fault comes, and that is fine.
            let Ok(received) = gate.receive_timed(2_000_000) else { break };
            let Some(fault) = crate::probe::Fault::of(&received) else {
                return Err(Failure::new(format_args!("a message that is no fault: {received:x?}")));
            };
            let mut state = fault.state;
            for register in [
                &mut state.rax,
                &mut state.rcx,
                &mut state.rdx,
                &mut state.rsi,
                &mut state.rdi,
                &mut state.rbp,
                &mut state.rsp,
                &mut state.r8,
                &mut state.r11,
                &mut state.rflags,
            ] {
                *register = any_number(&mut random);
            }
            state.rip = match random.below(4) {
                0 => any_number(&mut random),
                1 => any_address(&mut random),
                // Somewhere in the program.
                _ => 0x20_0000 + random.below(0x1_0000),
            };
            dragonfly_rt::message::buffer().set_thread_state(&state);
            let tag = dragonfly_abi::MessageTag::new(1, size_of_val(&state), 0);
            dragonfly_rt::sys::reply(Message { tag, words: [0; 4] })?;
        }
        that(light.thread().info().is_ok(), "the thread's handle is still good")?;
        drop(light);
        child.destroy()?;
        if let Some(progress) = progress {
            neighbour
                .expect_progress(&progress)
                .map_err(|failure| failure.in_case(format_args!("round {round} of seed {seed}")))?;
        }
    }
    neighbour.check()
}
