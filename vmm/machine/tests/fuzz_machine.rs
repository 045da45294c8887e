//! Accesses at random for `DRAGONFLY_FUZZ_SECONDS` (2 unless set), most of them where devices are, and saved states that
//! were damaged: none of it panics, and what the machine keeps stays bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dragonfly_machine::virtio::{Backend, Description, DeviceKind, Failed, QueueSetup, VirtioPci};
use dragonfly_machine::{Config, GuestPhys, Machine, Message};
use dragonfly_random::{Random, fuzz_end};

const CONFIG: Config = Config { vcpus: 4, start_s: 1_700_000_000 };
/// Steps until a machine is saved, its state damaged, and a new one begun.
const STEPS: u64 = 5_000;
/// The disk's queues.
const QUEUES: u16 = 2;
/// A pin, and a vector of the disk, sends one message for each access at most.
const MAX_MESSAGES: usize = 24 + QUEUES as usize + 1;
/// Bytes of a saved state: the queues of the console and the registers.
const MAX_STATE: usize = 16 << 10;

/// First ports and first addresses of devices.
const PORTS: [u16; 9] = [0x64, 0x70, 0x92, 0x3f8, 0x402, 0x600, 0xcf8, 0xcfc, 0x1100];
const ADDRESSES: [u64; 11] = [
    0xe000_0000,
    0xe000_0ff8,
    0xe000_8000,
    0xe000_8040,
    0xe000_8090,
    0xe800_4000,
    0xe800_4014,
    0xe800_6000,
    0xe800_7000,
    0xfec0_0000,
    0xfec0_0010,
];

/// What a driver does until its queues run, and what puts the windows back to where they were: address, bytes, value.
const DRIVE: [(u64, usize, u64); 17] = [
    (0xe000_8004, 2, 7),
    (0xe000_8010, 4, 0x1100),
    (0xe000_8018, 8, 0xe800_4000),
    (0xe000_8042, 2, 0x8000),
    (0xe800_4014, 1, 0),
    (0xe800_4014, 1, 3),
    (0xe800_4008, 8, 1 << 32 | 1),
    (0xe800_4014, 1, 11),
    (0xe800_7000, 8, 0xfee0_0000),
    (0xe800_7008, 8, 0x4041),
    (0xe800_4016, 2, 1),
    (0xe800_4018, 4, 64),
    (0xe800_4020, 8, 0x10_0000),
    (0xe800_4028, 8, 0x10_1000),
    (0xe800_4030, 8, 0x10_2000),
    (0xe800_401c, 2, 1),
    (0xe800_4014, 1, 15),
];

/// Serves queues at random, and holds the machine to its promises.
struct Disk {
    random: Random,
    /// Whether each queue runs, and its doorbell.
    queues: [(bool, Option<u16>); QUEUES as usize],
    has_run: bool,
}

impl Disk {
    fn queue(&mut self, queue: u16) -> &mut (bool, Option<u16>) {
        &mut self.queues[usize::from(queue)]
    }

    fn result(&mut self) -> Result<(), Failed> {
        if self.random.below(16) == 0 { Err(Failed) } else { Ok(()) }
    }
}

impl Backend for Disk {
    fn features(&self) -> u64 {
        0x7_3fff_ffff
    }

    fn negotiate(&mut self, _: u64) -> Result<(), Failed> {
        assert!(self.queues.iter().all(|(is_running, _)| !is_running));
        self.result()
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        assert!(usize::from(offset) + data.len() <= 60);
        data.fill(self.random.number() as u8);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        assert!(usize::from(offset) + data.len() <= 60);
    }

