//! Two CPUs in the kernel at once, in every order that matters.

use dragonfly_abi::{Call, Rights};

use super::world::{Action, Actor, Home, World, padded};

mod ends;
mod memory;
mod messages;
mod signals;

fn call(call: Call, words: &[u64]) -> Action {
    Action::Call(call, padded(words))
}

/// A handle of the domain to a thread.
fn named(world: &mut World, home: &Home, actor: &Actor) -> u64 {
    world.grant(actor.handle, home, Rights::all(), 0)
}

/// A domain, its handle to itself, and its threads on CPUs 0 and 1.
fn with_two_threads(world: &mut World) -> (Home, u64, [Actor; 2]) {
    let home = world.home(4 << 20);
    let own = world.grant(home.handle, &home, Rights::all(), 0);
    (home, own, [0, 1].map(|cpu| world.thread(&home, cpu, 10)))
}
