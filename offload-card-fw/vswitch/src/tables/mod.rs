//! The tables: bounded, made once, never allocating while frames pass.

mod bounded;
mod flow_cache;
mod hash;
mod macs;

pub use self::{
    bounded::{BoundedTable, Slot},
    flow_cache::{CachedConnection, CachedFlow, FlowCache},
    hash::Hasher,
    macs::{Learned, MacTable, Sighting},
};
