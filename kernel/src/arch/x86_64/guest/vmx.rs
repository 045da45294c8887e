//! Intel VT-x with extended page tables (SDM 3C, "Introduction to Virtual Machine Extensions" and what follows it).

use dragonfly_abi::Status;
use dragonfly_memory::{Account, HostPhys};

use super::Local;
use super::hardware::{ControlRegisters, Event, Exit, Hardware, Segments, SystemRegisters};
use crate::Ref;
use crate::arch::x86_64::{KernelHeap, X86};
use crate::shared_page::SharedPage;

/// Finds out whether this machine has it.
pub fn detect() -> bool {
    false
}

/// A virtual CPU. There is none while no machine is taken to have VT-x.
pub enum VmxVcpu {}

impl VmxVcpu {
    /// As after reset, with a second stage.
    pub fn new(_: X86, _: &Ref<Account<KernelHeap>, X86>, _: HostPhys) -> Result<Self, Status> {
        Err(Status::NotSupported)
    }
}

impl Hardware for VmxVcpu {
    fn prepare(&mut self, _: &mut Local, _: u64) {
        match *self {}
    }

    fn enter(&mut self, _: &SharedPage<X86>) -> Exit {
        match *self {}
    }

    fn length(&self) -> u32 {
        match *self {}
    }

    fn skip(&mut self, _: u32) {
        match *self {}
    }

    fn offer(&mut self, _: Option<u8>) {
        match *self {}
    }

    fn taken(&mut self) -> Option<u8> {
        match *self {}
    }

    fn inject(&mut self, _: Event) {
        match *self {}
    }

    fn inject_nmi(&mut self) -> bool {
        match *self {}
    }

    fn cr8(&self) -> u8 {
        match *self {}
    }

    fn set_cr8(&mut self, _: u8) {
        match *self {}
    }

    fn pointer(&self) -> (u64, u64) {
        match *self {}
    }

    fn set_pointer(&mut self, _: u64, _: u64) {
        match *self {}
    }

    fn privilege(&self) -> u8 {
        match *self {}
    }

    fn control(&self) -> ControlRegisters {
        match *self {}
    }

    fn set_control(&mut self, _: &ControlRegisters) {
        match *self {}
    }

    fn segments(&self) -> Segments {
        match *self {}
    }

    fn set_segments(&mut self, _: &Segments) {
        match *self {}
    }

    fn system(&self) -> SystemRegisters {
        match *self {}
    }

    fn set_system(&mut self, _: &SystemRegisters) {
        match *self {}
    }

    fn debug(&self) -> (u64, u64) {
        match *self {}
    }

    fn set_debug(&mut self, _: u64, _: u64) {
        match *self {}
    }

    fn interruptibility(&self) -> u64 {
        match *self {}
    }

    fn set_interruptibility(&mut self, _: u64) {
        match *self {}
    }

    fn set_tsc_offset(&mut self, _: u64) {
        match *self {}
    }
}
