//! The card's storage, from the outside.

mod blk;
mod encryption;
mod guest;
mod limits;
mod nbd;
mod power_loss;
mod ram;
mod recorder;
mod snapshots;
mod volumes;

use proptest::prelude::ProptestConfig;

/// A property's configuration. Failing cases are not stored: what they find becomes a test of its own.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
