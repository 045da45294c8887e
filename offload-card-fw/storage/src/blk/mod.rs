//! The virtio block device (virtio 1.2 5.2).
//!
//! - `config`: features and the configuration space.
//! - `device`: [`BlockDevice`], which the queues of a device share: its disk, its limits, what the driver negotiated.
//! - `request`: one request: decoded whole, then performed.
//! - `queue`: [`RequestQueue`], which serves one queue.
//!
//! What is wrong with a request is the driver's fault: it gets a status and harms nothing else. Only a broken ring stops a
//! queue.

mod config;
mod device;
mod queue;
mod request;

pub use config::{CONFIG_BYTES, Features};
pub use device::{BlockDevice, ID_BYTES, Settings};
pub use queue::{RequestQueue, Served};
pub use request::{Action, Request, Status};