    fn start_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), Failed> {
        assert!((1..=256).contains(&setup.size));
        let result = self.result();
        assert_eq!(std::mem::replace(self.queue(queue), (result.is_ok(), None)), (false, None));
        self.has_run |= result.is_ok();
        result
    }

    fn stop_queue(&mut self, queue: u16) -> Result<u32, Failed> {
        assert_eq!(std::mem::take(self.queue(queue)), (true, None));
        self.result().map(|()| self.random.number() as u32)
    }

    fn notify(&mut self, queue: u16) {
        assert!(self.queue(queue).0);
    }

    fn set_doorbell(&mut self, queue: u16, port: Option<u16>) {
        let (is_running, doorbell) = self.queue(queue);
        assert!(*is_running && doorbell.is_some() != port.is_some());
        *doorbell = port;
    }

    fn set_message(&mut self, _: u16, _: Option<Message>) {}

    fn take_pending(&mut self, _: u16) -> bool {
        self.random.below(2) == 0
    }

    fn reset(&mut self) {
        assert!(self.queues.iter().all(|(_, doorbell)| doorbell.is_none()));
        self.queues = Default::default();
    }
}

/// How many disks have run a queue at some time.
static DRIVEN: AtomicU64 = AtomicU64::new(0);

impl Drop for Disk {
    fn drop(&mut self) {
        DRIVEN.fetch_add(self.has_run.into(), Ordering::Relaxed);
    }
}

/// A machine with a disk.
fn machine(random: &mut Random) -> Machine {
    let description = Description { kind: DeviceKind::Block, queues: QUEUES, queue_size_max: 256, config_size: 60 };
    let disk = Disk { random: Random::new(random.number()), queues: Default::default(), has_run: false };
    let mut machine = Machine::new(&CONFIG);
    machine.add_virtio(VirtioPci::new(description, Box::new(disk))).unwrap();
    machine
}

#[test]
fn a_machine_survives_whatever_a_guest_does() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut machines = 0u64;
    while Instant::now() < end || machines < 20 {
        let mut machine = machine(&mut random);
        let mut now_ns = 0;
        (0..STEPS).for_each(|_| step(&mut machine, &mut random, &mut now_ns));
        machine.pause();
        let mut state = machine.save();
        assert!(state.len() <= MAX_STATE, "{} bytes of state", state.len());
        let index = random.below(state.len() as u64) as usize;
        state[index] = random.number() as u8;
        if let Ok(mut machine) = self::machine(&mut random).restore(&state) {
            machine.resume();
            (0..STEPS / 10).for_each(|_| step(&mut machine, &mut random, &mut now_ns));
        }
        machines += 1;
    }
    let driven = DRIVEN.load(Ordering::Relaxed);
    assert!(driven >= machines, "the disk of each machine is to be driven");
    println!("{machines} machines");
}

fn step(machine: &mut Machine, random: &mut Random, now_ns: &mut u64) {
    let port = match random.below(8) {
        0 => random.number() as u16,
        _ => PORTS[random.below(PORTS.len() as u64) as usize] + random.below(12) as u16,
    };
    let address = match random.below(8) {
        0 => random.number(),
        _ => ADDRESSES[random.below(ADDRESSES.len() as u64) as usize] + random.below(64),
    };
    let width = 1 << random.below(3);
    let mut data = random.number().to_le_bytes();
    let length = random.below(9) as usize;
    if random.below(100) == 0 {
        for (address, length, value) in DRIVE {
            machine.mmio_write(GuestPhys(address), &value.to_le_bytes()[..length], || *now_ns);
        }
    }
    match random.below(8) {
        0 => _ = machine.port_in(port, width, *now_ns),
        1 | 2 => machine.port_out(port, width, random.number() as u32, *now_ns),
        3 => _ = machine.mmio_read(GuestPhys(address), &mut data[..length], || *now_ns),
        4 => _ = machine.mmio_write(GuestPhys(address), &data[..length], || *now_ns),
        5 => machine.end_of_interrupt(random.number() as u8),
        6 => _ = machine.console_input(&data[..length], *now_ns),
        _ => {
            *now_ns = now_ns.saturating_add(random.number() >> random.below(64));
            machine.tick(*now_ns);
            machine.console_output_taken(random.below(100) as usize, *now_ns);
        }
    }
    let messages = std::iter::from_fn(|| machine.take_message()).take(MAX_MESSAGES + 1).count();
    assert!(messages <= MAX_MESSAGES, "{messages} messages");
    while let Some(line) = machine.take_debug_line() {
        assert!(line.len() <= 120);
    }
    machine.take_event();
}
