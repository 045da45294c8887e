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
    let disk = setup.card.lock().disks_with_threads(ONE).remove(0);
    let busy = disk.lock();
    assert_eq!(read_sector(&setup.card, &quick, &mut *driver), Some(0));
    assert_eq!(front.transport().exchange(&[0xff; 12], &[], &mut [0; MAX_MESSAGE]), Err(Answer::Closed));
    drop(busy);
    setup.run();
    assert_eq!(status(&slow, &mut *waiting), Some(0));
}
