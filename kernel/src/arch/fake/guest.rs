//! The simulated machine cannot run guests.

use core::sync::atomic::AtomicU64;

use dragonfly_abi::Status;
use dragonfly_abi::guest::{MsrPolicy, RECORD_WORDS, RunFlags};

use super::Fake;
use crate::Ref;
use crate::arch::{ExitFate, Guest, GuestExit, NEVER, Ticks};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::{RecordPlace, SharedPage};
use crate::space::GuestSpace;
use crate::vcpu::Vcpu;
use crate::vm::Vm;

/// This machine cannot run guests.
pub enum NoGuest {}

impl Guest<Fake> for NoGuest {
    type Interrupts = ();

    fn new(
        _arch: Fake,
        _domain: &Ref<Domain<Fake>, Fake>,
        _number: u32,
        _space: &GuestSpace<Fake>,
    ) -> Result<(Self, ()), Status> {
        Err(Status::NotSupported)
    }

    fn take(&mut self, _vcpu: &Vcpu<Fake>, _flags: RunFlags) {
        match *self {}
    }

    fn sync(&mut self, (): &(), _page: &SharedPage<Fake>, _groups: RunFlags) {
        match *self {}
    }

    fn show_mode(&self, _page: &SharedPage<Fake>) -> (u8, bool) {
        match *self {}
    }

    fn run(&mut self, _cpu: &mut Cpu<Fake>, _vcpu: &Ref<Vcpu<Fake>, Fake>) -> GuestExit {
        match *self {}
    }

    fn skip_write(&mut self) -> bool {
        match *self {}
    }

    fn add_cpuid(&mut self, _leaf: u32, _subleaf: Option<u32>, _registers: [u32; 4]) -> Result<(), Status> {
        match *self {}
    }

    fn add_msr(&mut self, _register: u32, _value: u64, _policy: MsrPolicy) -> Result<(), Status> {
        match *self {}
    }

    fn set_counter_frequency(&mut self, _hz: u64) -> Result<u64, Status> {
        match *self {}
    }

    fn access_controller(
        &mut self,
        _cpu: &mut Cpu<Fake>,
        _vcpu: &Vcpu<Fake>,
        _offset: u32,
        _write: Option<u32>,
    ) -> Result<u32, Status> {
        match *self {}
    }

    fn set_end_place(&mut self, _place: Option<RecordPlace<Fake>>) -> Result<Option<RecordPlace<Fake>>, Status> {
        match *self {}
    }

    fn flush(&mut self) {
        match *self {}
    }

    fn tell_away(_record: &[AtomicU64; RECORD_WORDS]) {}

    fn tell_back(_record: &[AtomicU64; RECORD_WORDS], _stolen_ns: u64) -> bool {
        false
    }

    fn count(_page: &SharedPage<Fake>, _fate: ExitFate) {}

    fn retire(&mut self, _vcpu: &Vcpu<Fake>) {}

    fn has_event(&self, (): &()) -> bool {
        match *self {}
    }

    fn deadline((): &()) -> Ticks {
        NEVER
    }

    fn send_message(_cpu: &mut Cpu<Fake>, _vm: &Vm<Fake>, _address: u64, _data: u32) {}
}
