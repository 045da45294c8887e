//! What the threads of one guest share.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dragonfly_machine::pci::DeviceFunction;
use dragonfly_machine::{Event, Machine};
use dragonfly_machine_file::MAX_VCPUS;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Notification, Owned, Vm};
use log::info;

use crate::clock::Clock;
use crate::end::End;
use crate::ram::Ram;

/// Bits of the serving thread's notification.
pub(crate) mod wake {
    /// The guest has printed something.
    pub(crate) const OUTPUT: u64 = 1 << 0;
    /// There is input for the guest.
    pub(crate) const INPUT: u64 = 1 << 1;
    /// The guest has come to its end.
    pub(crate) const END: u64 = 1 << 2;
    /// A device wants to be asked at another time.
    pub(crate) const TIMER: u64 = 1 << 3;
    /// The configuration space of one of the card's devices has changed.
    pub(crate) const CONFIG: u64 = 1 << 4;

    /// Bits from here on: a device of the card has failed.
    const BROKEN_SHIFT: u32 = 32;

    /// The card's device with this number has failed.
    pub(crate) const fn broken(device: u32) -> u64 {
        1 << (BROKEN_SHIFT + device)
    }
}

/// Odd accesses that are told of, so that a guest cannot fill the log.
const MAX_TOLD: usize = 64;

/// Lines that a guest may write to the log through its debug port.
const MAX_DEBUG_LINES: usize = 1000;

/// The devices, and what was done for them.
struct Devices {
    machine: Machine,
    /// When the serving thread will ask them, in nanoseconds since the start; `None` for never.
    asked_ns: Option<u64>,
    debug_lines: usize,
}

/// What the threads of one guest share.
pub(crate) struct Shared {
    /// The virtual machine.
    pub(crate) vm: Owned<Vm>,
    /// Its RAM.
    pub(crate) ram: Ram,
    /// Its time.
    pub(crate) clock: Clock,
    /// Ports that the guest has written to, and no device has.
    pub(crate) dead_ports: DeadPorts,
    /// Where its vCPUs' threads are to go.
    pub(crate) wanted_cpus: WantedCpus,
    /// How wide its physical addresses are.
    pub(crate) physical_bits: u8,
    /// Where the card's devices are on the bus, by number.
    functions: Vec<DeviceFunction>,
    /// Wakes the serving thread.
    events: Notification,
    devices: Mutex<Devices>,
    /// Whether the serving thread has been told of output that it has not taken yet.
    output_told: AtomicBool,
    is_stopping: AtomicBool,
    end: Mutex<Option<End>>,
    /// Registers that were told of.
    told: Mutex<Vec<u32>>,
}

/// A set of ports without a device: writes there, which some kernels make to pass time, need not ask the machine.
pub(crate) struct DeadPorts(Box<[AtomicU64; WORDS_OF_PORTS]>);

/// One bit for each port.
const WORDS_OF_PORTS: usize = 1 << 10;

impl DeadPorts {
    fn new() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; WORDS_OF_PORTS]))
    }

    /// Whether the port was found to be dead.
    #[inline]
    pub(crate) fn has(&self, port: u16) -> bool {
        self.0.get(usize::from(port >> 6)).is_some_and(|word| word.load(Ordering::Relaxed) >> (port & 63) & 1 != 0)
    }

    /// Adds a port.
    pub(crate) fn add(&self, port: u16) {
        if let Some(word) = self.0.get(usize::from(port >> 6)) {
            word.fetch_or(1 << (port & 63), Ordering::Relaxed);
        }
    }
}

/// Where vCPUs' threads are to go: who wants one elsewhere kicks it, and it goes there by itself.
pub(crate) struct WantedCpus([AtomicU32; MAX_VCPUS as usize]);

/// It is to stay where it is.
const NO_OTHER: u32 = u32::MAX;

impl WantedCpus {
    fn new() -> Self {
        Self([const { AtomicU32::new(NO_OTHER) }; MAX_VCPUS as usize])
    }

    /// A vCPU's thread is to go to a CPU. Before the vCPU is kicked, which makes it visible to the thread.
    pub(crate) fn want(&self, vcpu: u32, cpu: u32) {
        if let Some(wanted) = self.0.get(vcpu as usize) {
            wanted.store(cpu, Ordering::Relaxed);
        }
    }

    /// Where a vCPU's thread is to go, if it is; once.
    pub(crate) fn take(&self, vcpu: u32) -> Option<u32> {
        let cpu = self.0.get(vcpu as usize)?.swap(NO_OTHER, Ordering::Relaxed);
        (cpu != NO_OTHER).then_some(cpu)
    }
}

impl Shared {
    /// What a guest's threads share, before they run.
    pub(crate) fn new(
        vm: Owned<Vm>,
        ram: Ram,
        clock: Clock,
        physical_bits: u8,
        machine: Machine,
        functions: Vec<DeviceFunction>,
        events: Notification,
    ) -> Self {
        Self {
            vm,
            ram,
            clock,
            dead_ports: DeadPorts::new(),
            wanted_cpus: WantedCpus::new(),
            physical_bits,
            functions,
            events,
            devices: Mutex::new(Devices { machine, asked_ns: None, debug_lines: 0 }),
            output_told: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            end: Mutex::new(None),
            told: Mutex::new(Vec::new()),
        }
    }

