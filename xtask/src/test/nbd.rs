//! A disk behind a socket that loses its power.

pub use dragonfly_nbd_server::Server;
