//! Security groups: which packets a guest may send and receive.
//!
//! A port's [`Filter`] judges every packet from and to its guest: first by the [`Connection`]s that it knows, then by
//! the [`Rule`]s of the port's groups. What no rule speaks of is denied. Each port has a filter of its own, with its
//! own places for connections and fragments, so that no guest's traffic uses up another's.

mod connection;
mod filter;
mod fragments;
mod rules;
mod tcp;

pub use self::{
    connection::{State, Timeouts},
    filter::FilterConfig,
    rules::{Action, Direction, GroupId, Ports, Rule, Service},
};
pub(crate) use self::{
    filter::{Filter, Judged, Passage, Refusal},
    rules::{Groups, RuleRef, RuleSet},
};