    /// Does something with the devices at a time in nanoseconds since the start, then what they want done: interrupts
    /// sent, output fetched, the end begun.
    pub(crate) fn with_machine<R>(&self, work: impl FnOnce(&mut Machine, u64) -> R) -> R {
        let mut devices = self.devices.lock();
        // Taken under the lock: the devices' time does not go back.
        let now_ns = self.clock.now_ns();
        let result = work(&mut devices.machine, now_ns);
        self.see_to(&mut devices, now_ns);
        result
    }

    /// Accesses memory that is not RAM, by work that says whether a device has it: if none has, nothing changes.
    pub(crate) fn with_memory(&self, work: impl FnOnce(&mut Machine) -> bool) {
        let mut devices = self.devices.lock();
        if work(&mut devices.machine) {
            let now_ns = self.clock.now_ns();
            self.see_to(&mut devices, now_ns);
        }
    }

    /// Does what the devices want done.
    fn see_to(&self, devices: &mut Devices, now_ns: u64) {
        while let Some(message) = devices.machine.take_message() {
            // A message that the guest made up, and that means nothing, goes nowhere.
            let _ = self.vm.interrupt(message.address, message.data);
        }
        if let Some(event) = devices.machine.take_event() {
            self.finish(match event {
                Event::PowerOff => End::PowerOff,
                Event::Reset => End::Reset,
            });
        }
        if !devices.machine.console_output().is_empty() && !self.output_told.swap(true, Ordering::Relaxed) {
            self.wake(wake::OUTPUT);
        }
        if let Some(deadline_ns) = devices.machine.deadline_ns(now_ns)
            && devices.asked_ns.is_none_or(|asked_ns| deadline_ns < asked_ns)
        {
            devices.asked_ns = Some(deadline_ns);
            self.wake(wake::TIMER);
        }
        while let Some(line) = devices.machine.take_debug_line() {
            devices.debug_lines += 1;
            if devices.debug_lines <= MAX_DEBUG_LINES {
                info!("the guest says: {line}");
            }
        }
    }

    /// Lets the guest's drivers know of devices that have failed, by bits of [`wake::broken`].
    pub(crate) fn tell_of_broken(&self, bits: u64) {
        for (device, function) in (0..).zip(&self.functions) {
            if bits & wake::broken(device) != 0 {
                self.with_machine(|machine, _| machine.virtio_failed(*function));
            }
        }
    }

    /// Lets the guest's drivers know of configuration spaces that have changed. `changed` gives the numbers of the card's devices;
    /// no driver reads in between.
    pub(crate) fn tell_of_config(&self, changed: impl FnOnce() -> Vec<usize>) {
        self.with_machine(|machine, _| {
            for function in changed().into_iter().filter_map(|device| self.functions.get(device)) {
                machine.virtio_config_changed(*function);
            }
        });
    }

    /// What the guest has printed since the last time.
    pub(crate) fn take_output(&self) -> Vec<u8> {
        self.output_told.store(false, Ordering::Relaxed);
        self.with_machine(|machine, now_ns| {
            let output = machine.console_output().to_vec();
            machine.console_output_taken(output.len(), now_ns);
            output
        })
    }

    /// When the devices are to be asked, on the kernel's clock: the caller promises to do so.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        let mut devices = self.devices.lock();
        let now_ns = self.clock.now_ns();
        devices.asked_ns = devices.machine.deadline_ns(now_ns);
        devices.asked_ns.map(|guest_ns| self.clock.host_ns(guest_ns))
    }

    /// The guest comes to its end; the first reason counts.
    pub(crate) fn finish(&self, end: End) {
        self.end.lock().get_or_insert(end);
        self.wake(wake::END);
    }

    /// How the guest has come to its end, once it has.
    pub(crate) fn end(&self) -> Option<End> {
        *self.end.lock()
    }

    /// From now on no vCPU is run again.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Whether no vCPU is to be run again.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Tells of a register that the machine does not have, once.
    pub(crate) fn tell_of_msr(&self, register: u32, access: &str) {
        let mut told = self.told.lock();
        if told.len() < MAX_TOLD && !told.contains(&register) {
            told.push(register);
            info!("the guest {access} MSR {register:#x}, which the machine does not have");
        }
    }

    fn wake(&self, bits: u64) {
        // The notification is there for as long as the domain is.
        let _ = self.events.signal(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::{DeadPorts, MAX_VCPUS, WantedCpus};

    #[test]
    fn a_wish_for_a_cpu_is_taken_once_and_the_last_one_counts() {
        let wanted = WantedCpus::new();
        assert_eq!(wanted.take(0), None);
        wanted.want(0, 3);
        wanted.want(0, 1);
        // There is none of this number.
        wanted.want(MAX_VCPUS, 1);
        assert_eq!(
            (wanted.take(0), wanted.take(0), wanted.take(1), wanted.take(MAX_VCPUS)),
            (Some(1), None, None, None)
        );
    }

    #[test]
    fn a_port_is_dead_once_it_was_added() {
        let ports = DeadPorts::new();
        for port in [0, 0x80, u16::MAX] {
            assert!(!ports.has(port));
            ports.add(port);
            assert!(ports.has(port));
        }
        assert!(!ports.has(0x81) && !ports.has(0x40));
    }
}
