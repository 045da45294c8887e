//! Calls, replies and receives: who runs, on whose budget, and what everybody is told.

use dragonfly_abi::{Call, FOREVER, Rights};

use super::world::{Actor, Home, World};

mod budgets;
mod content;
mod turns;

const ALL: Rights = Rights::all();

/// A thread that waits at a gate.
fn server(world: &mut World, home: &Home, gate: u64, cpu: usize, priority: u8) -> Actor {
    let server = world.thread(home, cpu, priority);
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    server
}

/// A gate, the thread that serves it, and a thread of priority 10 on the same CPU whose call it is about to answer.
struct Called {
    home: Home,
    gate: u64,
    server: Actor,
    caller: Actor,
}

fn called(world: &mut World, priority: u8) -> Called {
    let (home, gate) = world.home_with_gate();
    let server = server(world, &home, gate, 0, priority);
    let caller = world.thread(&home, 0, 10);
    world.wait(&caller, Call::Call, &[gate, 0]);
    let _ = world.results(&server);
    Called { home, gate, server, caller }
}
