//! One life of a guest: from an empty machine to its end.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::{TscRatio, VcpuState};
use dragonfly_guest_boot::{GuestMemory, GuestPhys, Inaccessible, LoadError, MemoryLayout, Request, StartState};
use dragonfly_machine::virtio::VirtioPci;
use dragonfly_machine::{Config, Machine, acpi, platform};
use dragonfly_machine_file::MachineFile;
use dragonfly_rt::cpus;
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{Notification, Vcpu, Vm};
use dragonfly_rt::thread::{Builder, JoinHandle};
use log::{info, warn};

use crate::card::{self, Card, Slot};
use crate::clock::Clock;
use crate::console::Console;
use crate::cpuid::Processor;
use crate::end::End;
use crate::plan::Plan;
use crate::problem::{Problem, at, loading};
use crate::ram::Ram;
use crate::service::serve;
use crate::shared::Shared;
use crate::vcpu::VcpuThread;
use crate::vcpu::registers::set_start;

/// Runs the guest from its start to its end.
pub(crate) fn live(
    plan: &Plan<'_>,
    card: Option<&Arc<Card>>,
    console: &mut Console,
    events: Notification,
) -> Result<End, Problem> {
    let running = Running::start(plan, card, console, events)?;
    let move_vcpu = |vcpu, cpu| running.move_vcpu(vcpu, cpu);
    Ok(serve(&running.shared, running.card.as_deref(), console, events, move_vcpu))
}

/// The threads of a guest's vCPUs. They are stopped when this goes.
struct Running {
    shared: Arc<Shared>,
    card: Option<Arc<Card>>,
    vcpus: Vec<Vcpu>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(
        plan: &Plan<'_>,
        card: Option<&Arc<Card>>,
        console: &Console,
        events: Notification,
    ) -> Result<Self, Problem> {
        let file = &plan.file;
        let vm = at("make a virtual machine", Vm::create())?;
        let ram = at("make the guest's RAM", Ram::new(*vm, file.memory))?;
        let clock = Clock::start(console.time_of_day(), file.tsc_khz.map(|khz| u64::from(khz) * 1000));
        let mut machine = Machine::new(&Config { vcpus: file.vcpus, start_s: clock.start_s() });
        let processor = Processor::of_host(file.vcpus, file.tsc_khz);
        let cpus = (0..file.vcpus).map(|number| vcpu(file, *vm, number)).collect::<Result<Vec<_>, _>>()?;
        let start = load(plan, &ram)?;
        let physical_bits = processor.physical_bits();
        let guest = card::Guest { vm: *vm, memory: ram.memory(), layout: ram.layout(), events };
        let slots = card.map_or(Ok(Vec::new()), |card| card.attach(file, guest))?;
        let add = |slot: Slot| machine.add_virtio(VirtioPci::new(slot.description, Box::new(slot)));
        let functions = slots.into_iter().filter_map(add).collect();
        let shared = Arc::new(Shared::new(vm, ram, clock, physical_bits, machine, functions, events));
        let mut running = Self { shared, card: card.cloned(), vcpus: Vec::new(), threads: Vec::new() };
        let mut threads = Vec::new();
        // All are there before the first one runs: it may send the others messages.
        for (number, (cpu, ratio)) in (0..).zip(cpus) {
            at("give a vCPU its processor", processor.set_up(&cpu, number))?;
            running.vcpus.push(*cpu);
            let start = (number == 0).then_some(&start);
            threads.push((number, running.thread(number, (cpu, ratio), start, &processor)));
        }
        let places = places(file);
        for (number, thread) in threads {
            let place = places.get(number as usize % places.len().max(1)).copied();
            let started = builder(file, place.unwrap_or(number)).spawn(move || thread.run());
            running.threads.push(started.map_err(|status| spawn_problem(file, number, status))?);
        }
        info!("{} runs: {} vCPUs, {} MiB", file.name, file.vcpus, file.memory >> 20);
        Ok(running)
    }

    /// What runs a vCPU: at the kernel's first instruction, or waiting to be started by another one.
    fn thread(
        &self,
        number: u32,
        (cpu, ratio): (VirtualCpu, TscRatio),
        start: Option<&StartState>,
        processor: &Processor,
    ) -> VcpuThread {
        let mut reset: VcpuState = cpu.state().read();
        reset.tsc_offset = self.shared.clock.tsc_offset(ratio);
        reset.general = [0; 16];
        reset.general[2] = processor.signature().into();
        let start = start.map(|start| {
            let mut state = reset;
            set_start(&mut state, start);
            state
        });
        VcpuThread::new(self.shared.clone(), number, cpu, reset, start.as_ref())
    }

