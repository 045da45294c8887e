//! Network devices and the switch between them, with drivers of the tests' own.

mod control;
mod fabric;
mod offloads;
mod packets;
mod receiving;
mod station;
