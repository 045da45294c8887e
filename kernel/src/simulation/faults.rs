//! Faults: told to a handler, answered, or the end of the thread.

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{Call, FOREVER, FaultKind, FaultReply, MIN_BUDGET_NS, MessageKind, MessageTag, Rights, Status};
use dragonfly_memory::UserVirt;

use super::world::{Action, Actor, Home, Results, World, word};
use crate::arch::Context;
use crate::fault::Fault;
use crate::thread::Phase;

/// A faulting thread on CPU 0, and its handler waiting on the given CPU.
struct Scene {
    world: World,
    home: Home,
    thread: Actor,
    handler: Actor,
    gate: u64,
}

fn scene(handler_cpu: usize) -> Scene {
    let mut world = World::new(2);
    let home = world.home(2 << 20);
    let gate = world.keep(Call::GateCreate, &[]);
    let granted = world.grant(gate, &home, Rights::all(), 0);
    let handler = world.thread(&home, handler_cpu, 20);
    world.wait(&handler, Call::Receive, &[granted, FOREVER]);
    let thread = world.stopped(&home, 0, 10);
    let words = [thread.handle, 1_000_000, 1_000_000, gate, 77, 0];
    assert_eq!(world.ask(Call::ThreadConfigure, &words).0, Status::Ok);
    world.keep(Call::HandleClose, &[gate]);
    world.start(&thread);
    Scene { world, home, thread, handler, gate: granted }
}

impl Scene {
    fn fault(&mut self, fault: Fault) -> Results {
        self.world.perform(0, Action::Fault(fault));
        self.world.deliver_all();
        self.world.results(&self.handler)
    }

    fn answer(&mut self, reply: u32, bytes: usize) {
        let tag = MessageTag::new(reply, bytes, 0).0;
        self.world.wait(&self.handler, Call::ReplyReceive, &[self.gate, tag]);
        self.world.deliver_all();
    }
}

const EXCEPTION: Fault = Fault::Exception { number: 3, code: 9 };

#[test]
fn a_handler_learns_what_happened_and_where() {
    for cpu in [0, 1] {
        let mut scene = scene(cpu);
        let (status, words) = scene.fault(EXCEPTION);
        let tag = MessageTag(words[1]);
        assert_eq!((status, words[0], tag.kind()), (Status::Ok, 77, MessageKind::Fault));
        assert_eq!((tag.label(), words[2..].to_vec()), (FaultKind::Exception as u32, vec![3, 0x1000, 9, 0x2000]));
        assert_eq!(tag.bytes(), size_of::<ThreadState>());
        // The instruction pointer is the next to last word of the registers.
        assert_eq!(scene.world.buffer(&scene.handler).data(16), 0x1000);
        scene.world.finish();
    }
}

#[test]
fn a_page_fault_tells_address_and_access() {
    let mut scene = scene(0);
    scene.world.perform(0, Action::Touch(UserVirt::new(0xdead_0000), Rights::WRITE));
    let words = scene.world.results(&scene.handler).1;
    assert_eq!(MessageTag(words[1]).label(), FaultKind::PageFault as u32);
    assert_eq!((words[2], words[4]), (0xdead_0000, word(Rights::WRITE)));
    scene.world.finish();
}

#[test]
fn a_thread_that_is_resumed_goes_on_where_it_was() {
    for cpu in [0, 1] {
        let mut scene = scene(cpu);
        scene.fault(EXCEPTION);
        scene.answer(FaultReply::Resume as u32, 0);
        assert!(scene.world.is_current(&scene.thread));
        assert!(!scene.world.thread_of(&scene.thread).context.has_results());
        scene.world.finish();
    }
}

#[test]
fn a_thread_goes_on_with_the_registers_that_the_handler_gives() {
    let mut scene = scene(0);
    scene.fault(EXCEPTION);
    scene.world.buffer(&scene.handler).set_data(16, 0x7777);
    scene.answer(FaultReply::ResumeWith as u32, size_of::<ThreadState>());
    assert!(scene.world.is_current(&scene.thread));
    assert_eq!(scene.world.thread_of(&scene.thread).context.state().rip, 0x7777);
    scene.world.finish();
}

#[test]
fn a_thread_ends_when_its_handler_says_so_or_gives_too_few_registers() {
    for (cpu, reply, bytes) in [
        (0, FaultReply::End as u32, 0),
        (1, FaultReply::End as u32, 0),
        (0, 4711, 0),
        (0, FaultReply::ResumeWith as u32, size_of::<ThreadState>() - 8),
    ] {
        let mut scene = scene(cpu);
        scene.fault(EXCEPTION);
        scene.answer(reply, bytes);
        assert_eq!(scene.world.thread_of(&scene.thread).phase(), Phase::Ended);
        scene.world.finish();
    }
}

