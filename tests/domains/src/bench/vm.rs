//! Making a virtual machine and taking it away.

use dragonfly_abi::arch::guest::General;
use dragonfly_abi::guest::{ExitReason, RunFlags};
use dragonfly_abi::{Rights, Status};
use dragonfly_rt::Mapping;
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{Commit, Memory, Owned, Vm};

use crate::check::{Outcome, that};
use crate::machine::tsc;

/// The guest's memory: as much as KVM's guest gets (`tests/peers/kvm`).
const MEMORY: u64 = 64 << 20;
/// `out 0x80, al`, in real mode, and where it is.
const CODE: &[u8] = &[0xe6, 0x80];
const ADDRESS: u64 = 0x1000;

/// Machines made before those that count, and those.
const WARM_UP: u64 = 4;
const MACHINES: u64 = 64;

/// Least ticks of the parts of a virtual machine's life.
pub(super) struct Life {
    /// From nothing to the exit of the first instruction.
    pub(super) create: u64,
    /// From there to nothing.
    pub(super) destroy: u64,
}

/// A virtual machine with one vCPU, and memory that is given as it is touched. What it has goes in this order.
struct Machine {
    vcpu: VirtualCpu,
    _vm: Owned<Vm>,
    _mapping: Mapping,
    _memory: Owned<Memory>,
}

impl Machine {
    fn new() -> Result<Self, Status> {
        let memory = Memory::create(MEMORY, Commit::OnDemand)?;
        let mapping = Mapping::new(*memory, 0, MEMORY, Rights::READ | Rights::WRITE)?;
        mapping.write(ADDRESS, CODE)?;
        let vm = Vm::create()?;
        vm.map(*memory, 0, 0, MEMORY, Rights::READ | Rights::WRITE | Rights::EXECUTE)?;
        let vcpu = VirtualCpu::create(*vm, 0)?;
        let mut state = vcpu.state().read();
        (state.cs.selector, state.cs.base, state.rip) = (0, 0, ADDRESS);
        state.general[General::Rsp as usize] = ADDRESS;
        vcpu.state().write(&state);
        Ok(Self { vcpu, _vm: vm, _mapping: mapping, _memory: memory })
    }
}

/// Machines, one after the other.
pub(super) fn life() -> Outcome<Life> {
    let mut least = Life { create: u64::MAX, destroy: u64::MAX };
    for round in 0..WARM_UP + MACHINES {
        let start = tsc();
        let machine = Machine::new()?;
        let exit = machine.vcpu.run(RunFlags::GROUPS)?;
        let running = tsc();
        drop(machine);
        let end = tsc();
        that(exit.reason == ExitReason::Port as u32, "the guest does not run")?;
        if round >= WARM_UP {
            least.create = least.create.min(running.wrapping_sub(start));
            least.destroy = least.destroy.min(end.wrapping_sub(running));
        }
    }
    Ok(least)
}
