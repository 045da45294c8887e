//! One CPU's scheduler against a naive model: plain lists that are searched from end to end, with [`Budget`] for the
//! arithmetic, which has a model of its own.

use dragonfly_abi::{Call, FOREVER, MIN_BUDGET_NS, Status};
use proptest::prelude::*;

use super::world::{Actor, World};
use crate::arch::{Arch, NEVER};
use crate::budget::{Budget, Left};

const THREADS: usize = 5;
/// The CPU that is looked at.
const CPU: usize = 0;

/// What a thread is made with.
#[derive(Clone, Copy, Debug)]
struct Plan {
    priority: u8,
    budget_ns: u64,
    period_ns: u64,
}

/// What happens next; calls are made by whatever thread runs.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Yield,
    Sleep(u64),
    Wait,
    Exit,
    /// It signals another thread of its CPU.
    Tell(usize),
    /// Another CPU signals a thread.
    Signal(usize),
    /// Another CPU kicks this one for nothing.
    Kick,
}

struct Member {
    plan: Plan,
    budget: Budget,
    has_bits: bool,
    is_waiting: bool,
}

/// What ought to be.
struct Model {
    now: u64,
    members: Vec<Member>,
    current: Option<usize>,
    /// Until when the current one has been charged.
    since: u64,
    /// Those that are ready, in the order in which those of one priority run.
    ready: Vec<usize>,
    /// Those without budget, by when they get some.
    depleted: Vec<usize>,
    /// Those whose wait has an end.
    sleepers: Vec<(u64, usize)>,
}

impl Model {
    fn priority(&self, member: usize) -> u8 {
        self.members[member].plan.priority
    }

    fn charge(&mut self) -> Left {
        let used = self.now - self.since;
        self.since = self.now;
        self.current.map_or(Left::Some, |current| self.members[current].budget.charge(used, self.now))
    }

    /// Puts a thread in before or behind the others of its priority, or among those without budget.
    fn enqueue(&mut self, member: usize, at_front: bool) {
        let budget = |member: usize| &self.members[member].budget;
        if budget(member).available(self.now) == 0 {
            let next = budget(member).next_time();
            let place = self.depleted.iter().position(|other| budget(*other).next_time() > next);
            self.depleted.insert(place.unwrap_or(self.depleted.len()), member);
            return;
        }
        let is_alike = |other: &usize| self.priority(*other) == self.priority(member);
        let place = if at_front {
            self.ready.iter().position(is_alike).unwrap_or(0)
        } else {
            self.ready.iter().rposition(is_alike).map_or(self.ready.len(), |last| last + 1)
        };
        self.ready.insert(place, member);
    }

    fn wake(&mut self, member: usize) {
        self.members[member].is_waiting = false;
        self.sleepers.retain(|(_, other)| *other != member);
        let now = self.now;
        self.members[member].budget.wake(now);
        self.enqueue(member, false);
    }

    /// The highest priority that is ready.
    fn best(&self) -> Option<u8> {
        self.ready.iter().map(|member| self.priority(*member)).max()
    }

    fn choose(&mut self) {
        let left = self.charge();
        if let Some(current) = self.current.take() {
            let (own, best) = (self.priority(current), self.best());
            let stays = match left {
                Left::Some => best.is_none_or(|best| best <= own),
                Left::NextSlice => best.is_none_or(|best| best < own),
                Left::Nothing => false,
            };
            if stays {
                self.current = Some(current);
                return;
            }
            self.enqueue(current, left == Left::Some);
        }
        let place = self.ready.iter().position(|member| Some(self.priority(*member)) == self.best());
        self.current = place.map(|place| self.ready.remove(place));
        self.since = self.now;
    }

    /// The current thread stops wanting the CPU.
    fn leave(&mut self) {
        self.charge();
        self.current = None;
        self.choose();
    }

