//! Plays a hostile client for `DRAGONFLY_FUZZ_SECONDS` (2 if unset): changed messages, in any order. The session must not
//! panic, and the device and the platform check that what it does with them is in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use arrayvec::ArrayVec;
use dragonfly_random::{Random, fuzz_end};
use dragonfly_vhost_user::{
    ConfigError, Device, HEADER_LEN, Header, Inflight, MAX_PAYLOAD, Platform, Received, Region, Request, RingConfig,
    Session, wire::InflightArea,
};

#[derive(Default)]
struct Checker {
    running: BTreeSet<u16>,
    started: usize,
}

impl Device for Checker {
    type RingError = &'static str;

    fn features(&self) -> u64 {
        u64::MAX
    }

    fn set_features(&mut self, _features: u64) {
        assert!(self.running.is_empty());
    }

    fn queues(&self) -> u16 {
        4
    }

    fn read_config(&self, _offset: usize, into: &mut [u8]) {
        into.fill(1);
    }

    fn write_config(&mut self, offset: usize, from: &[u8]) -> Result<(), ConfigError> {
        if offset + from.len() > 60 { Err(ConfigError) } else { Ok(()) }
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), &'static str> {
        assert!(config.size > 0 && index < self.queues());
        assert!(self.running.insert(index), "ring {index} runs already");
        self.started += 1;
        Ok(())
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        assert!(self.running.remove(&index), "ring {index} does not run");
        1
    }

    fn reset(&mut self) {
        assert!(self.running.is_empty());
    }

    fn inflight_len(&self, queue_size: u16) -> Option<u64> {
        (queue_size > 0).then(|| u64::from(queue_size) * 16)
    }
}

#[derive(Default)]
struct Memory(BTreeMap<u64, u64>);

impl Platform for Memory {
    type Resource = u8;
    type Error = &'static str;

    fn map(&mut self, region: &Region, _resource: u8) -> Result<(), &'static str> {
        let end = region.guest_address.checked_add(region.size).expect("a region within 64 bits");
        let before = self.0.range(..end).next_back();
        assert!(before.is_none_or(|(start, size)| start + size <= region.guest_address), "regions overlap");
        self.0.insert(region.guest_address, region.size);
        Ok(())
    }

    fn unmap(&mut self, region: &Region) {
        assert_eq!(self.0.remove(&region.guest_address), Some(region.size));
    }

    fn set_kick(&mut self, index: u16, _kick: Option<u8>) {
        assert!(index < 4);
    }

    fn set_call(&mut self, index: u16, _call: Option<u8>) {
        assert!(index < 4);
    }

    fn set_err(&mut self, index: u16, _err: Option<u8>) {
        assert!(index < 4);
    }

    fn make_inflight(&mut self, area: &InflightArea) -> Result<Inflight<u8>, &'static str> {
        assert!(area.mmap_size > 0);
        Ok(Inflight { resource: 1, offset: 0 })
    }

    fn map_inflight(&mut self, area: &InflightArea, _resource: u8) -> Result<(), &'static str> {
        assert!(area.mmap_size > 0);
        Ok(())
    }
}

/// A message that a well-behaved client would send, more or less, with the number of its resources.
fn message(random: &mut Random) -> (Request, Vec<u8>, usize) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_ne_bytes()).collect::<Vec<_>>();
    let index = random.index(5) as u32;
    let request = Request::ALL[random.index(Request::ALL.len())];
    let region = [0x1000 * random.index(8) as u64, 0x1000, 0x10_0000 + 0x1000 * random.index(8) as u64, 0];
    let (payload, resources) = match request {
        Request::SetFeatures | Request::SetProtocolFeatures => (longs(&[0x1_b209 | (random.number() & 1) << 30]), 0),
        Request::SetMemTable => (longs(&[&[1][..], &region].concat()), 1),
        Request::AddMemReg => (longs(&[&[0][..], &region].concat()), 1),
        Request::RemMemReg => (longs(&[&[0][..], &region].concat()), 0),
        Request::SetVringNum | Request::SetVringBase => (words(&[index, 8]), 0),
        Request::GetVringBase => (words(&[index, 0]), 0),
        Request::SetVringEnable => (words(&[index, random.index(2) as u32]), 0),
        Request::SetVringAddr => {
            let at = 0x10_0000 + 0x1000 * random.index(8) as u64;
            ([words(&[index, 0]), longs(&[at, at + 0x100, at + 0x200, 0])].concat(), 0)
        }
        Request::SetVringKick | Request::SetVringCall | Request::SetVringErr => (longs(&[index.into()]), 1),
        Request::GetConfig | Request::SetConfig => (words(&[32, 4, 0, 1]), 0),
        Request::GetInflightFd => ([longs(&[0, 0]), words(&[0x0008_0004, 0])].concat(), 0),
        Request::SetInflightFd => ([longs(&[0x1000, 0]), words(&[0x0008_0004, 0])].concat(), 1),
        Request::SetStatus => (longs(&[random.index(16) as u64]), 0),
        _ => (Vec::new(), 0),
    };
    (request, payload, resources)
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.index(4) {
        0 => bytes.truncate(random.index(bytes.len() + 1)),
        1 => bytes.extend((0..random.index(9)).map(|_| 0xff)),
        _ => {
            let at = random.index(bytes.len());
            bytes[at..].iter_mut().take(1 + random.index(4)).for_each(|byte| *byte = random.number() as u8);
        }
    }
    bytes.truncate(MAX_PAYLOAD);
}

#[test]
fn a_hostile_client_gets_a_named_error_and_nothing_else() {
    let end = fuzz_end();
    let mut random = Random::new(0x5eed);
    let (mut device, mut platform) = (Checker::default(), Memory::default());
    let mut errors = 0;
    // At least one, so that the last check means something.
    let mut sessions = 0;
    while sessions < 100 || Instant::now() < end {
        sessions += 1;
        let mut session = Session::default();
        for _ in 0..400 {
            let (request, mut payload, mut resources) = message(&mut random);
            let header = Header { request, needs_reply: random.index(2) == 0, payload_len: payload.len() };
            let mut bytes: [u8; HEADER_LEN] = header.to_bytes();
            if random.index(64) == 0 {
                damage(&mut payload, &mut random);
                resources = random.index(4);
                bytes[8..].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
                bytes[random.index(HEADER_LEN)] ^= 1 << random.index(8);
            }
            let Ok(header) = Header::parse(bytes) else { continue };
            payload.resize(header.payload_len, 0);
            let resources: ArrayVec<u8, 8> = (0..resources as u8).collect();
            let received = Received { header, payload: &payload, resources };
            match session.handle(received, &mut device, &mut platform) {
                Ok(reply) => assert!(reply.is_none_or(|reply| reply.payload().len() <= MAX_PAYLOAD)),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    errors += 1;
                    break;
                }
            }
        }
        session.close(&mut device, &mut platform);
        assert!(device.running.is_empty() && platform.0.is_empty());
    }
    assert!(errors > 0 && device.started > 0, "{errors} errors, {} rings started", device.started);
}
