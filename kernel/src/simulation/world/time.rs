//! Kicks and timers that come, and time that passes.

use dragonfly_abi::FOREVER;

use super::{Action, MANY, World};
use crate::arch::Arch;

impl World {
    /// Tells a CPU that it has been kicked, if it has.
    pub fn deliver(&mut self, cpu: usize) -> bool {
        let is_kicked = self.fake.is_kicked(cpu);
        if is_kicked {
            self.perform(cpu, Action::Kick);
        }
        is_kicked
    }

    /// Lets a CPU's timer come, if its time has.
    pub fn tick(&mut self, cpu: usize) -> bool {
        let is_due = self.fake.timer(cpu) <= self.fake.now();
        if is_due {
            self.perform(cpu, Action::Timer);
        }
        is_due
    }

    /// Delivers kicks and due timers to a CPU until there are none.
    pub fn step(&mut self, cpu: usize) {
        for _ in 0..MANY {
            if !self.deliver(cpu) && !self.tick(cpu) {
                return;
            }
        }
        panic!("the timer of CPU {cpu} comes for ever");
    }

    /// Delivers all kicks.
    pub fn deliver_all(&mut self) {
        while (0..self.cpus.len()).any(|cpu| self.deliver(cpu)) {}
    }

    /// Delivers all kicks and due timers.
    pub fn step_all(&mut self) {
        while (0..self.cpus.len()).any(|cpu| self.deliver(cpu) || self.tick(cpu)) {}
    }

    /// Lets time pass, with every timer at its time.
    pub fn advance(&mut self, ns: u64) {
        let end = self.fake.now() + ns;
        for _ in 0..MANY {
            self.step_all();
            let next = (0..self.cpus.len()).map(|cpu| self.fake.timer(cpu)).min().unwrap_or(FOREVER);
            let now = self.fake.now();
            if next >= end {
                self.fake.advance(end - now);
                self.step_all();
                return;
            }
            self.fake.advance(next - now);
        }
        panic!("the timers never let {ns} ns pass");
    }
}
