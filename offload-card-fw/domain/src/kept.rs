//! Orders that outlive the card: its successor obeys them before it serves anybody.
//!
//! They are in memory that the supervisor gives to each card in turn (`keep` in `bundle.toml`). What a card that died has left
//! there is checked as an order is that comes over the console.

use alloc::vec::Vec;

use dragonfly_abi::{Rights, Status};
use dragonfly_bundle::KEPT_NAME;
use dragonfly_card_devices::kept::{self, Area};
use dragonfly_rt::sys::Memory;
use dragonfly_rt::{Mapping, named};

/// The latest order for each machine.
pub(crate) struct KeptOrders<A> {
    area: Option<A>,
    generation: u64,
    orders: Vec<Vec<u8>>,
    has_predecessor: bool,
}

/// The supervisor's memory, mapped.
pub(crate) struct Kept(Mapping);

impl Kept {
    /// Maps the memory; none if the supervisor has given none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn find() -> Result<Option<Self>, Status> {
        let Some(memory) = named::<Memory>(KEPT_NAME) else { return Ok(None) };
        let size = memory.info()?.size;
        Mapping::new(memory, 0, size, Rights::READ | Rights::WRITE).map(|mapping| Some(Self(mapping)))
    }
}

impl Area for Kept {
    fn size(&self) -> usize {
        self.0.size() as usize
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        self.0.read(offset as u64, into).is_ok()
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        self.0.write(offset as u64, bytes).is_ok()
    }
}

impl<A: Area> KeptOrders<A> {
    /// What there is in the area. From now on it shows that there was a card.
    pub(crate) fn new(area: Option<A>) -> Self {
        let found = area.as_ref().and_then(kept::find);
        let has_predecessor = found.is_some();
        let found = found.unwrap_or_default();
        let mut kept = Self { area, generation: found.generation, orders: found.records, has_predecessor };
        kept.write();
        kept
    }

    /// Whether the card was started anew, in the place of one that guests have used.
    pub(crate) const fn has_predecessor(&self) -> bool {
        self.has_predecessor
    }

    /// The orders, each as it was given.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &[u8]> {
        self.orders.iter().map(Vec::as_slice)
    }

    /// Keeps an order in the place of the one before it with the same first line. False if there is no room, or no area: a
    /// successor obeys the ones that were kept before.
    pub(crate) fn keep(&mut self, order: Vec<u8>) -> bool {
        match self.orders.iter_mut().find(|kept| first_line(kept) == first_line(&order)) {
            Some(kept) => *kept = order,
            None => self.orders.push(order),
        }
        self.write()
    }

    /// Writes all orders into the area. False if there is no room, or no area.
    fn write(&mut self) -> bool {
        let Some(area) = &self.area else { return false };
        let next = kept::keep(area, self.generation, self.orders.iter().map(Vec::as_slice));
        self.generation = next.unwrap_or(self.generation);
        next.is_some()
    }
}

fn first_line(order: &[u8]) -> &[u8] {
    order.split(|byte| *byte == b'\n').next().unwrap_or_default()
}
