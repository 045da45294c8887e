//! Interrupts that a processor takes out of memory while the guest runs: posted interrupts (SDM 3C, "Posted-Interrupt
//! Processing").
//!
//! A sender posts, then looks where the virtual CPU runs. On a CPU, which gets the notification: in the guest the
//! processor takes what is posted without an exit, and with interrupts off it keeps the notification until it has entered
//! the guest. Nowhere, and whoever runs the virtual CPU next looks first.
#![expect(unsafe_code, reason = "the processor shares the descriptor")]

use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_hw::x86::vmx::region::PostedInterruptDescriptor;
use dragonfly_memory::{Account, HostPhys};
use dragonfly_vapic::LocalApic;

use crate::Ref;
use crate::arch::x86_64::{KernelHeap, X86};
use crate::frames::OwnedFrame;

/// A virtual CPU's posted interrupts. A page of their own: 64 bytes would do, if not for Bochs.
pub struct Posted(OwnedFrame<X86>);

impl Posted {
    /// None posted.
    pub fn new(arch: X86, account: &Ref<Account<KernelHeap>, X86>) -> Result<Self, Status> {
        OwnedFrame::new(arch, account).map(Self)
    }

    /// Where the descriptor is.
    pub fn address(&self) -> HostPhys {
        self.0.address()
    }

    fn descriptor(&self) -> &PostedInterruptDescriptor {
        // SAFETY: The frame is this object's, page-aligned and larger; any content is a descriptor, and everybody,
        // processors too, accesses it by atomic operations.
        unsafe { self.0.pointer().cast().as_ref() }
    }

    /// Posts an interrupt. True if a notification is due.
    pub fn post(&self, vector: u8) -> bool {
        let descriptor = self.descriptor();
        descriptor.requests[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::AcqRel);
        // SeqCst: before the look at where the virtual CPU runs.
        descriptor.control.fetch_or(PostedInterruptDescriptor::ON, Ordering::SeqCst) & PostedInterruptDescriptor::ON
            == 0
    }

    /// Whether something was posted that nobody has taken. Whoever runs the virtual CPU has said so before.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.descriptor().control.load(Ordering::SeqCst) & PostedInterruptDescriptor::ON != 0
    }

    /// Requests what was posted, as the processor does.
    #[inline(never)]
    pub fn move_to(&self, apic: &LocalApic) {
        let descriptor = self.descriptor();
        // What is posted from here on is notified again.
        descriptor.control.fetch_and(!PostedInterruptDescriptor::ON, Ordering::SeqCst);
        apic.request_all(core::array::from_fn(|word| descriptor.requests[word].swap(0, Ordering::AcqRel)));
    }
}
