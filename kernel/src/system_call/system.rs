//! Calls about the machine as a whole.

use dragonfly_abi::{LOG_TEXT_MAX, Rights, Status, SystemItem};

use super::{DONE, Flow, Outcome};
use crate::Kernel;
use crate::arch::{Arch, Ticks};
use crate::cpu::Cpu;

impl<A: Arch> Kernel<A> {
    pub(super) fn system_info(&'static self, cpu: &Cpu<A>, system: u64, item: u64, argument: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::READ)?;
        let item = SystemItem::from_raw(item).ok_or(Status::BadArgument)?;
        Ok(match item {
            SystemItem::FreePages => {
                let frames = self.arch.frames().lock();
                let (free, total) = (frames.free_pages(), frames.managed_pages());
                Flow::Values([free, total, 0, 0, 0, 0])
            }
            SystemItem::Cpus => Flow::Value(self.cpus() as u64),
            SystemItem::PciSegment => {
                let [address, group, first, last] = self.arch.pci_segment(argument).unwrap_or_default();
                Flow::Values([address, group, first, last, 0, 0])
            }
            SystemItem::AuditPageTables => Flow::Values(cpu.running()?.domain.space.audit(argument)),
            item => Flow::Value(self.arch.system_item(item, argument)?),
        })
    }

    pub(super) fn log_write(&'static self, cpu: &Cpu<A>, system: u64, length: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::LOG)?;
        let length = match usize::try_from(length) {
            Ok(length) if length <= LOG_TEXT_MAX => length,
            _ => return Err(Status::BadArgument),
        };
        let mut text = [0; LOG_TEXT_MAX];
        let text = &mut text[..length];
        cpu.running()?.buffer.read_data(text);
        self.arch.log_text(text);
        DONE
    }

    pub(super) fn clock_now(&self) -> u64 {
        self.arch.ns_from_ticks(self.arch.now().saturating_sub(self.started()))
    }

    /// The tick at which [`Call::ClockNow`](dragonfly_abi::Call::ClockNow) shows `ns`.
    pub(super) fn ticks_of_clock(&self, ns: u64) -> Ticks {
        self.started().saturating_add(self.arch.ticks_from_ns(ns))
    }
}
