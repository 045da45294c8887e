//! System Locality Information Table (ACPI 6.5, 5.2.17): relative distances between proximity domains.

use crate::problem::{Problem, TableFault};
use crate::table::Table;

const LOCALITIES: usize = 36;
const MATRIX: usize = 44;

/// Localities that are kept.
const CAPACITY: usize = 64;

/// Distance of a locality to itself; all others are relative to it.
pub const LOCAL_DISTANCE: u8 = 10;
/// Distance of localities that cannot reach each other.
pub const UNREACHABLE: u8 = 255;

/// The SLIT's content; no localities if the table is absent or corrupt.
#[derive(Debug)]
pub struct Slit {
    localities: usize,
    /// Row by row; only the first `localities` of each count.
    distances: [[u8; CAPACITY]; CAPACITY],
}

impl Slit {
    pub(crate) const ABSENT: Self = Self { localities: 0, distances: [[0; CAPACITY]; CAPACITY] };

    /// How many localities there are, at most 64.
    #[must_use]
    pub fn localities(&self) -> usize {
        self.localities
    }

    /// Relative distance between two proximity domains as the SRAT numbers them: [`LOCAL_DISTANCE`] for a domain and
    /// itself, more for others, up to [`UNREACHABLE`]. `None` if the table does not say.
    #[must_use]
    pub fn distance(&self, from_domain: u32, to_domain: u32) -> Option<u8> {
        let from = usize::try_from(from_domain).ok().filter(|from| *from < self.localities)?;
        let to = usize::try_from(to_domain).ok().filter(|to| *to < self.localities)?;
        self.distances.get(from)?.get(to).copied()
    }

    pub(crate) fn clear(&mut self) {
        self.localities = 0;
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(MATRIX)?;
        let impossible = TableFault::Value { field: "Number of System Localities" };
        let count = table.fields.u64(LOCALITIES).ok_or_else(|| table.wrong_length())?;
        let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(impossible)?;
        let size = count.checked_mul(count).ok_or(impossible)?;
        let matrix = table.fields.tail(MATRIX).and_then(|rest| rest.0.get(..size)).ok_or(impossible)?;

        for (from, row) in matrix.chunks_exact(count).enumerate() {
            for (to, distance) in row.iter().enumerate() {
                let sane = if from == to { *distance == LOCAL_DISTANCE } else { *distance > LOCAL_DISTANCE };
                if !sane {
                    let offset = MATRIX.saturating_add(from.saturating_mul(count)).saturating_add(to);
                    return Err(TableFault::EntryValue { offset, field: "distance" });
                }
            }
        }
        for (kept, row) in self.distances.iter_mut().zip(matrix.chunks_exact(count)) {
            for (kept, distance) in kept.iter_mut().zip(row) {
                *kept = *distance;
            }
        }
        self.localities = count.min(CAPACITY);
        if let Some(dropped @ 1..) = count.checked_sub(CAPACITY) {
            report(Problem::Truncated { signature: table.signature, list: "localities", capacity: CAPACITY, dropped });
        }
        Ok(())
    }
}
