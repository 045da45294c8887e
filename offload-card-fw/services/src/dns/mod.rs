//! The DNS server (RFC 1035): the network's own names from a table, others from a resolver outside.

mod forward;
mod message;
mod name;
mod zone;

pub use self::{
    forward::{Forwarder, Hop, QUERIES_PER_NET, Query},
    message::{Question, error, records, refuse_unreadable},
    name::Name,
    zone::{Verdict, Zone},
};

/// The server's port (RFC 1035 4.2.1).
pub const PORT: u16 = 53;
