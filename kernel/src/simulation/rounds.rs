//! Several CPUs in the kernel at once.

use std::mem::replace;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dragonfly_random::Random;

use super::audit::audit;
use super::world::{Action, World, perform};
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::arch::fake::turns::{Choose, Part, must_switch, play};
use crate::cpu::Cpu;

/// How the CPUs of a round share time: in turns, or as the host has it.
pub type Pace = Option<Choose>;

/// Turns that change on average once in so many places where they may.
pub fn random_turns(seed: u64, seldom: u64) -> Pace {
    let mut random = Random::new(seed);
    Some(Box::new(move |last, can_go_on, candidates| {
        if can_go_on && random.below(seldom) != 0 {
            return last;
        }
        candidates[random.index(candidates.len())]
    }))
}

impl World {
    /// Lets CPUs, each of which is named at most once, do something at the same time.
    pub fn round(&mut self, actions: &[(usize, Action)], pace: Pace) {
        if self.is_traced {
            eprintln!("together: {actions:x?}");
        }
        let fake = self.fake;
        fake.begin_round(actions.iter().fold(0, |mask, (cpu, _)| mask | 1 << cpu));
        let at_work = Arc::new(AtomicUsize::new(actions.len()));
        let mut parts: Vec<Part<Cpu<Fake>>> = Vec::new();
        for (number, action) in actions {
            let (action, at_work) = (*action, at_work.clone());
            let mut cpu = replace(&mut self.cpus[*number], Cpu::new(*number));
            parts.push(Box::new(move || {
                take_part(fake, &mut cpu, action, &at_work);
                cpu
            }));
        }
        for cpu in play(parts, pace) {
            let number = cpu.id;
            self.cpus[number] = cpu;
        }
        fake.begin_round(0);
        audit(self);
    }
}

fn take_part(fake: Fake, cpu: &mut Cpu<Fake>, action: Action, at_work: &AtomicUsize) {
    fake.enter(cpu.id);
    perform(fake, cpu, action);
    // The interrupts of the others reach it until all are done.
    at_work.fetch_sub(1, SeqCst);
    while at_work.load(SeqCst) != 0 {
        fake.kernel().answer_shootdown(cpu.id);
        if at_work.load(SeqCst) != 0 {
            must_switch();
        }
    }
}

/// How many runs one test makes at most.
const MOST_RUNS: usize = if cfg!(miri) { 6 } else { 500 };

/// Runs a scene in every order in which at most two places change the turn before they have to, or as many of those as
/// are allowed. `set_up` says what the CPUs are to do at the same time, `check` looks at what came of it.
pub fn every_order<T>(
    cpus: usize,
    set_up: impl Fn(&mut World) -> (Vec<(usize, Action)>, T),
    check: impl Fn(&mut World, T),
) {
    let mut runs = 0;
    let mut run = |changes: Vec<usize>| {
        runs += 1;
        let mut world = World::new(cpus);
        let (actions, context) = set_up(&mut world);
        let places = Arc::new(AtomicUsize::new(0));
        let seen = places.clone();
        let in_order = move |last: usize, can_go_on: bool, candidates: &[usize]| {
            let place = places.fetch_add(1, SeqCst);
            if can_go_on && !changes.contains(&place) {
                return last;
            }
            let has_first_change = place == 0 && changes.contains(&0);
            let next = candidates.iter().position(|candidate| *candidate > last || place == 0 && !has_first_change);
            candidates[next.unwrap_or(0)]
        };
        world.round(&actions, Some(Box::new(in_order)));
        world.deliver_all();
        check(&mut world, context);
        world.finish();
        (seen.load(SeqCst), runs)
    };
    let (places, _) = run(vec![]);
    let stride = (places * places / MOST_RUNS).max(1);
    for (phase, first) in (0..places).enumerate() {
        let (places, runs) = run(vec![first]);
        for second in (first + 1 + phase % stride..places).step_by(stride) {
            if runs > MOST_RUNS {
                return;
            }
            run(vec![first, second]);
        }
    }
}
