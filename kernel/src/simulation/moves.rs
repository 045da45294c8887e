//! Threads that move to another CPU.

use dragonfly_abi::{Call, FOREVER, MIN_BUDGET_NS, Rights, Status};

use super::rounds::every_order;
use super::world::{Action, Actor, World, padded};
use crate::arch::Arch;
use crate::thread::Phase;

/// A thread, which runs, has moved to another CPU, where it runs as well.
fn move_to(world: &mut World, actor: &mut Actor, cpu: usize) {
    world.wait(actor, Call::ThreadMove, &[cpu as u64]);
    actor.cpu = cpu;
    world.deliver(cpu);
    assert_eq!(world.results(actor), (Status::Ok, [0; 6]));
}

#[test]
fn a_thread_goes_on_where_it_wants_to_and_nowhere_else() {
    let mut world = World::new(3);
    let (_, mut actor, _) = world.settler(0, 10);
    for cpu in [1, 0, 2, 1] {
        move_to(&mut world, &mut actor, cpu);
        let (status, words) = world.ask(Call::ThreadInfo, &[actor.handle]);
        assert_eq!((status, words[2]), (Status::Ok, cpu as u64));
        assert!(world.current(0).is_none() || cpu == 0);
    }
    assert_eq!(world.status(&actor, Call::ThreadMove, &[1]), Status::Ok, "where it is");
    // The keeper's CPU is not the domain's.
    for cpu in [3, 4, 64, u64::MAX] {
        assert_eq!(world.status(&actor, Call::ThreadMove, &[cpu]), Status::BadCpu);
    }
    world.finish();
}

#[test]
fn a_thread_that_owes_an_answer_stays() {
    let mut world = World::new(2);
    let (home, gate) = world.home_with_gate();
    for cpu in [0, 1] {
        let server = world.thread(&home, 0, 20);
        world.wait(&server, Call::Receive, &[gate, FOREVER]);
        let caller = world.thread(&home, cpu, 30);
        world.wait(&caller, Call::Call, &[gate, 0]);
        world.deliver_all();
        let _ = world.results(&server);
        assert_eq!(world.status(&server, Call::ThreadMove, &[1]), Status::BadState);
        let _ = world.act(&server, Call::Reply, &[0, 0]);
        world.deliver_all();
        let _ = world.results(&caller);
        world.wait(&caller, Call::ThreadExit, &[]);
        // Its answer's own result, if the caller ran first.
        let _ = world.thread_of(&server).context.take_results();
        world.wait(&server, Call::ThreadExit, &[]);
    }
    world.finish();
}

#[test]
fn a_timer_goes_with_its_thread() {
    let mut world = World::new(2);
    let (_, mut actor, _) = world.settler(0, 10);
    let notification = world.get(&actor, Call::NotificationCreate, &[]);
    for wait_ns in [5_000, 1] {
        let deadline = world.fake.now() - world.kernel().started() + 5_000;
        assert_eq!(world.status(&actor, Call::TimerArm, &[notification, deadline, 4]), Status::Ok);
        // Once it is due before the thread arrives, once it is not.
        world.wait(&actor, Call::ThreadMove, &[1]);
        world.fake.advance(5_001 - wait_ns);
        actor.cpu = 1;
        world.deliver(1);
        let _ = world.results(&actor);
        world.wait(&actor, Call::NotificationWait, &[notification, FOREVER]);
        world.advance(wait_ns);
        assert_eq!(world.results(&actor), (Status::Ok, [4, 0, 0, 0, 0, 0]));
        move_to(&mut world, &mut actor, 0);
        world.advance(20_000);
        assert_eq!(world.status(&actor, Call::NotificationWait, &[notification, 0]), Status::WouldBlock);
    }
    world.finish();
}

#[test]
fn a_budget_goes_with_its_thread() {
    let mut world = World::new(2);
    let home = world.home(1 << 20);
    let mut actor = world.stopped(&home, 0, 10);
    let (budget, period) = (100 * MIN_BUDGET_NS, 1_000 * MIN_BUDGET_NS);
    world.keep(Call::ThreadConfigure, &[actor.handle, budget, period]);
    world.start(&actor);
    world.advance(budget * 9 / 10);
    move_to(&mut world, &mut actor, 1);
    world.advance(budget / 20);
    assert!(world.is_current(&actor));
    world.advance(budget / 10);
    assert!(!world.is_current(&actor), "it has used what it had");
    world.advance(period - budget);
    assert!(world.is_current(&actor));
    world.finish();
}

#[test]
fn a_thread_that_is_destroyed_while_it_moves_ends() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let mover = world.thread(&home, 0, 20);
            let killer = world.thread(&home, 1, 10);
            let handle = world.grant(mover.handle, &home, Rights::all(), 0);
            let destroy = Action::Call(Call::ThreadDestroy, padded(&[handle]));
            let go = Action::Call(Call::ThreadMove, padded(&[1]));
            (vec![(0, go), (1, destroy)], (mover, killer, handle))
        },
        |world, (mover, killer, handle)| {
            let status = world.results(&killer).0;
            assert!(matches!(status, Status::Ok | Status::Again));
            assert_eq!(world.complete(&killer, Call::ThreadDestroy, &[handle]), Status::Ok);
            assert_eq!(world.thread_of(&mover).phase(), Phase::Ended);
        },
    );
}

#[test]
fn a_domain_that_is_destroyed_while_its_thread_moves_between_others_is_gone() {
    every_order(
        3,
        |world| {
            let home = world.home(1 << 20);
            let mover = world.thread(&home, 0, 20);
            let killer = world.settler(2, 10);
            let handle = world.grant(home.handle, &killer.0, Rights::all(), 0);
            let destroy = Action::Call(Call::DomainDestroy, padded(&[handle]));
            let go = Action::Call(Call::ThreadMove, padded(&[1]));
            (vec![(0, go), (2, destroy)], (mover, killer.1, handle))
        },
        |world, (mover, killer, handle)| {
            let status = world.results(&killer).0;
            assert!(matches!(status, Status::Ok | Status::Again));
            if status == Status::Again {
                assert_eq!(world.complete(&killer, Call::DomainDestroy, &[handle]), Status::Ok);
            }
            assert!(world.find(&world.root, mover.handle).is_none(), "the thread is gone with its domain");
        },
    );
}
