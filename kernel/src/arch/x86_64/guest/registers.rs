//! Register groups between a virtual CPU and its state page.

use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

use dragonfly_abi::arch::guest::{DescriptorTable, Segment, VcpuState};
use dragonfly_abi::guest::RunFlags;

use super::hardware::{ControlRegisters, Event, Hardware, Segments, SystemRegisters};
use super::{GuestCpu, Interrupts, Wait, vector};
use crate::arch::x86_64::X86;
use crate::shared_page::SharedPage;
use crate::vcpu::Vcpu;

/// Words of the state page, by name.
struct State<'a>(&'a SharedPage<X86>);

impl State<'_> {
    fn get(&self, offset: usize) -> u64 {
        self.0.words()[offset / 8 % self.0.words().len()].load(Relaxed)
    }

    fn set(&self, offset: usize, value: u64) {
        self.0.words()[offset / 8 % self.0.words().len()].store(value, Relaxed);
    }

    fn segment(&self, offset: usize) -> Segment {
        let (first, second) = (self.get(offset), self.get(offset + 8));
        Segment {
            selector: first as u32,
            attributes: (first >> 32) as u32,
            limit: second as u32,
            reserved: 0,
            base: self.get(offset + 16),
        }
    }

    fn set_segment(&self, offset: usize, segment: &Segment) {
        self.set(offset, u64::from(segment.selector) | u64::from(segment.attributes) << 32);
        self.set(offset + 8, u64::from(segment.limit));
        self.set(offset + 16, segment.base);
    }

    fn table(&self, offset: usize) -> DescriptorTable {
        DescriptorTable { base: self.get(offset), limit: self.get(offset + 8) }
    }

    fn set_table(&self, offset: usize, table: &DescriptorTable) {
        self.set(offset, table.base);
        self.set(offset + 8, table.limit);
    }
}

macro_rules! at {
    ($field:ident) => {
        offset_of!(VcpuState, $field)
    };
}

/// ES, CS, SS, DS, FS, GS, LDTR, TR.
const SEGMENTS: [usize; 8] = [at!(es), at!(cs), at!(ss), at!(ds), at!(fs), at!(gs), at!(ldtr), at!(tr)];

impl<H: Hardware> GuestCpu<H> {
    /// Takes what the VMM has changed.
    #[inline]
    pub(super) fn take_groups(&mut self, vcpu: &Vcpu<X86>, flags: RunFlags) {
        // Most exits change nothing else.
        if flags == RunFlags::SKIP {
            self.hardware.skip(self.length);
            self.length = 0;
        } else {
            self.take_more(vcpu, flags);
        }
    }

    #[inline(never)]
    fn take_more(&mut self, vcpu: &Vcpu<X86>, flags: RunFlags) {
        if flags.contains(RunFlags::SKIP) {
            let length = flags.length();
            self.hardware.skip(if length == 0 { self.length } else { length });
            if length != 0 {
                self.hardware.clear_resume_flag();
            }
        }
        self.length = 0;
        if flags.intersects(RunFlags::GROUPS | RunFlags::WAIT_FOR_STARTUP) {
            self.take_registers(vcpu, flags);
        }
    }

    #[inline(never)]
    fn take_registers(&mut self, vcpu: &Vcpu<X86>, flags: RunFlags) {
        let state = State(&vcpu.page);
        if flags.contains(RunFlags::WAIT_FOR_STARTUP) {
            self.wait = Wait::Startup;
        } else if flags.intersects(RunFlags::POINTER | RunFlags::EVENT) {
            self.wait = Wait::Nothing;
        }
        if flags.contains(RunFlags::POINTER) {
            self.hardware.set_pointer(state.get(at!(rip)), state.get(at!(rflags)));
        }
        if flags.contains(RunFlags::SEGMENTS) {
            self.hardware.set_segments(&Segments {
                segments: SEGMENTS.map(|offset| state.segment(offset)),
                gdtr: state.table(at!(gdtr)),
                idtr: state.table(at!(idtr)),
            });
        }
        if flags.contains(RunFlags::CONTROL) {
            self.hardware.set_control(&ControlRegisters {
                cr0: state.get(at!(cr0)),
                cr2: state.get(at!(cr2)),
                cr3: state.get(at!(cr3)),
                cr4: state.get(at!(cr4)),
                efer: state.get(at!(efer)),
            });
            let class = state.get(at!(cr8)) as u8 & 0xf;
            self.hardware.set_cr8(class);
            vcpu.interrupts.apic.set_task_priority(class << 4);
            let xcr0 = state.get(at!(xcr0));
            if vector::is_valid_xcr0(xcr0) && vcpu.interrupts.vector.xcr0.load(Relaxed) != xcr0 {
                vector::retire(vcpu);
                vcpu.interrupts.vector.xcr0.store(xcr0, Relaxed);
            }
        }
        if flags.contains(RunFlags::DEBUG) {
            vector::retire(vcpu);
            for (number, register) in vcpu.interrupts.vector.dr.iter().enumerate() {
                register.store(state.get(at!(dr) + 8 * number), Relaxed);
            }
            self.hardware.set_debug(state.get(at!(dr6)), state.get(at!(dr7)));
        }
        if flags.contains(RunFlags::MSRS) {
            self.hardware.set_system(&SystemRegisters {
                star: state.get(at!(star)),
                lstar: state.get(at!(lstar)),
                cstar: state.get(at!(cstar)),
                sfmask: state.get(at!(sfmask)),
                kernel_gs_base: state.get(at!(kernel_gs_base)),
                sysenter_cs: state.get(at!(sysenter_cs)),
                sysenter_esp: state.get(at!(sysenter_esp)),
                sysenter_eip: state.get(at!(sysenter_eip)),
                pat: state.get(at!(pat)),
            });
            vector::retire(vcpu);
            vcpu.interrupts.vector.tsc_aux.store(state.get(at!(tsc_aux)), Relaxed);
            self.set_tsc_offset(state.get(at!(tsc_offset)));
        }
        if flags.contains(RunFlags::EVENT) {
            let event =
                Event { information: state.get(at!(inject)) as u32, error_code: state.get(at!(inject_error)) as u32 };
            if event.is_valid() {
                self.hardware.inject(event);
            }
            self.hardware.set_interruptibility(state.get(at!(interruptibility)));
        }
    }

