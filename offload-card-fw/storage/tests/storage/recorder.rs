//! A disk that remembers every write, so that power can be lost after any of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dragonfly_random::Random;
use dragonfly_storage::{BlockBackend, BlockError, Extent, Geometry, Sector};

/// Content by sector; zeros where there is none.
pub type Image = BTreeMap<u64, Arc<[u8; 512]>>;

/// What reached the disk, in order.
#[derive(Clone)]
pub enum Event {
    Write(u64, Arc<[u8; 512]>),
    Flush,
}

/// Fails or records, as it is told.
pub struct Recorder {
    sectors: u64,
    pub image: Mutex<Image>,
    pub events: Mutex<Vec<Event>>,
    /// How many more writes and flushes succeed.
    pub good_for: Mutex<Option<u32>>,
}

impl Recorder {
    pub fn new(sectors: u64, image: Image) -> Self {
        Self { sectors, image: image.into(), events: Mutex::default(), good_for: Mutex::default() }
    }

    fn wear(&self) -> Result<(), BlockError> {
        match self.good_for.lock().expect("not poisoned").as_mut() {
            Some(0) => Err(BlockError::Medium),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl BlockBackend for Recorder {
    fn geometry(&self) -> Geometry {
        Geometry { capacity_sectors: self.sectors, block_bytes: 512, is_read_only: false }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry().check(Extent::of_bytes(first, into.len())?)?;
        let image = self.image.lock().expect("not poisoned");
        for (sector, bytes) in (first.0..).zip(into.chunks_mut(512)) {
            bytes.copy_from_slice(image.get(&sector).map_or(&[0; 512], |content| &**content));
        }
        Ok(())
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.geometry().check(Extent::of_bytes(first, from.len())?)?;
        self.wear()?;
        let mut image = self.image.lock().expect("not poisoned");
        let mut events = self.events.lock().expect("not poisoned");
        for (sector, bytes) in (first.0..).zip(from.chunks(512)) {
            let content: Arc<[u8; 512]> = Arc::new(bytes.try_into().expect("a sector"));
            image.insert(sector, Arc::clone(&content));
            events.push(Event::Write(sector, content));
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.wear()?;
        self.events.lock().expect("not poisoned").push(Event::Flush);
        Ok(())
    }

    fn discard(&self, _extent: Extent) -> Result<(), BlockError> {
        Ok(())
    }

    fn write_zeroes(&self, extent: Extent, _may_unmap: bool) -> Result<(), BlockError> {
        self.write(extent.first, &vec![0; extent.count as usize * 512])
    }
}

/// What a disk may hold after power loss: each sector whatever was last safe, or written to it since.
pub struct Wreck {
    safe: Image,
    unsafe_writes: BTreeMap<u64, Vec<Arc<[u8; 512]>>>,
}

/// Which of the unsafe writes survive.
#[derive(Clone, Copy, Debug)]
pub enum Survivors {
    None,
    All,
    /// Some, in any order, by a number that stands for chance.
    Some(u64),
}

impl Wreck {
    pub fn new(safe: Image) -> Self {
        Self { safe, unsafe_writes: BTreeMap::new() }
    }

    pub fn after(&mut self, event: &Event) {
        match event {
            Event::Write(sector, content) => {
                self.unsafe_writes.entry(*sector).or_default().push(Arc::clone(content));
            }
            Event::Flush => {
                for (sector, mut versions) in std::mem::take(&mut self.unsafe_writes) {
                    self.safe.insert(sector, versions.pop().expect("at least one"));
                }
            }
        }
    }

    pub fn image(&self, survivors: Survivors) -> Image {
        let mut image = self.safe.clone();
        let mut random = match survivors {
            Survivors::Some(seed) => Random::new(seed),
            Survivors::None | Survivors::All => Random::new(0),
        };
        for (sector, versions) in &self.unsafe_writes {
            let survivor = match survivors {
                Survivors::None => None,
                Survivors::All => versions.last(),
                Survivors::Some(_) => versions.get(random.index(versions.len() + 1)),
            };
            if let Some(content) = survivor {
                image.insert(*sector, Arc::clone(content));
            }
        }
        image
    }
}