#[test]
fn a_thread_without_a_handler_ends() {
    let mut world = World::new(1);
    let (_, actor, _) = world.settler(0, 10);
    world.perform(0, Action::Fault(EXCEPTION));
    assert_eq!(world.thread_of(&actor).phase(), Phase::Ended);
    world.finish();
}

#[test]
fn a_faulted_thread_ends_with_its_handler() {
    for cpu in [0, 1] {
        let mut scene = scene(cpu);
        scene.fault(EXCEPTION);
        scene.world.wait(&scene.handler, Call::ThreadExit, &[]);
        scene.world.deliver_all();
        assert_eq!(scene.world.thread_of(&scene.thread).phase(), Phase::Ended);
        scene.world.finish();
    }
}

#[test]
fn a_fault_waits_for_a_receiver_and_can_be_ended_meanwhile() {
    let mut scene = scene(1);
    assert_eq!(scene.world.insist(Call::ThreadDestroy, &[scene.handler.handle]), Status::Ok);
    scene.world.perform(0, Action::Fault(EXCEPTION));
    assert!(scene.world.thread_of(&scene.thread).is_blocked());
    let late = scene.world.thread(&scene.home, 1, 20);
    let words = scene.world.act(&late, Call::Receive, &[scene.gate, 0]).expect("a fault waits").1;
    assert_eq!(MessageTag(words[1]).kind(), MessageKind::Fault);
    assert_eq!(scene.world.insist(Call::ThreadDestroy, &[scene.thread.handle]), Status::Ok);
    assert_eq!(scene.world.status(&late, Call::Reply, &[0, 0]), Status::NoCaller);
    scene.world.finish();
}

#[test]
fn a_fault_that_waits_ends_with_the_gate() {
    let mut scene = scene(1);
    assert_eq!(scene.world.insist(Call::ThreadDestroy, &[scene.handler.handle]), Status::Ok);
    let closer = scene.world.thread(&scene.home, 1, 20);
    scene.world.perform(0, Action::Fault(EXCEPTION));
    assert_eq!(scene.world.status(&closer, Call::HandleClose, &[scene.gate]), Status::Ok);
    scene.world.deliver_all();
    assert_eq!(scene.world.thread_of(&scene.thread).phase(), Phase::Ended);
    scene.world.finish();
}

#[test]
fn a_touch_of_demand_memory_is_no_fault_that_a_handler_sees() {
    let mut scene = scene(0);
    let own = scene.world.grant(scene.home.handle, &scene.home, Rights::all(), 0);
    let thread = scene.thread;
    let memory = scene.world.get(&thread, Call::MemoryCreate, &[0x2000, 1]);
    let map = [memory, own, 0x10_0000, 0, 0x2000, word(Rights::READ | Rights::WRITE)];
    assert_eq!(scene.world.status(&thread, Call::MemoryMap, &map), Status::Ok);
    scene.world.perform(0, Action::Touch(UserVirt::new(0x10_1000), Rights::WRITE));
    assert!(scene.world.is_current(&thread));
    assert_eq!(scene.world.act(&thread, Call::MemoryInfo, &[memory]).unwrap().1[1], 0x1000);
    scene.world.finish();
}

/// A thread with a budget that wants to be told of its end, and its handler.
fn budgeted(handler_cpu: usize) -> Scene {
    let mut world = World::new(2);
    let home = world.home(2 << 20);
    let gate = world.keep(Call::GateCreate, &[]);
    let granted = world.grant(gate, &home, Rights::all(), 0);
    let handler = world.thread(&home, handler_cpu, 20);
    world.wait(&handler, Call::Receive, &[granted, FOREVER]);
    let thread = world.stopped(&home, 0, 10);
    let words = [thread.handle, MIN_BUDGET_NS, 100 * MIN_BUDGET_NS, gate, 77, 1];
    assert_eq!(world.ask(Call::ThreadConfigure, &words).0, Status::Ok);
    world.keep(Call::HandleClose, &[gate]);
    world.start(&thread);
    Scene { world, home, thread, handler, gate: granted }
}

#[test]
fn the_end_of_a_budget_is_told_to_a_handler_on_either_cpu_at_once() {
    for cpu in [0, 1] {
        let mut scene = budgeted(cpu);
        scene.world.advance(MIN_BUDGET_NS);
        scene.world.deliver_all();
        let words = scene.world.results(&scene.handler).1;
        assert_eq!(MessageTag(words[1]).label(), FaultKind::BudgetExhausted as u32);
        scene.world.finish();
    }
}

#[test]
fn a_thread_resumed_after_the_end_of_its_budget_waits_for_its_period() {
    let mut scene = budgeted(1);
    scene.world.advance(MIN_BUDGET_NS);
    let _ = scene.world.results(&scene.handler);
    scene.answer(FaultReply::Resume as u32, 0);
    assert!(!scene.world.is_current(&scene.thread));
    scene.world.advance(99 * MIN_BUDGET_NS);
    assert!(scene.world.is_current(&scene.thread));
    scene.world.finish();
}
