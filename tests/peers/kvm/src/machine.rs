//! The machine: a VM with memory, interrupt controllers and vCPUs.

use std::io::Write;

use anyhow::{Context, Result, bail};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::{
    devices::{self, Devices, Next},
    memory::Memory,
};

/// Three pages and one that some Intel processors need for real mode, below the top of the first 4 GiB
/// (KVM API, KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR).
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// A virtual machine. Its vCPUs wait to be run; the first is where [`Start`] says, the others wait for start-up
/// interrupts.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: vCPUs, VM, then the memory that they used.
    vcpus: Vec<VcpuFd>,
    _vm: VmFd,
    _memory: Memory,
}

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In flat 32-bit protected mode at this address, as PVH has it.
    Protected32(u64),
    /// In real mode at 0 : this offset.
    Real(u16),
}

impl Machine {
    /// Makes a machine with `vcpus` vCPUs on `memory`.
    ///
    /// # Errors
    /// Fails when KVM refuses a step; the error names it.
    pub fn new(kvm: &Kvm, memory: Memory, vcpus: u32, start: Start) -> Result<Self> {
        let vm = kvm.create_vm().context("cannot create a VM")?;
        vm.set_tss_address(TSS_ADDRESS).context("cannot place the TSS")?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).context("cannot place the identity map")?;
        vm.create_irq_chip().context("cannot create the interrupt controllers")?;
        give_memory(&vm, &memory)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("cannot get the supported CPUID")?;
        let create = |id| create_vcpu(&vm, cpuid.clone(), id, vcpus, start).with_context(|| format!("vCPU {id}"));
        let vcpus = (0..vcpus).map(create).collect::<Result<_>>()?;
        Ok(Self { vcpus, _vm: vm, _memory: memory })
    }

    /// Runs the first vCPU until it leaves to user space for the first time.
    ///
    /// # Errors
    /// Fails when it cannot run, or leaves for any reason but a write to a port.
    pub fn run_to_first_exit(&mut self) -> Result<()> {
        match self.vcpus.first_mut().context("no vCPU")?.run()? {
            VcpuExit::IoOut(..) => Ok(()),
            exit => bail!("unexpected exit {exit:?}"),
        }
    }

    /// Runs the machine until it is switched off, with all vCPUs but the first on threads of their own.
    ///
    /// Those threads are left behind: what they wait for in the kernel never comes, and they end with the process. So
    /// do the VM and its memory.
    ///
    /// # Errors
    /// Fails when a vCPU cannot run on; the first one's report is the result, the others' go to standard error.
    pub fn run(self, output: &mut impl Write) -> Result<()> {
        let machine = Box::leak(Box::new(self));
        let (first, others) = machine.vcpus.split_first_mut().context("no vCPU")?;
        for vcpu in others {
            std::thread::Builder::new().spawn(move || {
                if let Err(error) = run_vcpu(vcpu, &mut Devices::new(std::io::sink())) {
                    eprintln!("vCPU: {error:#}");
                }
            })?;
        }
        run_vcpu(first, &mut Devices::new(output))
    }
}

#[expect(unsafe_code, reason = "KVM trusts its caller with addresses")]
fn give_memory(vm: &VmFd, memory: &Memory) -> Result<()> {
    // SAFETY: the machine drops its memory after its vCPUs, or is leaked with all of them.
    unsafe { memory.give_to(vm) }
}

fn create_vcpu(vm: &VmFd, mut cpuid: CpuId, id: u32, vcpus: u32, start: Start) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(id.into()).context("cannot be created")?;
    cpuid.as_mut_slice().iter_mut().for_each(|entry| adapt(entry, id, vcpus));
    vcpu.set_cpuid2(&cpuid).context("cannot set CPUID")?;
    if id == 0 {
        let mut system = vcpu.get_sregs().context("cannot get the registers")?;
        let rip = enter(&mut system, start);
        vcpu.set_sregs(&system).context("cannot set the system registers")?;
        vcpu.set_regs(&kvm_regs { rip, rflags: 2, ..Default::default() }).context("cannot set the registers")?;
    }
    Ok(vcpu)
}

/// Puts what depends on the vCPU into CPUID (SDM 2A, CPUID, leaves 1, 0xb and 0x1f), and its timer's TSC deadlines,
/// which KVM emulates but does not list.
fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, vcpus: u32) {
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | id << 24;
            entry.ecx |= 1 << 24;
        }
        0xb | 0x1f => entry.edx = id,
        _ => {}
    }
}

/// Sets segments and CR0 for `start` and returns the instruction pointer.
fn enter(system: &mut kvm_sregs, start: Start) -> u64 {
    const PROTECTED: u64 = 1;
    match start {
        Start::Protected32(entry) => {
            let data = kvm_segment {
                limit: u32::MAX,
                selector: 16,
                type_: 3, // Data, writable, accessed.
                present: 1,
                s: 1,
                db: 1,
                g: 1,
                ..Default::default()
            };
            system.cs = kvm_segment { selector: 8, type_: 11, ..data }; // Code, readable, accessed.
            for segment in [&mut system.ds, &mut system.es, &mut system.fs, &mut system.gs, &mut system.ss] {
                *segment = data;
            }
            system.cr0 |= PROTECTED;
            entry
        }
        Start::Real(offset) => {
            system.cs.base = 0;
            system.cs.selector = 0;
            offset.into()
        }
    }
}

fn run_vcpu(vcpu: &mut VcpuFd, devices: &mut Devices<impl Write>) -> Result<()> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                if devices.write_port(port, data)? == Next::Off {
                    return Ok(());
                }
            }
            Ok(VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data)) => devices::read(data),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(VcpuExit::Shutdown) => bail!("the guest ended in a triple fault"),
            Ok(exit) => bail!("unexpected exit {exit:?}"),
            Err(error) => retry(error)?,
        }
    }
}

/// KVM_RUN returns early for a signal, and once when a start-up interrupt arrives.
fn retry(error: kvm_ioctls::Error) -> Result<()> {
    const EINTR: i32 = 4;
    const EAGAIN: i32 = 11;
    if [EINTR, EAGAIN].contains(&error.errno()) { Ok(()) } else { Err(error).context("cannot run the vCPU") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vcpu_has_its_own_id_in_cpuid() {
        let mut entry = kvm_cpuid_entry2 { function: 1, ebx: 0xaabb_ccdd, ..Default::default() };
        adapt(&mut entry, 1, 2);
        assert_eq!(entry.ebx, 0x0102_ccdd);
        let mut entry = kvm_cpuid_entry2 { function: 0xb, ..Default::default() };
        adapt(&mut entry, 1, 2);
        assert_eq!(entry.edx, 1);
    }

    #[test]
    fn a_pvh_guest_starts_in_flat_protected_mode_without_paging() {
        let mut system = kvm_sregs { cr0: 0x6000_0010, ..Default::default() };
        assert_eq!(enter(&mut system, Start::Protected32(0x20_0020)), 0x20_0020);
        assert_eq!(system.cr0, 0x6000_0011);
        assert_eq!((system.cs.limit, system.cs.db, system.cs.l, system.ss.limit), (u32::MAX, 1, 0, u32::MAX));
    }

    #[test]
    fn signals_and_start_up_interrupts_do_not_end_a_vcpu() {
        assert!(retry(kvm_ioctls::Error::new(4)).is_ok());
        assert!(retry(kvm_ioctls::Error::new(11)).is_ok());
        assert!(retry(kvm_ioctls::Error::new(14)).is_err());
    }
}