    /// Shows the VMM what addresses mean to the code that was left; gives its privilege level and whether it is 64-bit
    /// code.
    #[inline]
    pub(super) fn show_mode(&self, page: &SharedPage<X86>) -> (u8, bool) {
        let (state, control) = (State(page), self.hardware.control());
        state.set(at!(cr0), control.cr0);
        state.set(at!(cr3), control.cr3);
        state.set(at!(cr4), control.cr4);
        state.set(at!(efer), control.efer);
        (self.hardware.privilege(), self.hardware.is_64_bit())
    }

    /// Shows the VMM register groups.
    pub(super) fn sync_groups(&mut self, interrupts: &Interrupts, page: &SharedPage<X86>, groups: RunFlags) {
        let state = State(page);
        if groups.contains(RunFlags::POINTER) {
            let (rip, rflags) = self.hardware.pointer();
            state.set(at!(rip), rip);
            state.set(at!(rflags), rflags);
        }
        if groups.contains(RunFlags::SEGMENTS) {
            let segments = self.hardware.segments();
            for (offset, segment) in SEGMENTS.iter().zip(&segments.segments) {
                state.set_segment(*offset, segment);
            }
            state.set_table(at!(gdtr), &segments.gdtr);
            state.set_table(at!(idtr), &segments.idtr);
        }
        if groups.contains(RunFlags::CONTROL) {
            let control = self.hardware.control();
            state.set(at!(cr0), control.cr0);
            state.set(at!(cr2), control.cr2);
            state.set(at!(cr3), control.cr3);
            state.set(at!(cr4), control.cr4);
            state.set(at!(efer), control.efer);
            state.set(at!(cr8), u64::from(self.hardware.cr8()));
            state.set(at!(xcr0), interrupts.vector.xcr0.load(Relaxed));
        }
        if groups.contains(RunFlags::DEBUG) {
            let (dr6, dr7) = self.hardware.debug();
            state.set(at!(dr6), dr6);
            state.set(at!(dr7), dr7);
            for (number, register) in interrupts.vector.dr.iter().enumerate() {
                state.set(at!(dr) + 8 * number, register.load(Relaxed));
            }
        }
        if groups.contains(RunFlags::MSRS) {
            let system = self.hardware.system();
            state.set(at!(star), system.star);
            state.set(at!(lstar), system.lstar);
            state.set(at!(cstar), system.cstar);
            state.set(at!(sfmask), system.sfmask);
            state.set(at!(kernel_gs_base), system.kernel_gs_base);
            state.set(at!(sysenter_cs), system.sysenter_cs);
            state.set(at!(sysenter_esp), system.sysenter_esp);
            state.set(at!(sysenter_eip), system.sysenter_eip);
            state.set(at!(pat), system.pat);
            state.set(at!(tsc_aux), interrupts.vector.tsc_aux.load(Relaxed));
            state.set(at!(tsc_offset), self.tsc_offset);
            state.set(at!(tsc_deadline), interrupts.apic.tsc_deadline());
        }
        if groups.contains(RunFlags::EVENT) {
            state.set(at!(inject), 0);
            state.set(at!(inject_error), 0);
            state.set(at!(interruptibility), self.hardware.interruptibility());
        }
    }

    /// Changes what the guest's time-stamp counter is ahead of the host's.
    pub(super) fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
        self.hardware.set_tsc_offset(offset);
    }
}
