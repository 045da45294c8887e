//! The guest's registers, as MSRs (x2APIC) and as a page (xAPIC).

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_hw::x86::apic::{self, ErrorStatus, Lvt, SpuriousVector, x2apic_msr};
use dragonfly_hw::x86::msr::{IA32_X2APIC_FIRST, IA32_X2APIC_LAST};

use crate::message::widened;
use crate::mode::logical_x2apic_id;
use crate::posting::FIRST_VECTOR;
use crate::timer::{DIVIDE_MASK, MODE_MASK};
use crate::{Clock, DeliveryMode, LocalApic, Message, Shorthand};

/// Entries of the local vector table, at [`apic::LVT_TIMER`] and up.
pub(crate) const LVT_COUNT: usize = 6;
pub(crate) const LVT_TIMER: usize = 0;
pub(crate) const LVT_ERROR: usize = 5;

/// Of an integrated APIC; no EOI broadcast suppression.
const VERSION: u32 = 0x14 | (LVT_COUNT as u32 - 1) << 16;

/// SVR after reset: off (SDM 3A, "Local APIC State After Power-Up or Reset").
pub(crate) const SPURIOUS_AT_RESET: u32 = 0xff;

/// Bits of an interrupt command that are reserved in x2APIC mode. Delivery status (bit 12) is ignored, as processors do.
const COMMAND_RESERVED: u64 = 0xfff3_2000;

/// General protection: the guest's RDMSR or WRMSR faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

/// What a write to a register asks of others. After any write the owner looks at [`LocalApic::pending`] again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// The guest sends a message.
    Send(Message),
    /// The guest ended an interrupt.
    Eoi {
        /// Which.
        vector: u8,
        /// It was level-triggered: the I/O APIC wants to know.
        is_level: bool,
    },
    /// [`LocalApic::timer_deadline`] is another.
    TimerChanged,
}

impl LocalApic {
    /// The guest reads MSR `register` of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// General protection unless the APIC is in x2APIC mode and the register exists and can be read.
    pub fn read_msr(&self, register: u32, now: Clock) -> Result<u64, Fault> {
        if !self.is_x2apic() {
            return Err(Fault);
        }
        match x2apic_offset(register)? {
            apic::ID => Ok(u64::from(self.id)),
            apic::LDR => Ok(u64::from(logical_x2apic_id(self.id))),
            apic::ICR_LOW => Ok(self.command.get()),
            offset => self.read(offset, now).map(u64::from).ok_or(Fault),
        }
    }

    /// The guest writes MSR `register` of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// General protection unless the APIC is in x2APIC mode, the register exists and can be written, and no reserved
    /// bit of `value` is set.
    #[inline]
    pub fn write_msr(&self, register: u32, value: u64, now: Clock) -> Result<Effect, Fault> {
        if !self.is_x2apic() {
            return Err(Fault);
        }
        // What guests write all the time comes first.
        if register == const { x2apic_msr(apic::EOI) } && value == 0 {
            return Ok(self.end_of_interrupt());
        }
        if register == const { x2apic_msr(apic::ICR_LOW) } {
            return self.write_command(value);
        }
        if register == const { x2apic_msr(apic::SELF_IPI) } && value <= 0xff {
            self.send_self(value as u8);
            return Ok(Effect::None);
        }
        self.write_other_msr(register, value, now)
    }

    fn write_other_msr(&self, register: u32, value: u64, now: Clock) -> Result<Effect, Fault> {
        let offset = x2apic_offset(register)?;
        let value = u32::try_from(value).map_err(|_| Fault)?;
        let writable = writable_bits(offset).ok_or(Fault)?;
        if value & !writable != 0 || is_reserved_mode(offset, value) {
            return Err(Fault);
        }
        Ok(self.write(offset, value, now))
    }

