//! What the keeper does for tests: it makes domains, threads and handles.

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};

use super::{Actor, Home, MANY, Results, World};

impl World {
    /// The keeper's call and its status.
    pub fn ask(&mut self, call: Call, words: &[u64]) -> Results {
        let cpu = self.keeper.cpu;
        self.call(cpu, call, words).expect("the keeper does not wait")
    }

    /// The keeper's call, which succeeds: its first word.
    pub fn keep(&mut self, call: Call, words: &[u64]) -> u64 {
        let (status, words) = self.ask(call, words);
        assert_eq!(status, Status::Ok, "{call:?}");
        words[0]
    }

    /// The keeper's call, again as long as it says so while the other CPUs do what they are asked: the last status.
    pub fn insist(&mut self, call: Call, words: &[u64]) -> Status {
        for _ in 0..MANY {
            match self.ask(call, words).0 {
                Status::Again => self.deliver_all(),
                status => return status,
            }
        }
        panic!("{call:?} never comes to its end");
    }

    /// A domain below the first with a quota in bytes, every priority, and every CPU but the keeper's.
    pub fn home(&mut self, quota: u64) -> Home {
        let cpus = (1 << (self.cpus.len() - 1)) - 1;
        let handle = self.keep(Call::DomainCreate, &[self.root.handle, quota, 63, cpus]);
        Home { handle }
    }

    /// A domain and its handle to a gate, which nobody else has.
    pub fn home_with_gate(&mut self) -> (Home, u64) {
        let home = self.home(2 << 20);
        let gate = self.keep(Call::GateCreate, &[]);
        let granted = self.grant(gate, &home, Rights::all(), 0);
        self.keep(Call::HandleClose, &[gate]);
        (home, granted)
    }

    /// A thread that has not been started.
    pub fn stopped(&mut self, home: &Home, cpu: usize, priority: u8) -> Actor {
        self.buffers += PAGE_SIZE;
        let place = cpu as u64 | u64::from(priority) << 32;
        let handle = self.keep(Call::ThreadCreate, &[home.handle, place, 0x1000, 0x2000, self.buffers, 0]);
        Actor { cpu, handle }
    }

    /// A thread that runs if its priority is the highest.
    pub fn thread(&mut self, home: &Home, cpu: usize, priority: u8) -> Actor {
        let actor = self.stopped(home, cpu, priority);
        self.start(&actor);
        actor
    }

    /// Starts a thread.
    pub fn start(&mut self, actor: &Actor) {
        self.keep(Call::ThreadStart, &[actor.handle]);
        self.deliver(actor.cpu);
    }

    /// Gives a copy of one of the keeper's handles to a domain.
    pub fn grant(&mut self, handle: u64, home: &Home, rights: Rights, badge: u64) -> u64 {
        self.keep(Call::HandleCopy, &[handle, home.handle, u64::from(rights.bits()), badge])
    }

    /// A thread with a domain of its own, and the domain's handle to itself.
    pub fn settler(&mut self, cpu: usize, priority: u8) -> (Home, Actor, u64) {
        let home = self.home(2 << 20);
        let own = self.grant(home.handle, &home, Rights::all(), 0);
        let actor = self.thread(&home, cpu, priority);
        (home, actor, own)
    }
}
