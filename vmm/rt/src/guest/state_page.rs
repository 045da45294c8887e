//! The page of registers of a vCPU.
//!
//! The kernel writes to it while the vCPU runs, so no reference to its bytes is handed out: it is read and written in
//! words of 64 bits, each of them atomic.
#![expect(unsafe_code, reason = "the page is shared with the kernel and reached through its address")]

use core::array;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::arch::guest::{EXIT_COUNTERS, General, Segment, VCPU_GENERAL_OFFSET, VcpuState};
use dragonfly_abi::{PAGE_SIZE, Status};

use crate::address_space;
use crate::sys::Domain;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Words of the state.
const WORDS: usize = size_of::<VcpuState>() / WORD;

const _: () = assert!(size_of::<VcpuState>().is_multiple_of(WORD) && WORDS * WORD <= PAGE_SIZE as usize);

/// A vCPU's registers. Which of them are valid, [`VcpuState`] tells.
pub struct StatePage {
    /// First word of a page that is mapped for as long as this exists.
    words: *const [AtomicU64; WORDS],
}

// SAFETY: the page is reached by atomic accesses only, from any thread.
unsafe impl Send for StatePage {}
// SAFETY: as above.
unsafe impl Sync for StatePage {}

impl StatePage {
    /// The page that the kernel has just mapped at this address.
    pub(super) fn at(address: u64) -> Self {
        Self { words: ptr::with_exposed_provenance(address as usize) }
    }

    /// A general register.
    #[inline(always)]
    #[must_use]
    pub fn general(&self, register: General) -> u64 {
        self.load(VCPU_GENERAL_OFFSET + register as usize * WORD)
    }

    /// Sets a general register.
    #[inline(always)]
    pub fn set_general(&self, register: General, value: u64) {
        self.store(VCPU_GENERAL_OFFSET + register as usize * WORD, value);
    }

    /// The general register with this number, modulo 16.
    #[inline(always)]
    #[must_use]
    pub fn general_numbered(&self, number: u8) -> u64 {
        self.load(VCPU_GENERAL_OFFSET + usize::from(number % 16) * WORD)
    }

    /// Sets the general register with this number, modulo 16.
    #[inline(always)]
    pub fn set_general_numbered(&self, number: u8, value: u64) {
        self.store(VCPU_GENERAL_OFFSET + usize::from(number % 16) * WORD, value);
    }

    /// The instruction pointer.
    #[inline(always)]
    #[must_use]
    pub fn rip(&self) -> u64 {
        self.load(offset_of!(VcpuState, rip))
    }

    /// Sets the instruction pointer; taken with [`RunFlags::POINTER`](dragonfly_abi::guest::RunFlags::POINTER).
    #[inline(always)]
    pub fn set_rip(&self, value: u64) {
        self.store(offset_of!(VcpuState, rip), value);
    }

    /// The flags.
    #[inline(always)]
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.load(offset_of!(VcpuState, rflags))
    }

    /// All general registers.
    #[inline]
    #[must_use]
    pub fn all_general(&self) -> [u64; 16] {
        array::from_fn(|register| self.load(VCPU_GENERAL_OFFSET + register * WORD))
    }

    /// Sets all general registers, instruction pointer and flags; the latter two are taken with
    /// [`RunFlags::POINTER`](dragonfly_abi::guest::RunFlags::POINTER).
    #[inline]
    pub fn set_pointer(&self, general: &[u64; 16], rip: u64, rflags: u64) {
        for (register, value) in general.iter().enumerate() {
            self.store(VCPU_GENERAL_OFFSET + register * WORD, *value);
        }
        self.set_rip(rip);
        self.store(offset_of!(VcpuState, rflags), rflags);
    }

    /// The segments ES, CS, SS, DS, FS and GS.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> [Segment; 6] {
        array::from_fn(|segment| {
            let offset = offset_of!(VcpuState, es) + segment * size_of::<Segment>();
            zerocopy::transmute!([self.load(offset), self.load(offset + WORD), self.load(offset + 2 * WORD)])
        })
    }

    /// CR0, CR3, CR4 and EFER.
    #[inline]
    #[must_use]
    pub fn paging(&self) -> [u64; 4] {
        [
            offset_of!(VcpuState, cr0),
            offset_of!(VcpuState, cr3),
            offset_of!(VcpuState, cr4),
            offset_of!(VcpuState, efer),
        ]
        .map(|offset| self.load(offset))
    }

    /// Sets the linear address of a page fault; taken with
    /// [`RunFlags::CONTROL`](dragonfly_abi::guest::RunFlags::CONTROL), so the other control registers have to be valid.
    pub fn set_cr2(&self, address: u64) {
        self.store(offset_of!(VcpuState, cr2), address);
    }

    /// Sets bits of DR6; taken with [`RunFlags::DEBUG`](dragonfly_abi::guest::RunFlags::DEBUG), so the debug registers
    /// have to be valid.
    pub fn set_dr6_bits(&self, bits: u64) {
        let offset = offset_of!(VcpuState, dr6);
        self.store(offset, self.load(offset) | bits);
    }

    /// Sets the event to inject and its error code; taken with
    /// [`RunFlags::EVENT`](dragonfly_abi::guest::RunFlags::EVENT).
    pub fn set_event(&self, event: u64, error_code: u64) {
        self.store(offset_of!(VcpuState, inject), event);
        self.store(offset_of!(VcpuState, inject_error), error_code);
    }

    /// A copy of all registers and counters.
    #[must_use]
    pub fn read(&self) -> VcpuState {
        let mut words = [0; WORDS];
        for (into, from) in words.iter_mut().zip(self.words()) {
            *into = from.load(Ordering::Relaxed);
        }
        zerocopy::transmute!(words)
    }

    /// Replaces all registers. The counters stay the kernel's.
    pub fn write(&self, state: &VcpuState) {
        let words: [u64; WORDS] = zerocopy::transmute!(*state);
        let registers = WORDS - EXIT_COUNTERS;
        for (into, from) in self.words().iter().zip(words).take(registers) {
            into.store(from, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Relaxed);
    }

    /// The word at an offset in bytes, of a field of the state.
    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        &self.words()[offset / WORD]
    }

    #[inline(always)]
    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: the page is mapped and aligned, and reached as atomics only: by this, and by the kernel through
        // another address.
        unsafe { &*self.words }
    }
}

