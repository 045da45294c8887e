//! Network devices and the switch between them, with drivers of the tests' own.

#[path = "../common/mod.rs"]
mod common;
mod control;
mod fabric;
mod next_card;
mod offloads;
mod packets;
mod receiving;
mod station;
