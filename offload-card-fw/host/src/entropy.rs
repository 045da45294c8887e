//! Linux's random numbers.

use dragonfly_card_devices::Entropy;
use rustix::rand::{GetRandomFlags, getrandom};

/// What `/dev/urandom` gives once it is filled.
#[derive(Clone, Copy, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, into: &mut [u8]) -> bool {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match getrandom(rest, GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // A kernel, or what guards the process, that has none.
                Err(_) => return false,
            }
        }
        true
    }
}