    fn rotate(&mut self) {
        self.charge();
        if let Some(current) = self.current.take() {
            self.enqueue(current, false);
        }
        self.choose();
    }

    fn tick(&mut self) {
        let due: Vec<_> = self.sleepers.iter().filter(|(deadline, _)| *deadline <= self.now).copied().collect();
        due.iter().for_each(|(_, member)| self.wake(*member));
        while let Some(first) = self.depleted.first().copied()
            && self.members[first].budget.next_time() <= self.now
        {
            self.depleted.remove(0);
            self.enqueue(first, false);
        }
        self.choose();
    }

    /// By when the timer has to come.
    fn next_event(&self) -> u64 {
        let end = self.current.map(|current| &self.members[current].budget).map(|budget| {
            // A round-robin slice ends only if there is somebody to have the next.
            let is_endless = budget.is_slice() && self.ready.is_empty();
            if is_endless { NEVER } else { self.since + budget.available(self.since) }
        });
        let sleeper = self.sleepers.first().map(|(deadline, _)| *deadline);
        let refill = self.depleted.first().map(|member| self.members[*member].budget.next_time());
        [end, sleeper, refill].into_iter().flatten().min().unwrap_or(NEVER)
    }
}

struct Scene {
    world: World,
    actors: Vec<Actor>,
    /// The keeper's and the threads' handles to the notification that each waits for.
    notifications: Vec<(u64, u64)>,
    model: Model,
}

impl Scene {
    fn new(plans: &[Plan]) -> Self {
        let mut world = World::new(1);
        let home = world.home(4 << 20);
        let (mut actors, mut notifications, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            let actor = world.stopped(&home, CPU, plan.priority);
            let notification = world.keep(Call::NotificationCreate, &[]);
            let granted = world.grant(notification, &home, dragonfly_abi::Rights::all(), 0);
            world.keep(Call::ThreadConfigure, &[actor.handle, plan.budget_ns, plan.period_ns, 0, 0, 0]);
            actors.push(actor);
            notifications.push((notification, granted));
            let budget = Budget::new(plan.budget_ns, plan.period_ns, Arch::now(world.fake));
            members.push(Member { plan: *plan, budget, has_bits: false, is_waiting: false });
        }
        let now = Arch::now(world.fake);
        let (ready, depleted, sleepers) = (Vec::new(), Vec::new(), Vec::new());
        let model = Model { now, members, current: None, since: now, ready, depleted, sleepers };
        let mut scene = Self { world, actors, notifications, model };
        for member in 0..scene.actors.len() {
            scene.world.keep(Call::ThreadStart, &[scene.actors[member].handle]);
            scene.world.deliver(CPU);
            scene.model.wake(member);
            scene.model.choose();
            scene.compare();
        }
        scene
    }

