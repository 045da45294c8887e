//! MSRs of a guest that are not its own registers in the hardware.

use dragonfly_abi::guest::MsrPolicy;
use dragonfly_hw::x86::apic::{ICR_LOW, TPR, x2apic_msr};
use dragonfly_hw::x86::msr::{
    Efer, IA32_APIC_BASE, IA32_EFER, IA32_PRED_CMD, IA32_SPEC_CTRL, IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST,
    IA32_TSC_AUX, IA32_TSC_DEADLINE, PredCmd,
};
use dragonfly_vapic::Effect;

use super::hardware::Hardware;
use super::{GuestCpu, vector};
use crate::arch::x86_64::{X86, mitigations};
use crate::vcpu::Vcpu;

/// x2APIC's registers.
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;
/// Bits of EFER that a guest may set.
const GUEST_EFER: Efer = Efer::SCE.union(Efer::LME).union(Efer::NXE);

/// What an access to an MSR comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is done; a read gave this.
    Done(u64),
    /// It is done, and something follows from it.
    Effect(Effect),
    /// General protection.
    Forbidden,
    /// It is for the VMM.
    Vmm,
}

impl<H: Hardware> GuestCpu<H> {
    /// RDMSR.
    pub(super) fn read_msr(&mut self, vcpu: &Vcpu<X86>, register: u32) -> Access {
        let apic = &vcpu.interrupts.apic;
        match register {
            register if X2APIC.contains(&register) => {
                self.settle_end(apic);
                self.hardware.take_back(apic);
                apic.set_task_priority(self.hardware.cr8() << 4 | apic.task_priority() & 0xf);
                apic.read_msr(register, self.clock()).map_or(Access::Forbidden, Access::Done)
            }
            IA32_TIME_STAMP_COUNTER => Access::Done(self.clock().guest_tsc()),
            IA32_TSC_ADJUST => Access::Done(self.tsc_adjust),
            IA32_TSC_DEADLINE => Access::Done(apic.tsc_deadline()),
            IA32_APIC_BASE => Access::Done(apic.apic_base()),
            IA32_TSC_AUX => Access::Done(vcpu.interrupts.vector.tsc_aux.load(core::sync::atomic::Ordering::Relaxed)),
            IA32_EFER => Access::Done(self.hardware.control().efer),
            _ => match self.msrs.get(register) {
                Some(rule) if rule.policy.contains(MsrPolicy::READ) => Access::Done(rule.value),
                _ => Access::Vmm,
            },
        }
    }

    /// WRMSR.
    pub(super) fn write_msr(&mut self, vcpu: &Vcpu<X86>, register: u32, value: u64) -> Access {
        let apic = &vcpu.interrupts.apic;
        match register {
            register if X2APIC.contains(&register) => {
                self.settle_end(apic);
                // An interrupt command has nothing to do with what is lent.
                if register != x2apic_msr(ICR_LOW) {
                    self.hardware.take_back(apic);
                }
                match apic.write_msr(register, value, self.clock()) {
                    Ok(effect) => {
                        if register == x2apic_msr(TPR) {
                            self.hardware.set_cr8(apic.task_priority() >> 4);
                        }
                        Access::Effect(effect)
                    }
                    Err(_) => Access::Forbidden,
                }
            }
            IA32_TSC_DEADLINE => {
                apic.set_tsc_deadline(value, self.clock());
                Access::Effect(Effect::TimerChanged)
            }
            IA32_TIME_STAMP_COUNTER => {
                let offset = value.wrapping_sub(self.tsc_ratio.times(self.clock().now));
                self.tsc_adjust = self.tsc_adjust.wrapping_add(offset.wrapping_sub(self.tsc_offset));
                self.set_tsc_offset(offset);
                Access::Effect(Effect::TimerChanged)
            }
            IA32_TSC_ADJUST => {
                let change = value.wrapping_sub(self.tsc_adjust);
                self.tsc_adjust = value;
                self.set_tsc_offset(self.tsc_offset.wrapping_add(change));
                Access::Effect(Effect::TimerChanged)
            }
            IA32_APIC_BASE => {
                self.hardware.take_back(apic);
                match apic.set_apic_base(value) {
                    Ok(()) => {
                        self.hardware.set_x2apic(apic.is_x2apic());
                        Access::Effect(Effect::TimerChanged)
                    }
                    Err(_) => Access::Forbidden,
                }
            }
            IA32_TSC_AUX => {
                vcpu.interrupts.vector.tsc_aux.store(value & 0xffff_ffff, core::sync::atomic::Ordering::Relaxed);
                vector::set_tsc_aux(value);
                Access::Done(0)
            }
            IA32_EFER => self.write_efer(value),
            IA32_PRED_CMD if value == PredCmd::IBPB.bits() => {
                mitigations::forget_branches();
                Access::Done(0)
            }
            _ => match self.msrs.get(register) {
                Some(rule) if rule.policy.contains(MsrPolicy::WRITE) => {
                    if register == IA32_SPEC_CTRL && !self.speculation.set(value) {
                        return Access::Forbidden;
                    }
                    self.msrs.store(register, value);
                    Access::Done(0)
                }
                Some(rule) if rule.policy.contains(MsrPolicy::IGNORE_WRITES) => Access::Done(0),
                _ => Access::Vmm,
            },
        }
    }

    /// The rules of SDM 3A, "IA-32e Mode": LME cannot change while paging is on, and LMA follows from both.
    fn write_efer(&mut self, value: u64) -> Access {
        let mut control = self.hardware.control();
        let (old, new) = (Efer::from_bits_retain(control.efer), Efer::from_bits_retain(value));
        let is_paging = control.cr0 & dragonfly_hw::x86::control::Cr0::PG.bits() != 0;
        if !(GUEST_EFER | Efer::LMA).contains(new) || (is_paging && (old ^ new).contains(Efer::LME)) {
            return Access::Forbidden;
        }
        control.efer = (new & GUEST_EFER | old & Efer::LMA).bits();
        self.hardware.set_control(&control);
        Access::Done(0)
    }
}
