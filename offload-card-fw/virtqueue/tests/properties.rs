//! Any sequence of what a correct driver and a device do, on rings of either layout.
//!
//! The driver follows the specification and shares no code with the queue. What is checked: chains come as they were made
//! available, with their bytes; each is given back once, with its length; and whoever sleeps is woken.

use std::collections::{HashMap, HashSet, VecDeque};

use dragonfly_virtqueue::host::{Buffer, Driver, HostMemory, config_at, driver};
use dragonfly_virtqueue::{Access, Burst, Chain, GuestAddress, GuestMemory, Queue, QueueError, RingFeatures, Segment};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

const TABLES: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const MEMORY: usize = 0x30_0000;
/// Bytes of tables and data that one chain may use.
const STRIDE: u64 = 0x200;

/// What a chain looks like.
#[derive(Clone, Debug)]
struct Shape {
    readable: Vec<u8>,
    writable: Vec<u8>,
    /// How many buffers come before an indirect table, if there is one and the layout allows it.
    direct: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(Shape),
    Publish,
    /// Takes so many chains at once, to be written or read, keeps so many of them and puts the others back.
    Burst(usize, Access, usize),
    Pop,
    /// Puts the chain back that was taken last.
    Unpop,
    /// Gives back the chain with this number, modulo how many the device has, and shows it at once or with later ones.
    Push(usize, bool),
    TakeUsed,
    DriverSleeps,
    DeviceSleeps,
    DriverPolls,
    DevicePolls,
}

fn step() -> impl Strategy<Value = Step> {
    let shape = (vec(0..9_u8, 0..4), vec(0..9_u8, 0..4), proptest::option::of(0..3_usize));
    let shape = shape.prop_filter("a buffer at least", |(readable, writable, _)| readable.len() + writable.len() > 0);
    let shape = shape.prop_map(|(readable, writable, direct)| Shape { readable, writable, direct });
    prop_oneof![
        4 => shape.prop_map(Step::Add),
        3 => Just(Step::Publish),
        3 => (0..9_usize, prop_oneof![Just(Access::Read), Just(Access::Write)], 0..9_usize)
            .prop_map(|(count, access, kept)| Step::Burst(count, access, kept)),
        5 => Just(Step::Pop),
        1 => Just(Step::Unpop),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, at_once)| Step::Push(which, at_once)),
        4 => Just(Step::TakeUsed),
        1 => Just(Step::DriverSleeps),
        1 => Just(Step::DeviceSleeps),
        1 => Just(Step::DriverPolls),
        1 => Just(Step::DevicePolls),
    ]
}

/// Both sides, and what is to be expected of them.
struct World {
    memory: HostMemory,
    queue: Queue,
    driver: Box<dyn Driver<HostMemory>>,
    is_packed: bool,
    is_in_order: bool,
    has_event_index: bool,
    /// Chains added and not yet popped, and how many of them the device may see.
    added: VecDeque<(u16, Vec<Buffer>)>,
    published: usize,
    popped: Vec<Chain>,
    /// How many were popped since one was given back: so many can be put back.
    can_unpop: usize,
    /// Chains given back, with their lengths, and how many of them the driver may see.
    used: VecDeque<(u16, u32)>,
    shown: usize,
    /// Where the next chain's buffers go.
    next_data: u64,
    device_sleeps: bool,
    driver_sleeps: bool,
    bytes: HashMap<u64, Vec<u8>>,
    /// First buffers of chains that have a table.
    in_tables: HashSet<u64>,
}

impl World {
    fn new(size: u16, features: RingFeatures) -> Self {
        let memory = HostMemory::new(&[(0, MEMORY)]);
        let config = config_at(0x1000, size, features);
        Self {
            queue: Queue::new(config).unwrap(),
            driver: driver(&config, &memory),
            memory,
            is_packed: config.is_packed(),
            is_in_order: features.contains(RingFeatures::IN_ORDER),
            has_event_index: features.contains(RingFeatures::EVENT_IDX),
            added: VecDeque::new(),
            published: 0,
            popped: Vec::new(),
            can_unpop: 0,
            used: VecDeque::new(),
            shown: 0,
            next_data: 0,
            device_sleeps: false,
            driver_sleeps: false,
            bytes: HashMap::new(),
            in_tables: HashSet::new(),
        }
    }

