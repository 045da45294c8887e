//! What a session needs of the system it runs on.

use core::fmt::{Debug, Display};

use crate::{memory_table::Region, wire::InflightArea};

/// The most resources that come with one message: a memory table has that many regions.
pub const MAX_RESOURCES: usize = 8;

/// Maps the guest's memory, and signals both ways.
pub trait Platform {
    /// What comes along with messages: file descriptors, or handles.
    type Resource;
    /// Why memory cannot be mapped.
    type Error: Debug + Display;

    /// Maps a region and makes it part of the guest's memory. It overlaps none that is mapped.
    ///
    /// # Errors
    /// The resource is not one that can be mapped, or is shorter than the region.
    fn map(&mut self, region: &Region, resource: Self::Resource) -> Result<(), Self::Error>;

    /// Takes a region out of the guest's memory. No ring runs.
    fn unmap(&mut self, region: &Region);

    /// What tells of new buffers in a ring from now on; without any, a ring that runs is to be polled.
    fn set_kick(&mut self, index: u16, kick: Option<Self::Resource>);

    /// What tells the guest of used buffers from now on; without any, it polls.
    fn set_call(&mut self, index: u16, call: Option<Self::Resource>);

    /// What tells the front end that a ring is broken from now on.
    fn set_err(&mut self, index: u16, err: Option<Self::Resource>);

    /// What tells the front end from now on that the configuration space has changed
    /// (`VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`). It is told once at first, of changes before. Only for devices that offer
    /// [`BACKEND_REQ`](crate::ProtocolFeatures::BACKEND_REQ).
    fn set_back_end_channel(&mut self, channel: Self::Resource) {
        drop(channel);
    }

    /// Makes an area of zeroes for the state of requests under way, which outlives the session, and uses it. Each of its
    /// queues has an equal part of its bytes.
    ///
    /// # Errors
    /// There is no memory for it.
    fn make_inflight(&mut self, area: &InflightArea) -> Result<Inflight<Self::Resource>, Self::Error>;

    /// Uses an area for the state of requests under way that was made for an earlier session.
    ///
    /// # Errors
    /// It cannot be mapped, or is shorter than it says.
    fn map_inflight(&mut self, area: &InflightArea, resource: Self::Resource) -> Result<(), Self::Error>;
}

/// An area for the state of requests under way, made for a front end to keep.
#[derive(Debug)]
pub struct Inflight<R> {
    /// For the front end.
    pub resource: R,
    /// Where in the resource it begins.
    pub offset: u64,
}
