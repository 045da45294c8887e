//! Disks that threads of their own wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::vec;
use std::vec::Vec;

use dragonfly_card_gate::{Answer, Devices};
use dragonfly_rt::sync::Mutex;
use dragonfly_storage::RamDisk;
use dragonfly_vhost_user::Transport;

use super::{FakeCard, FakePlatform, Lent, MAX_MESSAGE, ask_sector, begin, card, front_end, read_sector, status};
use crate::disks::{DiskThread, Waker};
use crate::letters::SharedPort;

const ONE: u64 = 11;
const PHYSICAL: u32 = 0;
const MEMORY: u32 = 1;

/// A machine with a physical disk and one in memory, and the former's thread, which does not run.
struct Setup {
    card: Mutex<FakeCard>,
    thread: Arc<DiskThread<FakePlatform>>,
    wakes: Arc<AtomicU32>,
}

impl Setup {
    fn new() -> Self {
        let text =
            "name = \"m\"\n[[disk]]\nname = \"a\"\nimage = \"a.img\"\n[[disk]]\nname = \"b\"\nsize = \"64KiB\"\n";
        let mut card = card(&[("machines/0.toml", text)], vec![("g0d0".into(), Arc::new(RamDisk::new(8)))]);
        let (mut threads, wakes) = (Vec::new(), Arc::new(AtomicU32::new(0)));
        let start = |thread| {
            threads.push(thread);
            let wakes = wakes.clone();
            Ok::<Waker, ()>(Box::new(move || {
                wakes.fetch_add(1, Relaxed);
            }))
        };
        card.start_disks(start).unwrap();
        assert_eq!(card.attach(0, ONE), Ok(Devices { disks: 2, ..Devices::default() }));
        Self { card: Mutex::new(card), thread: threads.remove(0), wakes }
    }

    /// The physical disk.
    fn disk(&self) -> SharedPort<FakePlatform> {
        self.card.lock().disk_with_thread(ONE, PHYSICAL).unwrap()
    }

    /// The disk's thread until it sleeps.
    fn run(&self) {
        self.thread.serve(|| 0, |_| Err(()));
    }
}

#[test]
fn a_physical_disks_thread_serves_it_and_is_woken_when_there_is_something_to_do() {
    let (setup, lent) = (Setup::new(), Lent::new());
    let mut driver = begin(&mut front_end(&setup.card, ONE, PHYSICAL), &lent, 0);
    setup.run();
    assert!(!setup.card.lock().enable_kicks());
    assert_eq!(setup.wakes.load(Relaxed), 0);
    assert_eq!(read_sector(&setup.card, &lent, &mut *driver), None, "the worker serves a disk that it would wait for");
    assert_eq!(setup.wakes.load(Relaxed), 1);
    setup.run();
    assert_eq!(status(&lent, &mut *driver), Some(0));
}

#[test]
fn a_thread_that_is_busy_is_not_woken_and_sees_by_itself_what_came() {
    let (setup, lent) = (Setup::new(), Lent::new());
    let mut driver = begin(&mut front_end(&setup.card, ONE, PHYSICAL), &lent, 0);
    // It has not slept yet.
    assert_eq!(read_sector(&setup.card, &lent, &mut *driver), None);
    assert_eq!(setup.wakes.load(Relaxed), 0);
    setup.run();
    assert_eq!(status(&lent, &mut *driver), Some(0));
}

#[test]
fn a_disk_that_hangs_keeps_no_other_device_waiting() {
    let (setup, slow, quick) = (Setup::new(), Lent::new(), Lent::new());
    let mut waiting = begin(&mut front_end(&setup.card, ONE, PHYSICAL), &slow, 0);
    let mut front = front_end(&setup.card, ONE, MEMORY);
    let mut driver = begin(&mut front, &quick, 0);
    ask_sector(&slow, &mut *waiting);
    let disk = setup.disk();
    let busy = disk.hang();
    assert_eq!(read_sector(&setup.card, &quick, &mut *driver), Some(0));
    assert_eq!(front.transport().exchange(&[0xff; 12], &[], &mut [0; MAX_MESSAGE]), Err(Answer::Closed));
    drop(busy);
    setup.run();
    assert_eq!(status(&slow, &mut *waiting), Some(0));
}

/// Asks for the configuration space.
fn ask(front: &mut dragonfly_vhost_user::FrontEnd<super::Wire<'_>>) -> Result<usize, Answer> {
    // GET_FEATURES, version 1.
    let message = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    front.transport().exchange(&message, &[], &mut [0; MAX_MESSAGE])
}

/// What became of a message that was left.
fn outcome(setup: &Setup) -> Result<usize, Answer> {
    card::outcome(&setup.card, ONE, PHYSICAL).map(|reply| reply.map_or(0, |reply| reply.bytes().len()))
}

#[test]
fn a_message_to_a_disk_that_hangs_is_done_when_that_ends_and_waits_for_nobody() {
    let (setup, lent) = (Setup::new(), Lent::new());
    let mut front = front_end(&setup.card, ONE, PHYSICAL);
    let mut driver = begin(&mut front, &lent, 0);
    setup.run();
    let wakes = setup.wakes.load(Relaxed);
    let disk = setup.disk();
    let busy = disk.hang();
    assert_eq!(ask(&mut front), Err(Answer::Later));
    assert_eq!((outcome(&setup), outcome(&setup)), (Err(Answer::Later), Err(Answer::Later)));
    drop(busy);
    // The worker finds that there is something to do for the thread, which does it.
    setup.card.lock().serve(0);
    assert_eq!(setup.wakes.load(Relaxed), wakes + 1);
    setup.run();
    assert_eq!((outcome(&setup), outcome(&setup)), (Ok(20), Err(Answer::Refused)));
    assert_eq!(ask(&mut front), Ok(20));
    // The session is the same.
    assert_eq!(read_sector(&setup.card, &lent, &mut *driver), None);
    setup.run();
    assert_eq!(status(&lent, &mut *driver), Some(0));
}

#[test]
fn a_message_that_is_wrong_ends_the_session_though_it_was_left() {
    let (setup, lent) = (Setup::new(), Lent::new());
    let mut front = front_end(&setup.card, ONE, PHYSICAL);
    begin(&mut front, &lent, 0);
    let disk = setup.disk();
    let busy = disk.hang();
    assert_eq!(front.transport().exchange(&[0xff; 12], &[], &mut [0; MAX_MESSAGE]), Err(Answer::Later));
    drop(busy);
    assert_eq!(outcome(&setup), Err(Answer::Closed));
    begin(&mut front, &lent, 0);
}

#[test]
fn a_vmm_that_gives_up_or_attaches_again_begins_a_new_session() {
    for attaches in [false, true] {
        let (setup, lent) = (Setup::new(), Lent::new());
        let mut front = front_end(&setup.card, ONE, PHYSICAL);
        begin(&mut front, &lent, 0);
        let disk = setup.disk();
        let busy = disk.hang();
        assert_eq!(ask(&mut front), Err(Answer::Later));
        if attaches {
            assert!(setup.card.lock().attach(0, ONE).is_ok());
            assert_eq!(outcome(&setup), Err(Answer::Refused));
        }
        drop(busy);
        let mut driver = begin(&mut front, &lent, 0);
        ask_sector(&lent, &mut *driver);
        setup.run();
        assert_eq!(status(&lent, &mut *driver), Some(0));
    }
}