    fn add(&mut self, shape: &Shape) {
        let slot = self.next_data % (0x10_0000 / STRIDE) * STRIDE;
        let mut address = DATA + slot;
        let lens = shape.readable.iter().map(|len| (*len, false)).chain(shape.writable.iter().map(|len| (*len, true)));
        let buffers: Vec<_> = lens
            .map(|(len, is_writable)| {
                address += 16;
                Buffer { address, len: u32::from(len), is_writable }
            })
            .collect();
        let direct = shape.direct.filter(|direct| *direct < buffers.len());
        // A list in a packed ring is all direct or all indirect.
        let direct = if self.is_packed { direct.map(|_| 0) } else { direct };
        let table = direct.map(|_| TABLES + slot);
        let Some(id) = self.driver.add(&self.memory, &buffers, direct.unwrap_or(0), table) else { return };
        self.next_data += 1;
        for buffer in buffers.iter().filter(|buffer| !buffer.is_writable) {
            let bytes: Vec<_> = (0..buffer.len).map(|at| (self.next_data as u32 * 31 + at) as u8).collect();
            self.memory.write(GuestAddress(buffer.address), &bytes).unwrap();
            self.bytes.insert(buffer.address, bytes);
        }
        if table.is_some() {
            self.in_tables.extend(buffers.first().map(|buffer| buffer.address));
        } else if let Some(first) = buffers.first() {
            self.in_tables.remove(&first.address);
        }
        self.added.push_back((id, buffers));
    }

    fn publish(&mut self) {
        let is_new = self.published < self.added.len();
        let kicked = self.driver.publish(&self.memory);
        self.published = self.added.len();
        assert!(kicked || !(self.device_sleeps && is_new), "the device sleeps on");
        self.device_sleeps &= !kicked;
    }

    fn pop(&mut self) {
        let Some(chain) = self.queue.pop(&self.memory).unwrap() else {
            assert_eq!(self.published, 0, "a chain was overlooked");
            return;
        };
        assert!(self.published > 0, "a chain was taken too early");
        self.published -= 1;
        let (id, buffers) = self.added.pop_front().unwrap();
        assert_eq!(chain.id().index(), id);
        let segment = |buffer: &Buffer| Segment {
            address: GuestAddress(buffer.address),
            len: buffer.len,
            is_writable: buffer.is_writable,
        };
        assert!(buffers.iter().map(segment).eq(chain.segments().iter().copied()));
        let expected: Vec<_> =
            chain.readable().iter().flat_map(|segment| &self.bytes[&segment.address.0]).copied().collect();
        let mut bytes = vec![0; expected.len()];
        let mut reader = chain.reader(&self.memory);
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!((bytes, reader.remaining()), (expected, 0));
        self.popped.push(chain);
        self.can_unpop += 1;
    }

    fn unpop(&mut self) {
        if self.can_unpop == 0 {
            return;
        }
        let Some(chain) = self.popped.pop() else { return };
        let mut ring = self.queue.attach(&self.memory).unwrap();
        if let Some(before) = self.popped.last() {
            assert_eq!(ring.unpop(before.id()), Err(QueueError::NotInFlight), "not the last one");
        }
        ring.unpop(chain.id()).unwrap();
        let buffer = |segment: &Segment| Buffer {
            address: segment.address.0,
            len: segment.len,
            is_writable: segment.is_writable,
        };
        self.added.push_front((chain.id().index(), chain.segments().iter().map(buffer).collect()));
        self.published += 1;
        self.can_unpop -= 1;
        // Nobody tells the device of a chain that it has put back itself.
        self.device_sleeps = false;
    }

    /// Takes a burst and gives what it keeps back at once.
    fn burst(&mut self, count: usize, access: Access, kept: usize) {
        let is_single = |buffers: &[Buffer]| match buffers {
            [only] => {
                only.is_writable == (access == Access::Write) && only.len > 0 && !self.in_tables.contains(&only.address)
            }
            _ => false,
        };
        let published = self.added.iter().take(self.published.min(count));
        let expected: Vec<_> =
            published.map_while(|(id, buffers)| is_single(buffers).then(|| (*id, buffers[0].len))).collect();
        let mut burst = Burst::new();
        let mut ring = self.queue.attach(&self.memory).unwrap();
        ring.pop_burst(count, access, &mut burst).unwrap();
        let found: Vec<_> = burst.iter().map(|single| (single.id().index(), single.buffer().len() as u32)).collect();
        assert_eq!(found, expected);
        for (single, (_, buffers)) in burst.iter().zip(&self.added).filter(|_| access == Access::Read) {
            let mut bytes = vec![0; single.buffer().len()];
            single.buffer().read(0, &mut bytes).unwrap();
            assert_eq!(bytes, self.bytes[&buffers[0].address]);
        }
        // What was taken before must be given back before.
        let kept = if self.is_in_order && !self.popped.is_empty() { 0 } else { kept.min(burst.len()) };
        ring.unpop_burst(&mut burst, kept).unwrap();
        assert_eq!(burst.len(), kept);
        let lens: Vec<_> = (7..).take(kept).collect();
        ring.stage_burst(&burst, lens.iter().copied()).unwrap();
        if kept < expected.len() {
            self.device_sleeps = false;
        }
        if kept > 0 {
            self.can_unpop = 0;
        }
        for len in lens {
            let (id, _) = self.added.pop_front().unwrap();
            self.published -= 1;
            self.used.push_back((id, len));
        }
    }