impl Drop for StatePage {
    fn drop(&mut self) {
        let address = self.words.expose_provenance() as u64;
        // SAFETY: nothing refers to the page: what `words` gave does not outlive this.
        let unmapped = unsafe { Domain::OWN.unmap(address) };
        // The kernel unmaps the page itself when the vCPU goes. An address that is still mapped is not used again.
        if matches!(unmapped, Ok(()) | Err(Status::NotMapped)) {
            address_space::give(address, PAGE_SIZE);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::mem::ManuallyDrop;
    use core::sync::atomic::AtomicU64;

    use dragonfly_abi::arch::guest::{General, Segment, VcpuState};
    use zerocopy::FromZeros;

    use super::{StatePage, WORDS};

    fn with_page(test: impl FnOnce(&StatePage)) {
        let words = [const { AtomicU64::new(0) }; WORDS];
        // There is nothing to unmap.
        test(&ManuallyDrop::new(StatePage { words: &raw const words }));
    }

    #[test]
    fn registers_are_read_back_as_they_were_written() {
        with_page(|page| {
            page.set_general(General::R15, 15);
            page.set_rip(0x1000);
            page.set_event(0x8000_0b0d, 7);
            let state = page.read();
            assert_eq!((state.general[15], state.rip), (15, 0x1000));
            assert_eq!((state.inject, state.inject_error), (0x8000_0b0d, 7));
            assert_eq!((page.general(General::R15), page.rip(), page.rflags()), (15, 0x1000, 0));
            page.set_general_numbered(14, 14);
            assert_eq!((page.general(General::R14), page.general_numbered(15)), (14, 15));
        });
    }

    #[test]
    fn the_parts_are_those_of_the_whole() {
        with_page(|page| {
            let segment = |selector| Segment { selector, attributes: 1, limit: 2, reserved: 0, base: 3 };
            let [es, cs, ss, ds, fs, gs] = [1, 2, 3, 4, 5, 6].map(segment);
            let all = VcpuState { es, cs, ss, ds, fs, gs, cr0: 1, cr3: 3, cr4: 4, efer: 5, ..VcpuState::new_zeroed() };
            page.write(&all);
            assert_eq!(page.segments(), [es, cs, ss, ds, fs, gs]);
            assert_eq!(page.paging(), [1, 3, 4, 5]);
            page.set_pointer(&[7; 16], 8, 9);
            assert_eq!((page.all_general(), page.rip(), page.rflags()), ([7; 16], 8, 9));
            page.set_cr2(10);
            page.set_dr6_bits(1);
            page.set_dr6_bits(2);
            assert_eq!(page.read(), VcpuState { general: [7; 16], rip: 8, rflags: 9, cr2: 10, dr6: 3, ..all });
        });
    }

    #[test]
    fn all_registers_are_replaced_at_once_but_no_counter() {
        with_page(|page| {
            let cs = Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, reserved: 0, base: 0xffff_0000 };
            let state = VcpuState { cs, reserved: 1, exits: [9; 32], general: [3; 16], ..VcpuState::new_zeroed() };
            page.write(&state);
            assert_eq!(page.read(), VcpuState { exits: [0; 32], ..state });
        });
    }
}
