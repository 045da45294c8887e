//! Machines that run out of memory: each call then ends with a status, nothing is lost, and all goes on when there is
//! memory again.

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};
use dragonfly_memory::{FrameUse, HostPhys};

use super::world::{Action, Actor, World, word};
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::thread::Phase;

/// What a machine is short of.
#[derive(Clone, Copy, Debug)]
enum Shortage {
    /// Memory for more kernel objects than these.
    Objects(u64),
    /// More frames than these.
    Frames(u64),
}

/// Frames that a test keeps away from the kernel.
pub struct Withheld {
    fake: Fake,
    frames: Vec<HostPhys>,
}

impl Withheld {
    /// Leaves the kernel so many frames.
    pub fn all_but(fake: Fake, left: u64) -> Self {
        let mut frames = Vec::new();
        let mut allocator = fake.frames().lock();
        while allocator.free_pages() > left {
            frames.extend(allocator.alloc(0, 0, FrameUse::Object));
        }
        drop(allocator);
        Self { fake, frames }
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A CPU that went wrong may hold the lock.
            return;
        }
        let mut allocator = self.fake.frames().lock();
        for frame in self.frames.drain(..) {
            allocator.free(frame, 0).expect("a frame of this test");
        }
    }
}

/// A domain that has a handle to itself and to the machine.
struct Scene {
    world: World,
    actor: Actor,
    own: u64,
    system: u64,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(1);
        let (home, actor, own) = world.settler(0, 10);
        let system = world.grant(world.system, &home, Rights::all(), 0);
        Self { world, actor, own, system }
    }

    /// Every call that takes memory, each with what the ones before made: their statuses.
    fn make_everything(&mut self) -> Vec<(Call, Status)> {
        let mut made = Vec::new();
        let mut call = |scene: &mut Self, call, words: &[u64]| {
            let (status, words) = scene.world.act(&scene.actor, call, words).expect("nobody waits here");
            made.push((call, status));
            words[0]
        };
        let (own, system) = (self.own, self.system);
        let all = word(Rights::all());
        let gate = call(self, Call::GateCreate, &[]);
        call(self, Call::NotificationCreate, &[]);
        let memory = call(self, Call::MemoryCreate, &[8 * PAGE_SIZE, 1]);
        call(self, Call::MemoryCommit, &[memory, 0, 2 * PAGE_SIZE]);
        call(self, Call::MemoryMap, &[memory, own, 0x10_0000_0000, 0, 8 * PAGE_SIZE, word(Rights::READ)]);
        // Two pages of the table of handles, one of which is there already.
        for _ in 0..70 {
            call(self, Call::HandleCopy, &[gate, own, all, 0]);
        }
        let child = call(self, Call::DomainCreate, &[own, 1 << 18, 63, 1]);
        call(self, Call::HandleCopy, &[gate, child, all, 0]);
        let thread = call(self, Call::ThreadCreate, &[child, 5 << 32, 0x1000, 0x2000, 0x5000_0000, 0]);
        call(self, Call::ThreadStart, &[thread]);
        call(self, Call::DevicePorts, &[system, 0x80, 1]);
        call(self, Call::DeviceMemory, &[system, 1 << 32, PAGE_SIZE]);
        call(self, Call::DeviceInterrupt, &[system, 4, 0]);
        call(self, Call::DeviceMessage, &[system]);
        made
    }

    fn run_short(&mut self, shortage: Shortage) -> Vec<(Call, Status)> {
        let _withheld = match shortage {
            Shortage::Objects(left) => {
                self.world.fake.fail_after(left);
                None
            }
            Shortage::Frames(left) => Some(Withheld::all_but(self.world.fake, left)),
        };
        let made = self.make_everything();
        self.world.fake.fail_after(u64::MAX);
        made
    }
}

/// Runs everything with less and less of a shortage until there is none. Gives how many runs were short.
fn run_with_each(shortage: fn(u64) -> Shortage) -> u64 {
    for left in 0.. {
        let mut scene = Scene::new();
        let made = scene.run_short(shortage(left));
        let failed = made.iter().filter(|(_, status)| *status == Status::OutOfMemory).count();
        for (call, status) in &made {
            // Of what could not be made there is no handle.
            let is_expected = matches!(status, Status::Ok | Status::OutOfMemory | Status::BadHandle);
            assert!(is_expected, "{call:?} gives {status:?} with {:?}", shortage(left));
        }
        assert_eq!(failed == 0, made.iter().all(|(_, status)| *status == Status::Ok));
        // What is there of it is of use, and with memory again the same calls succeed but where things are mapped.
        let again = scene.make_everything();
        let goes_on = |(call, status): &(Call, Status)| match call {
            Call::MemoryMap => matches!(status, Status::Ok | Status::Overlap),
            _ => *status == Status::Ok,
        };
        assert!(again.iter().all(goes_on), "{again:?} after {:?}", shortage(left));
        scene.world.finish();
        if failed == 0 {
            return left;
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn without_memory_for_a_kernel_object_each_call_says_so_and_leaves_nothing_behind() {
    let short = run_with_each(Shortage::Objects);
    assert!(short > 20, "only {short} allocations were made to fail");
}

#[test]
fn without_a_frame_each_call_says_so_and_leaves_nothing_behind() {
    let short = run_with_each(Shortage::Frames);
    assert!(short >= 5, "only {short} frames were missed");
}

#[test]
fn a_thread_that_touches_memory_for_which_there_is_no_frame_faults_and_nothing_else_happens() {
    let mut scene = Scene::new();
    let at = 0x10_0000_0000;
    let memory = scene.world.get(&scene.actor, Call::MemoryCreate, &[PAGE_SIZE, 1]);
    let words = [memory, scene.own, at, 0, PAGE_SIZE, word(Rights::READ)];
    assert_eq!(scene.world.status(&scene.actor, Call::MemoryMap, &words), Status::Ok);
    let withheld = Withheld::all_but(scene.world.fake, 0);
    scene.world.perform(0, Action::Touch(dragonfly_memory::UserVirt::new(at), Rights::READ));
    assert_eq!(scene.world.thread_of(&scene.actor).phase(), Phase::Ended);
    drop(withheld);
    scene.world.finish();
}