    fn push(&mut self, which: usize, at_once: bool) {
        let mut ring = self.queue.attach(&self.memory).unwrap();
        if !self.popped.is_empty() {
            let which = if self.is_in_order { 0 } else { which % self.popped.len() };
            let chain = self.popped.remove(which);
            self.can_unpop = 0;
            let mut writer = chain.writer(&self.memory);
            writer.write_all(&vec![0xa5; chain.writable_len() as usize / 2]).unwrap();
            ring.stage(chain.id(), writer.written()).unwrap();
            self.used.push_back((chain.id().index(), writer.written()));
        }
        if !at_once {
            return;
        }
        ring.publish().unwrap();
        let is_new = self.shown < self.used.len();
        self.shown = self.used.len();
        let interrupts = ring.needs_notification();
        assert!(interrupts || !(self.driver_sleeps && is_new), "the driver sleeps on");
        self.driver_sleeps &= !interrupts;
    }

    fn take_used(&mut self) {
        let Some(used) = self.driver.take_used(&self.memory) else {
            assert_eq!(self.shown, 0, "what was given back is not there");
            return;
        };
        assert!(self.shown > 0, "something was given back too early");
        self.shown -= 1;
        assert_eq!(Some(used), self.used.pop_front());
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(shape) => self.add(shape),
            Step::Publish => self.publish(),
            Step::Burst(count, access, kept) => self.burst(*count, *access, *kept),
            Step::Pop => self.pop(),
            Step::Unpop => self.unpop(),
            Step::Push(which, at_once) => self.push(*which, *at_once),
            Step::TakeUsed => self.take_used(),
            Step::DriverSleeps => {
                let has_used = self.driver.enable_notifications(&self.memory);
                assert_eq!(has_used, self.shown > 0);
                self.driver_sleeps = !has_used;
            }
            Step::DeviceSleeps => {
                let has_chain = self.queue.enable_kicks(&self.memory);
                assert_eq!(has_chain, self.published > 0);
                self.device_sleeps = !has_chain;
            }
            Step::DriverPolls => {
                self.driver.disable_notifications(&self.memory);
                self.driver_sleeps = false;
            }
            Step::DevicePolls => {
                self.queue.disable_kicks(&self.memory);
                self.device_sleeps = false;
                if !self.has_event_index {
                    self.publish_without_kick();
                }
            }
        }
    }

    /// A device that polls is not disturbed, where flags say so.
    fn publish_without_kick(&mut self) {
        assert!(!self.driver.publish(&self.memory));
        self.published = self.added.len();
    }
}

fn run(size: u16, features: RingFeatures, steps: &[Step]) {
    let mut world = World::new(size, features);
    for step in steps {
        world.step(step);
    }
    // All that is left goes its way.
    world.publish();
    while world.published > 0 {
        world.pop();
    }
    while !world.popped.is_empty() {
        world.push(0, true);
    }
    world.push(0, true);
    while !world.used.is_empty() {
        world.take_used();
    }
    assert_eq!((world.queue.error(), world.queue.in_flight()), (None, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_split_ring_passes_every_chain_there_and_back(
        order in 0..5_u32,
        features in subsequence(vec![RingFeatures::EVENT_IDX, RingFeatures::IN_ORDER], 0..=2),
        steps in vec(step(), 0..300),
    ) {
        let features = features.into_iter().fold(RingFeatures::INDIRECT_DESC, |all, one| all | one);
        run(1 << order, features, &steps);
    }

    #[test]
    fn a_packed_ring_passes_every_chain_there_and_back(
        size in 1..18_u16,
        features in subsequence(vec![RingFeatures::EVENT_IDX, RingFeatures::IN_ORDER], 0..=2),
        steps in vec(step(), 0..300),
    ) {
        let base = RingFeatures::INDIRECT_DESC | RingFeatures::RING_PACKED;
        let features = features.into_iter().fold(base, |all, one| all | one);
        run(size, features, &steps);
    }
}
