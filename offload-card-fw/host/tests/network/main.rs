//! The card's way out, beside Linux's own network and Open vSwitch: each test in a network namespace of its own, which needs
//! no rights but to have one.
//!
//! The environment says where tools are: `DRAGONFLY_OVS` is the folder of Open vSwitch's programs, `DRAGONFLY_OVS_SCHEMA`
//! its database's schema. `ip` and `unshare` are those of the system.

#[path = "../card/front_end.rs"]
#[expect(dead_code, reason = "disks' requests are for other tests")]
mod front_end;
mod guest;
mod interfaces;
mod namespace;
mod open_vswitch;
#[path = "../card/setup.rs"]
#[expect(dead_code, reason = "disks are for other tests")]
mod setup;
mod station;
mod tunnels;
