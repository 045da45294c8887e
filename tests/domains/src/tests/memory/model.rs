//! Random mappings against a model of what each page holds.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{PAGE_SIZE, Rights};
use dragonfly_random::Random;
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, Memory};

use super::RW;
use crate::check::{Outcome, equal};
use crate::tests::Context;

/// Random mappings of one object in this domain, beside a model of what each page holds.
pub fn model(context: &Context) -> Outcome {
    const PAGES: u64 = 1200;
    let mut random = Random::new(context.options.seed.unwrap_or(3));
    let memory = Memory::create(PAGES * PAGE_SIZE, Commit::OnDemand)?;
    let mut content = vec![0_u64; PAGES as usize];
    let mut mappings: Vec<(u64, Mapping, bool)> = Vec::new();
    for step in 1..=context.repeat(1000, 10_000, 200_000) {
        match random.below(10) {
            0 | 1 => {
                let first = random.below(PAGES);
                let most = random.choose(&[1, 8, 600]);
                let pages = 1 + random.below((PAGES - first).min(most));
                let is_writable = random.once_in(2);
                let rights = if is_writable { RW } else { Rights::READ };
                let mapping = Mapping::new(*memory, first * PAGE_SIZE, pages * PAGE_SIZE, rights)?;
                mappings.push((first, mapping, is_writable));
            }
            2 if !mappings.is_empty() => {
                drop(mappings.swap_remove(random.below(mappings.len() as u64) as usize));
            }
            3 => {
                let first = random.below(PAGES);
                memory.commit(first * PAGE_SIZE, (1 + random.below((PAGES - first).min(16))) * PAGE_SIZE)?;
            }
            _ if !mappings.is_empty() => {
                let Some((first, mapping, is_writable)) = mappings.get(random.below(mappings.len() as u64) as usize)
                else {
                    continue;
                };
                let page = random.below(mapping.size() / PAGE_SIZE);
                let word = mapping.word(page * PAGE_SIZE)?;
                let Some(wanted) = content.get_mut((first + page) as usize) else { continue };
                equal(format_args!("page {} in step {step}", first + page), word.load(Ordering::Relaxed), *wanted)?;
                if *is_writable {
                    *wanted = step;
                    word.store(step, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        if mappings.len() > 40 {
            mappings.clear();
        }
    }
    equal("mappings", memory.info()?.mappings, mappings.len() as u64)
}
