//! Network devices of machine files as virtio-net devices (virtio 1.2 5.1) at ports of the card's switch.
//!
//! - `device`: [`NetDevice`], and who serves which of its queues. `transmit`, `receive`: the pairs of queues.
//! - `control`, `filter`, `steering`: the control queue, where it is the card's, and what it sets. `memory`: where that is kept.
//! - `features`, `header`: what was negotiated, and what is left to do about each frame.
//! - `fabric`: [`Fabric`], the switch with its ports. `delivery`: what it decides. `receiver`: frames that wait.
//! - `frame`, `pool`: frames and their memory.
//!
//! A frame is copied twice: out of the sender's memory, as the switch must read what cannot change, and into the
//! receiver's. Between, it waits in a bounded queue of the receiver's. It is copied once more for each further receiver,
//! and twice where it is changed: cut into segments for one that does not take it whole.
//!
//! Frames move in bursts, for which the rings' lines and the buffers' first ones are fetched together.

mod control;
mod delivery;
mod device;
mod fabric;
mod features;
mod filter;
mod frame;
mod header;
mod memory;
mod pool;
mod receive;
mod receiver;
mod steering;
mod transmit;

use self::features::Features;
pub use self::{
    device::{Control, NetDevice},
    fabric::{Fabric, PortError, Unfinished},
};

/// What comes before the packet in a frame: Ethernet's header and two tags.
const LINK_HEADER: usize = 14 + 8;
/// The longest frame, one that is to be cut: IP's lengths have 16 bits.
const LONGEST_FRAME: usize = u16::MAX as usize + LINK_HEADER;
/// Frames taken from or given to a ring in one turn.
const BATCH: usize = 64;
