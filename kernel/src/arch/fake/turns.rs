//! Several CPUs in the kernel at once, one of them at a time: parts take turns where the kernel waits for a lock or comes
//! to the architecture (memory, clock, results, interrupts). Which turn comes next is the test's choice, so a run can be
//! repeated.
//!
//! Each part is a thread of the host, of which only the one whose turn it is runs.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// More turns than any round of parts needs: they wait for each other for ever.
const MOST_TURNS: u64 = 2_000_000;

/// Says who goes on: given who had the last turn, whether it can go on itself, and who may have the next (sorted, not
/// empty).
pub type Choose = Box<dyn FnMut(usize, bool, &[usize]) -> usize + Send>;

/// What a part does.
pub type Part<'a> = Box<dyn FnOnce() + Send + 'a>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    choose: Choose,
    /// Whose turn it is.
    turn: usize,
    is_over: Vec<bool>,
    turns: u64,
    failure: Option<Box<dyn Any + Send>>,
}

/// What a part unwinds with because another has failed.
struct Abandoned;

thread_local! {
    static PART: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// Runs parts, each to its end, in turns. Panics as the first part does that panics.
pub fn interleave(parts: Vec<Part<'_>>, mut choose: Choose) {
    let count = parts.len();
    let candidates: Vec<_> = (0..count).collect();
    let first = choose(0, false, &candidates);
    let state = State { choose, turn: first, is_over: vec![false; count], turns: 0, failure: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    std::thread::scope(|scope| {
        for (number, part) in parts.into_iter().enumerate() {
            let shared = shared.clone();
            scope.spawn(move || run(shared, number, part));
        }
    });
    let failure = lock(&shared).failure.take();
    if let Some(failure) = failure {
        resume_unwind(failure);
    }
}

fn run(shared: Arc<Shared>, number: usize, part: Part<'_>) {
    PART.with(|mine| *mine.borrow_mut() = Some((shared.clone(), number)));
    let result = catch_unwind(AssertUnwindSafe(|| {
        wait(&shared, lock(&shared), number);
        part();
    }));
    PART.with(|mine| *mine.borrow_mut() = None);
    let mut state = lock(&shared);
    state.is_over[number] = true;
    if let Err(failure) = result
        && !failure.is::<Abandoned>()
        && state.failure.is_none()
    {
        state.failure = Some(failure);
    }
    if state.turn == number {
        state.pass_on(number, false);
    }
    shared.changed.notify_all();
}

/// Lets other CPUs act here. On a machine whose CPUs do not take turns, nothing happens.
pub fn may_switch() {
    switch(true);
}

/// Lets other CPUs act, since this one waits for them. False on a machine whose CPUs do not take turns.
pub fn must_switch() -> bool {
    switch(false)
}

fn switch(can_go_on: bool) -> bool {
    let Some((shared, number)) = PART.with(|mine| mine.borrow().clone()) else { return false };
    if std::thread::panicking() {
        return true;
    }
    let mut state = lock(&shared);
    state.turns += 1;
    assert!(state.turns < MOST_TURNS, "CPUs in the kernel wait for each other");
    assert!(can_go_on || !state.others(number).is_empty(), "a CPU waits for a lock that nobody in the kernel holds");
    state.pass_on(number, can_go_on);
    if state.turn != number {
        shared.changed.notify_all();
    }
    wait(&shared, state, number);
    true
}

fn wait(shared: &Shared, mut state: MutexGuard<'_, State>, number: usize) {
    while state.turn != number && state.failure.is_none() {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if state.failure.is_some() {
        drop(state);
        panic_any(Abandoned);
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn others(&self, number: usize) -> Vec<usize> {
        (0..self.is_over.len()).filter(|other| *other != number && !self.is_over[*other]).collect()
    }

    fn pass_on(&mut self, from: usize, can_go_on: bool) {
        let candidates: Vec<_> =
            (0..self.is_over.len()).filter(|other| !self.is_over[*other] && (can_go_on || *other != from)).collect();
        if !candidates.is_empty() {
            self.turn = (self.choose)(from, can_go_on, &candidates);
        }
    }
}