    /// Lets a vCPU's thread go on on a CPU, as soon as it comes back from the guest.
    fn move_vcpu(&self, number: u32, cpu: u32) {
        let Some(vcpu) = self.vcpus.get(number as usize) else {
            warn!("there is no vCPU {number} to move: they are 0 to {}", self.vcpus.len().saturating_sub(1));
            return;
        };
        self.shared.wanted_cpus.want(number, cpu);
        // One whose thread has seen the end is gone already.
        let _ = vcpu.kick();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
        for vcpu in &self.vcpus {
            // One whose thread has seen the end is gone already.
            let _ = vcpu.kick();
        }
        for thread in self.threads.drain(..) {
            if let Err(status) = thread.join() {
                warn!("a vCPU's thread cannot be ended: {status}");
            }
        }
        if let Some(card) = &self.card {
            card.detach();
        }
    }
}

/// The CPUs that vCPUs' threads take turns on: those of the machine file, or all that the VMM may use, which shows by using
/// them.
fn places(file: &MachineFile) -> Vec<u32> {
    if !file.cpus.is_empty() {
        return file.cpus.clone();
    }
    let may_use = |cpu: &u32| Builder::new(*cpu, file.priority).spawn(|| ()).and_then(JoinHandle::join).is_ok();
    (0..cpus()).filter(may_use).collect()
}

/// A vCPU, and the rate of its time-stamp counter: the host's, or that of the machine file.
fn vcpu(file: &MachineFile, vm: Vm, number: u32) -> Result<(VirtualCpu, TscRatio), Problem> {
    let cpu = at("make a vCPU", VirtualCpu::create(vm, number))?;
    let Some(khz) = file.tsc_khz else { return Ok((cpu, TscRatio::ONE)) };
    let ratio = cpu.set_tsc_frequency(u64::from(khz) * 1000).map_err(|status| match status {
        Status::NotSupported => file
            .error(
                "tsc_khz",
                format!(
                    "is {khz}, but this processor does not scale time-stamp counters: leave it out, for the host's"
                ),
            )
            .into(),
        status => Problem::Call { step: "set the frequency of a time-stamp counter", status },
    })?;
    Ok((cpu, ratio))
}

/// A vCPU's thread on this CPU, and how much of it.
fn builder(file: &MachineFile, cpu: u32) -> Builder {
    let builder = Builder::new(cpu, file.priority);
    match file.budget {
        Some(budget) => builder.budget(budget.budget_ns, budget.period_ns),
        None => builder,
    }
}

fn spawn_problem(file: &MachineFile, number: u32, status: Status) -> Problem {
    match status {
        Status::BadCpu => file.error(
            "cpus",
            format!("puts vCPU {number} on a CPU that the VMM may not use: give others, or more in bundle.toml"),
        ),
        Status::BadArgument => file.error(
            "priority",
            format!(
                "is {}, which the VMM may not use: lower it, or raise `max_priority` in bundle.toml",
                file.priority
            ),
        ),
        status => return Problem::Call { step: "start a vCPU's thread", status },
    }
    .into()
}

/// Puts tables and kernel into the guest's memory; gives the registers that its first vCPU starts with.
fn load(plan: &Plan<'_>, ram: &Ram) -> Result<StartState, Problem> {
    let file = &plan.file;
    let layout: MemoryLayout = platform::memory_layout(file.memory);
    let tables = acpi::tables(file.vcpus, file.memory);
    if ram.write(platform::ACPI_TABLES.start, &tables).is_err() {
        // The least memory of a machine is more.
        return Err(Problem::Call { step: "write the ACPI tables", status: Status::BadArgument });
    }
    let mut memory = Fresh(ram);
    let request =
        Request { kernel: plan.kernel, initrd: plan.initrd, command_line: file.cmdline.as_bytes(), memory: &layout };
    dragonfly_guest_boot::load(&request, &mut memory)
        .map(|loaded| loaded.state)
        .map_err(|error: LoadError| loading(file, error))
}

/// RAM that nobody has written to yet.
struct Fresh<'r>(&'r Ram);

impl GuestMemory for Fresh<'_> {
    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.0.write(address.0, bytes).map_err(|_| Inaccessible(address))
    }

    fn zero(&mut self, _: GuestPhys, _: u64) -> Result<(), Inaccessible> {
        Ok(())
    }
}
