//! Several CPUs in the kernel at once: each does its part on a thread of the host.
//!
//! Either one goes on at a time, and the turn may change where the kernel waits for a lock or comes to the architecture
//! (memory, clock, results, interrupts): which turn comes next is the test's choice, so that a run can be repeated. Or
//! they are free to go on at the same time.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};

/// More turns than any parts need: they wait for each other for ever.
const MOST_TURNS: u64 = 2_000_000;

/// Says who goes on: given who had the last turn, whether it can go on itself, and who may have the next (sorted, not
/// empty).
pub type Choose = Box<dyn FnMut(usize, bool, &[usize]) -> usize + Send>;

/// What a CPU does.
pub type Part<T> = Box<dyn FnOnce() -> T + Send>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Nothing if all may go on at the same time.
    choose: Option<Choose>,
    /// Whose turn it is.
    turn: usize,
    is_over: Vec<bool>,
    turns: u64,
    failure: Option<String>,
}

/// A thread of the host as a part.
#[derive(Clone)]
struct Player {
    shared: Arc<Shared>,
    number: usize,
    is_free: bool,
}

thread_local! {
    static PLAYER: RefCell<Option<Player>> = const { RefCell::new(None) };
}

/// Does parts, each to its end, and gives what they gave. Panics if one of them panics; the others then stay where they
/// are, since the kernel is not made to be unwound.
pub fn play<T: Send + 'static>(parts: Vec<Part<T>>, mut choose: Option<Choose>) -> Vec<T> {
    park_players_that_panic();
    let count = parts.len();
    let candidates: Vec<_> = (0..count).collect();
    let (is_free, turn) = (choose.is_none(), choose.as_mut().map_or(0, |choose| choose(0, false, &candidates)));
    let state = State { choose, turn, is_over: vec![false; count], turns: 0, failure: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    let threads: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(number, part)| {
            let player = Player { shared: shared.clone(), number, is_free };
            std::thread::spawn(move || player.play(part))
        })
        .collect();
    let is_done = |state: &mut State| state.failure.is_none() && state.is_over.contains(&false);
    let state = shared.changed.wait_while(lock(&shared), is_done).unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = &state.failure {
        let failure = failure.clone();
        drop(state);
        panic!("{failure}");
    }
    drop(state);
    threads.into_iter().map(|thread| thread.join().expect("a part that is over")).collect()
}

/// Lets other CPUs act here. Without parts nothing happens.
pub fn may_switch() {
    switch(true);
}

/// Lets other CPUs act, since this one waits for them. False without parts.
pub fn must_switch() -> bool {
    switch(false)
}

fn switch(can_go_on: bool) -> bool {
    let Some(player) = PLAYER.with(|player| player.borrow().clone()) else { return false };
    if player.is_free {
        std::thread::yield_now();
        return true;
    }
    let mut state = lock(&player.shared);
    state.turns += 1;
    let is_endless = state.turns > MOST_TURNS;
    let is_stuck = !state.pass_on(player.number, can_go_on);
    if is_endless || is_stuck {
        drop(state);
        assert!(!is_endless, "CPUs in the kernel wait for each other");
        panic!("a CPU waits for a lock that nobody in the kernel holds");
    }
    player.wait(state);
    true
}

impl Player {
    fn play<T>(self, part: Part<T>) -> T {
        PLAYER.with(|player| *player.borrow_mut() = Some(self.clone()));
        self.wait(lock(&self.shared));
        let result = part();
        PLAYER.with(|player| *player.borrow_mut() = None);
        let mut state = lock(&self.shared);
        state.is_over[self.number] = true;
        state.pass_on(self.number, false);
        self.shared.changed.notify_all();
        result
    }

    /// Waits for its turn.
    fn wait(&self, state: MutexGuard<'_, State>) {
        if !self.is_free && state.turn != self.number {
            self.shared.changed.notify_all();
            let is_others = |state: &mut State| state.turn != self.number;
            drop(self.shared.changed.wait_while(state, is_others).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl State {
    /// Gives the turn to somebody; false if there is nobody.
    fn pass_on(&mut self, from: usize, can_go_on: bool) -> bool {
        let is_candidate = |other: &usize| !self.is_over[*other] && (can_go_on || *other != from);
        let candidates: Vec<_> = (0..self.is_over.len()).filter(is_candidate).collect();
        if candidates.is_empty() {
            return false;
        }
        if let Some(choose) = &mut self.choose {
            self.turn = choose(from, can_go_on, &candidates);
        }
        true
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part that panics says so and stays where it is: it holds locks, and unwinding would break more.
fn park_players_that_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            usual(info);
            let player = PLAYER.try_with(|player| player.try_borrow_mut().ok().and_then(|mut player| player.take()));
            if let Some(player) = player.ok().flatten() {
                report(&player.shared, info);
                loop {
                    std::thread::park();
                }
            }
        }));
    });
}

fn report(shared: &Shared, info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a part panicked");
    let place = info.location().map_or_else(String::new, ToString::to_string);
    let mut state = lock(shared);
    if state.failure.is_none() {
        state.failure = Some(format!("{message} ({place})"));
    }
    shared.changed.notify_all();
}