    /// The guest writes the interrupt command in x2APIC mode.
    ///
    /// # Errors
    /// General protection if a reserved bit of `command` is set.
    #[inline]
    pub fn write_command(&self, command: u64) -> Result<Effect, Fault> {
        if command & COMMAND_RESERVED != 0 {
            return Err(Fault);
        }
        self.command.set(command & !u64::from(apic::ICR_PENDING));
        Ok(self.send(command as u32, (command >> 32) as u32))
    }

    /// The guest reads the 32-bit register at `offset` of the register page. 0 where there is none, and out of xAPIC
    /// mode.
    pub fn read_page(&self, offset: u32, now: Clock) -> u32 {
        if !self.is_xapic() {
            return 0;
        }
        match offset {
            apic::ID => self.xapic_id.get() << 24,
            apic::LDR => self.logical_id.get() << 24,
            apic::DFR => self.format.get(),
            apic::ICR_LOW => self.command.get() as u32,
            apic::ICR_HIGH => (self.command.get() >> 32) as u32,
            apic::APR | apic::RRD | apic::EOI => 0,
            _ => self.read(offset, now).unwrap_or_else(|| {
                self.report(ErrorStatus::REGISTER_ADDRESS);
                0
            }),
        }
    }

    /// The guest writes the 32-bit register at `offset` of the register page. Nothing happens where there is none or it
    /// is read-only, to reserved bits, and out of xAPIC mode.
    pub fn write_page(&self, offset: u32, value: u32, now: Clock) -> Effect {
        if !self.is_xapic() {
            return Effect::None;
        }
        let command = self.command.get();
        match offset {
            apic::ID => self.xapic_id.set(value >> 24),
            apic::LDR => self.logical_id.set(value >> 24),
            apic::DFR => self.format.set(value | 0x0fff_ffff),
            apic::APR | apic::RRD => {}
            apic::ICR_HIGH => self.command.set(u64::from(value & 0xff00_0000) << 32 | command & 0xffff_ffff),
            apic::ICR_LOW => {
                let low = value & !(COMMAND_RESERVED as u32 | apic::ICR_PENDING);
                self.command.set(command >> 32 << 32 | u64::from(low));
                return self.send(low, widened((command >> 56) as u32, low & apic::ICR_LOGICAL != 0));
            }
            _ => match writable_bits(offset) {
                Some(_) if is_reserved_mode(offset, value) => {}
                Some(writable) => return self.write(offset, value & writable, now),
                None if self.read(offset, now).is_some() => {}
                None => {
                    self.report(ErrorStatus::REGISTER_ADDRESS);
                }
            },
        }
        Effect::None
    }

