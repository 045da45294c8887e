//! What fuzz targets share.

use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::Random;

/// The end of a fuzz target's work that begins now: after `DRAGONFLY_FUZZ_SECONDS` seconds, 2 if that is not set.
///
/// # Panics
/// If the variable is not a number: a run that silently took two seconds would read as a long one.
#[must_use]
pub fn fuzz_end() -> Instant {
    let seconds = std::env::var("DRAGONFLY_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("a number of seconds"));
    Instant::now() + Duration::from_secs(seconds)
}

/// Damages a text in a few places: cuts it off, drops or repeats a part, inserts one of `pieces`, changes a byte.
pub fn damage_text(bytes: &mut Vec<u8>, pieces: &[&str], random: &mut Random) {
    for _ in 0..=random.index(3) {
        let at = random.index(bytes.len());
        let end = at + random.index((bytes.len() - at).min(12));
        match random.index(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                let to = random.index(bytes.len());
                bytes.splice(to..to, part).for_each(drop);
            }
            3 => bytes.splice(at..at, random.choose(pieces).bytes()).for_each(drop),
            _ => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.number() as u8),
        }
    }
}
