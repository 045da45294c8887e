//! How tables are reached.

/// Read access to the physical memory that firmware tables lie in.
///
/// The owner of the platform implements it over its direct map and decides what may be read at all: a table address
/// is firmware's claim and may point anywhere, device registers included.
pub trait TableMemory {
    /// The `length` bytes at host-physical `address`, or `None` if any of them lies outside memory that may be read.
    ///
    /// The bytes must not change while they are borrowed: a table is validated once and then read.
    fn map(&self, address: u64, length: usize) -> Option<&[u8]>;
}