    /// Sends an interrupt command.
    #[inline]
    fn send(&self, low: u32, destination: u32) -> Effect {
        let Some(message) = Message::from_command(low, destination) else {
            return Effect::None;
        };
        if matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) {
            if message.vector < FIRST_VECTOR {
                self.report(ErrorStatus::SEND_VECTOR);
                return Effect::None;
            }
            if message.shorthand == Shorthand::ToSelf {
                self.post_self(message.vector);
                return Effect::None;
            }
        }
        Effect::Send(message)
    }

    /// Reads a register that is the same in both modes; none if there is no such register, or it cannot be read.
    fn read(&self, offset: u32, now: Clock) -> Option<u32> {
        if !offset.is_multiple_of(16) {
            return None;
        }
        Some(match offset {
            apic::VERSION => VERSION,
            apic::TPR => self.task_priority.get(),
            apic::PPR => self.processor_priority().into(),
            apic::SVR => self.spurious.get(),
            apic::ISR..apic::TMR => self.in_service.register((offset - apic::ISR) >> 4),
            apic::TMR..apic::IRR => self.level.register((offset - apic::TMR) >> 4),
            apic::IRR..apic::ESR => self.requested.register((offset - apic::IRR) >> 4),
            apic::ESR => self.error_status.get(),
            apic::LVT_TIMER..=apic::LVT_ERROR => self.lvt.get(lvt_index(offset))?.get(),
            apic::TIMER_INITIAL_COUNT => self.timer.initial_count.get(),
            apic::TIMER_CURRENT_COUNT => self.current_count(now),
            apic::TIMER_DIVIDE => self.timer.divide.get(),
            _ => return None,
        })
    }

    /// Writes a register that is the same in both modes, with no bit set but [`writable_bits`].
    fn write(&self, offset: u32, value: u32, now: Clock) -> Effect {
        match offset {
            apic::EOI => return self.end_of_interrupt(),
            apic::TPR => self.task_priority.set(value),
            apic::SVR => self.write_spurious(value),
            // Writing shows what went wrong since the write before (SDM 3A, "Error Handling").
            apic::ESR => self.error_status.set(self.errors.swap(0, Relaxed)),
            apic::LVT_TIMER..=apic::LVT_ERROR => return self.write_lvt(offset, value),
            apic::TIMER_INITIAL_COUNT => return self.set_initial_count(value, now),
            apic::TIMER_DIVIDE => return self.set_divide(value, now),
            _ => {}
        }
        Effect::None
    }

    fn write_spurious(&self, value: u32) {
        self.spurious.set(value);
        self.update_acceptance();
        if value & SpuriousVector::ENABLE.bits() == 0 {
            for entry in &self.lvt {
                entry.set(entry.get() | Lvt::MASKED.bits());
            }
        }
    }

    fn write_lvt(&self, offset: u32, value: u32) -> Effect {
        let Some(entry) = self.lvt.get(lvt_index(offset)) else {
            return Effect::None;
        };
        let is_enabled = self.spurious.get() & SpuriousVector::ENABLE.bits() != 0;
        // While the APIC is off by SVR, entries stay masked.
        let forced = if is_enabled { 0 } else { Lvt::MASKED.bits() };
        let effect = if offset == apic::LVT_TIMER { self.change_timer_mode(value & MODE_MASK) } else { Effect::None };
        entry.set(value & !READ_ONLY_LVT | forced);
        effect
    }
}

/// Bits of an entry that the guest may write but not change.
const READ_ONLY_LVT: u32 = Lvt::DELIVERY_STATUS.bits() | Lvt::REMOTE_IRR.bits();

/// Bits that may be set in a write to the register at `offset`; none if it cannot be written.
pub(crate) const fn writable_bits(offset: u32) -> Option<u32> {
    const ENTRY: u32 = 0xff | Lvt::DELIVERY_STATUS.bits() | Lvt::MASKED.bits();
    const DELIVERY: u32 = 0x700;
    Some(match offset {
        apic::TPR => 0xff,
        apic::EOI | apic::ESR => 0,
        apic::SVR => 0xff | SpuriousVector::ENABLE.bits() | SpuriousVector::FOCUS_CHECK_DISABLE.bits(),
        apic::LVT_TIMER => ENTRY | MODE_MASK,
        apic::LVT_THERMAL | apic::LVT_PERFORMANCE => ENTRY | DELIVERY,
        apic::LVT_LINT0 | apic::LVT_LINT1 => {
            ENTRY | DELIVERY | Lvt::ACTIVE_LOW.bits() | Lvt::REMOTE_IRR.bits() | Lvt::LEVEL.bits()
        }
        apic::LVT_ERROR => ENTRY,
        apic::TIMER_INITIAL_COUNT => u32::MAX,
        apic::TIMER_DIVIDE => DIVIDE_MASK,
        _ => return None,
    })
}

/// A timer entry in the one mode that does not exist.
pub(crate) const fn is_reserved_mode(offset: u32, value: u32) -> bool {
    offset == apic::LVT_TIMER && value & MODE_MASK == MODE_MASK
}

/// The register's offset on the page; those from 0x40 on would be beyond it.
fn x2apic_offset(register: u32) -> Result<u32, Fault> {
    if (IA32_X2APIC_FIRST..=IA32_X2APIC_LAST).contains(&register) {
        Ok((register - IA32_X2APIC_FIRST) << 4)
    } else {
        Err(Fault)
    }
}

const fn lvt_index(offset: u32) -> usize {
    ((offset - apic::LVT_TIMER) >> 4) as usize
}