    fn compare(&self) {
        let current = self.world.cpus[CPU].current.as_ref();
        let found = self
            .actors
            .iter()
            .position(|actor| current.is_some_and(|current| super::Ref::ptr_eq(current, &self.world.thread_of(actor))));
        assert_eq!(found, self.model.current, "who runs at {}", self.model.now);
        for (actor, member) in self.actors.iter().zip(&self.model.members) {
            let consumed = self.world.thread_of(actor).schedule.lock().budget.consumed();
            assert_eq!(consumed, member.budget.consumed(), "time of {:?}", member.plan);
        }
        let timer = self.world.fake.timer(CPU);
        let wanted = self.model.next_event();
        assert!(timer <= wanted, "the timer comes at {timer}, and {wanted} is to happen before");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(ns) => return self.pass(ns),
            Step::Kick => {
                Arch::kick(self.world.fake, CPU);
                self.world.deliver(CPU);
                self.model.choose();
            }
            Step::Signal(member) => {
                let member = member % self.actors.len();
                self.world.keep(Call::NotificationSignal, &[self.notifications[member].0, 1]);
                if self.model.members[member].is_waiting {
                    self.world.deliver(CPU);
                    self.model.wake(member);
                    self.model.choose();
                } else {
                    self.model.members[member].has_bits = true;
                }
            }
            _ => self.call(step),
        }
        self.compare();
    }

    /// The current thread makes a call.
    fn call(&mut self, step: Step) {
        let Some(member) = self.model.current else { return };
        let actor = self.actors[member];
        let thread = self.world.thread_of(&actor);
        // What it waited for, or a preemption after a call, has left results.
        let _ = thread.context.take_results();
        drop(thread);
        if let Step::Tell(other) = step {
            let other = other % self.actors.len();
            let _ = self.world.act(&actor, Call::NotificationSignal, &[self.notifications[other].1, 1]);
            if !self.model.members[other].is_waiting {
                self.model.members[other].has_bits = true;
                return;
            }
            self.model.wake(other);
            if self.model.best() > Some(self.model.priority(member)) {
                self.model.choose();
            }
            return;
        }
        let wait = |timeout| (Call::NotificationWait, vec![self.notifications[member].1, timeout]);
        let (call, words) = match step {
            Step::Yield => (Call::ThreadYield, vec![]),
            Step::Exit => (Call::ThreadExit, vec![]),
            Step::Sleep(ns) => wait(ns),
            _ => wait(FOREVER),
        };
        let results = self.world.act(&actor, call, &words);
        match step {
            Step::Yield => self.model.rotate(),
            Step::Exit => self.model.leave(),
            _ if std::mem::take(&mut self.model.members[member].has_bits) => {
                assert_eq!(results.map(|(status, words)| (status, words[0])), Some((Status::Ok, 1)));
            }
            _ => {
                self.model.members[member].is_waiting = true;
                if let Step::Sleep(ns) = step {
                    let deadline = self.model.now + ns;
                    let place = self.model.sleepers.iter().position(|(other, _)| *other > deadline);
                    let place = place.unwrap_or(self.model.sleepers.len());
                    self.model.sleepers.insert(place, (deadline, member));
                }
                self.model.leave();
            }
        }
    }

    /// Lets time pass, with the timer at its time.
    fn pass(&mut self, ns: u64) {
        let end = self.model.now + ns;
        loop {
            while self.world.tick(CPU) {
                self.model.tick();
                self.compare();
            }
            let next = self.world.fake.timer(CPU).min(end);
            self.world.fake.advance(next - self.model.now);
            self.model.now = next;
            if next == end {
                return;
            }
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let spare = prop_oneof![Just(0), 1_u64..400_000];
    (0_u8..3, MIN_BUDGET_NS..100_000, spare).prop_map(|(priority, budget_ns, spare)| Plan {
        priority: 10 + priority,
        budget_ns,
        period_ns: budget_ns + spare,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..200_000).prop_map(Step::Pass),
        // Whole numbers of 10 us meet budgets and deadlines of the same kind.
        2 => (1_u64..20).prop_map(|units| Step::Pass(units * MIN_BUDGET_NS)),
        2 => Just(Step::Yield),
        3 => (1_u64..300_000).prop_map(Step::Sleep),
        1 => (1_u64..20).prop_map(|units| Step::Sleep(units * MIN_BUDGET_NS)),
        2 => Just(Step::Wait),
        4 => (0..THREADS).prop_map(Step::Signal),
        3 => (0..THREADS).prop_map(Step::Tell),
        1 => Just(Step::Kick),
        // Seldom, so that somebody is left.
        1 => prop_oneof![15 => Just(Step::Yield), 1 => Just(Step::Exit)],
    ]
}

proptest! {
    #![proptest_config(super::config(128))]

    #[test]
    fn threads_run_by_priority_turn_and_budget_as_in_the_model(
        plans in proptest::collection::vec(plan(), 1..=THREADS),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut scene = Scene::new(&plans);
        steps.into_iter().for_each(|step| scene.step(step));
        scene.world.finish();
    }
}
