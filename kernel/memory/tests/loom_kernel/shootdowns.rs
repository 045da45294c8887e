//! Pages that are freed, and CPUs that may still know them.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::thread;

use crate::model;
use crate::protocol::Shootdowns;

/// A page, its entry in a page table, and the CPUs on which that table is active.
struct Space {
    entry: AtomicU64,
    page: UnsafeCell<u64>,
    active: AtomicU64,
}

/// The entry of a page that is mapped.
const MAPPED: u64 = 1;

impl Space {
    fn new(active: u64) -> Arc<Self> {
        Arc::new(Self { entry: AtomicU64::new(MAPPED), page: UnsafeCell::new(0), active: AtomicU64::new(active) })
    }

    /// An access by a CPU, which keeps what it once found in the table.
    fn touch(&self, tlb: &mut Option<u64>) {
        // Relaxed: the hardware's own walk.
        if *tlb.get_or_insert_with(|| self.entry.load(Ordering::Relaxed)) == MAPPED {
            // SAFETY: The page is not freed before this CPU has forgotten it: what loom checks.
            self.page.with(|page| assert_eq!(unsafe { *page }, 0));
        }
    }

    /// The page goes to somebody else.
    fn free(&self) {
        // SAFETY: As in `touch`.
        self.page.with_mut(|page| unsafe { *page = 1 });
    }
}

/// `Kernel::shoot_down` of one other CPU, by one that answers its own meanwhile.
fn shoot_down(target: &Shootdowns, mut meanwhile: impl FnMut()) {
    target.ask();
    let asked = target.asked();
    while !target.are_answered(asked) {
        meanwhile();
        thread::yield_now();
    }
}

fn shootdowns() -> Shootdowns {
    Shootdowns { asked: AtomicU64::new(0), answered: AtomicU64::new(0) }
}

#[test]
fn no_cpu_uses_a_page_after_a_shoot_down() {
    model(3, || {
        let (space, target) = (Space::new(1), Arc::new(shootdowns()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (other_space, other_target, over) = (space.clone(), target.clone(), is_over.clone());
        let user = thread::spawn(move || {
            let mut tlb = None;
            other_space.touch(&mut tlb);
            while !over.load(Ordering::Relaxed) {
                other_target.answer(|| tlb = None);
                other_space.touch(&mut tlb);
                thread::yield_now();
            }
        });
        space.entry.store(0, Ordering::Release);
        shoot_down(&target, || ());
        space.free();
        is_over.store(true, Ordering::Relaxed);
        user.join().unwrap();
    });
}

#[test]
fn two_cpus_that_shoot_each_other_down_both_get_their_answer() {
    model(3, || {
        let spaces = [Space::new(3), Space::new(3)];
        let targets = Arc::new([shootdowns(), shootdowns()]);
        let is_done = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let act = move |this: usize| {
            let other = 1 - this;
            let mut tlb = None;
            spaces[other].touch(&mut tlb);
            spaces[this].entry.store(0, Ordering::Release);
            shoot_down(&targets[other], || targets[this].answer(|| tlb = None));
            spaces[this].free();
            is_done[this].store(true, Ordering::Relaxed);
            while !is_done[other].load(Ordering::Relaxed) {
                targets[this].answer(|| tlb = None);
                thread::yield_now();
            }
            spaces[other].touch(&mut tlb);
        };
        let others = act.clone();
        let other = thread::spawn(move || others(1));
        act(0);
        other.join().unwrap();
    });
}

/// `Space::enter` and the walks that follow, against an unmapping: each does its part and then looks for the other's.
#[test]
fn a_cpu_that_enters_an_address_space_is_shot_down_or_finds_the_change() {
    loom::model(|| {
        let space = Space::new(0);
        let others = space.clone();
        let user = thread::spawn(move || {
            others.active.fetch_or(1, Ordering::SeqCst);
            // Loading the page-table register serialises (SDM 3A 9.3).
            fence(Ordering::SeqCst);
            others.entry.load(Ordering::Relaxed)
        });
        space.entry.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        let is_seen = space.active.load(Ordering::SeqCst) != 0;
        let found = user.join().unwrap();
        assert!(is_seen || found != MAPPED, "a page is freed that a CPU knows which nobody asks to forget it");
    });
}
