//! What the kernel asks of the machine.
#![expect(unsafe_code, reason = "it writes frames that the kernel vouches for")]

use std::sync::atomic::Ordering::SeqCst;

use dragonfly_abi::{Status, SystemItem};
use dragonfly_memory::{Frames, HostPhys, PhysicalMemory, SharedHalf};

use super::context::FakeContext;
use super::guest::NoGuest;
use super::tlb::Tlb;
use super::{ACTING, Fake, FakeRelax, turns};
use crate::Kernel;
use crate::arch::{Arch, Ticks, Trigger};

/// From here on physical addresses are devices.
const DEVICES_START: u64 = 1 << 32;
/// How many interrupt lines there are.
const LINES: u32 = 24;

impl Arch for Fake {
    type Heap = Self;
    type Relax = FakeRelax;
    type Context = FakeContext;
    type Format = dragonfly_memory::HostFormat;
    type GuestFormat = dragonfly_memory::NestedFormat;
    type Guest = NoGuest;
    type Local = ();
    const LOCAL: () = ();

    fn kernel(self) -> &'static Kernel<Self> {
        self.machine().kernel.get().expect("the kernel is made with the machine")
    }

    fn heap(self) -> Self {
        turns::may_switch();
        self
    }

    fn format(self) -> Self::Format {
        dragonfly_memory::HostFormat::new(true, dragonfly_memory::PageSize::Size1G)
    }

    fn guest_format(self) -> Option<Self::GuestFormat> {
        None
    }

    fn frames(self) -> &'static Frames<Self, FakeRelax> {
        turns::may_switch();
        self.machine().frames.get().expect("the frames are made with the machine")
    }

    fn zero(self, start: HostPhys, bytes: u64) {
        // SAFETY: The caller has just taken this RAM from the frame allocator.
        unsafe { self.pointer(start).as_ptr().write_bytes(0, bytes as usize) };
    }

    fn copy_in(self, start: HostPhys, content: &[u8]) {
        // SAFETY: The frames belong to a memory object that nobody runs with yet.
        unsafe { self.pointer(start).as_ptr().copy_from_nonoverlapping(content.as_ptr(), content.len()) };
    }

    fn this_cpu(self) -> usize {
        ACTING.get().expect("a CPU acts").1
    }

    fn now(self) -> Ticks {
        turns::may_switch();
        self.machine().now.load(SeqCst)
    }

    fn ns_from_ticks(self, ticks: Ticks) -> u64 {
        ticks
    }

    fn ticks_from_ns(self, ns: u64) -> Ticks {
        ns
    }

    fn set_timer(self, deadline: Ticks) {
        self.machine().timers[self.this_cpu()].store(deadline, SeqCst);
    }

    fn kick(self, cpu: usize) {
        let machine = self.machine();
        machine.kicked.fetch_or(1 << cpu, SeqCst);
        if machine.in_kernel.load(SeqCst) >> cpu & 1 == 0 {
            // It runs a domain or idles, so the interrupt comes at once. What else that does may come later: it is told
            // when the test says so. But the flush is waited for.
            let _answering = loop {
                // Who answers may lose its turn to this CPU meanwhile.
                match machine.answering.try_lock() {
                    Ok(answering) => break answering,
                    Err(_) => assert!(turns::must_switch(), "nobody else can be answering"),
                }
            };
            let acting = ACTING.replace(Some((self, cpu)));
            self.kernel().answer_shootdown(cpu);
            ACTING.set(acting);
        }
        turns::may_switch();
    }

    fn flush_tlb(self) {
        self.machine().tlbs[self.this_cpu()].lock().unwrap().translations.clear();
    }

    fn activate(self, root: Option<HostPhys>) {
        let mut tlb = self.machine().tlbs[self.this_cpu()].lock().unwrap();
        *tlb = Tlb { root, translations: Vec::new() };
    }

    fn kernel_half(self) -> SharedHalf {
        *self.machine().kernel_half.get().expect("the kernel's half is made with the machine")
    }

    fn port_read(self, port: u16, width: u8) -> u32 {
        u32::from(port) << 8 | u32::from(width)
    }

    fn port_write(self, _port: u16, _width: u8, _value: u32) {}

    fn interrupt_lines(self) -> u32 {
        LINES
    }

    fn connect_interrupt(self, line: u32, cpu: usize, _trigger: Trigger) -> Result<(), Status> {
        self.machine().lines.lock().unwrap().insert(line, (cpu, false));
        Ok(())
    }

    fn mask_interrupt(self, line: u32) {
        turns::may_switch();
        if let Some((_, is_masked)) = self.machine().lines.lock().unwrap().get_mut(&line) {
            *is_masked = true;
        }
    }

    fn unmask_interrupt(self, line: u32) {
        if let Some((_, is_masked)) = self.machine().lines.lock().unwrap().get_mut(&line) {
            *is_masked = false;
        }
    }

    fn message(self, number: u32, cpu: usize) -> Result<(u64, u32), Status> {
        Ok((0xfee0_0000 | (cpu as u64) << 12, number))
    }

    fn is_device_memory(self, start: HostPhys, _size: u64) -> bool {
        start.as_u64() >= DEVICES_START
    }

    fn pci_segment(self, _index: u64) -> Option<[u64; 4]> {
        None
    }

    fn system_item(self, _item: SystemItem, _argument: u64) -> Result<u64, Status> {
        Err(Status::BadArgument)
    }

    fn log_text(self, _text: &[u8]) {}
}
