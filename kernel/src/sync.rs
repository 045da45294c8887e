//! The kernel's own atomics: the processor's. In tests other CPUs may act before and after each access, so that a
//! simulated machine comes through the orders in which they can happen.

#[cfg(not(test))]
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(test)]
pub use watched::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(test)]
mod watched {
    use core::sync::atomic::{self, Ordering};

    use crate::arch::fake::turns::may_switch;

    fn watch<T>(access: impl FnOnce() -> T) -> T {
        may_switch();
        let result = access();
        may_switch();
        result
    }

    macro_rules! watched {
        ($($name:ident $value:ty: { $($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)* })*) => { $(
            /// An atomic whose accesses let other CPUs act.
            pub struct $name(atomic::$name);

            #[expect(missing_docs, reason = "the methods are those of the processor's atomics")]
            impl $name {
                pub const fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                $(pub fn $method(&self, $($argument: $type),*) -> $result {
                    watch(|| self.0.$method($($argument),*))
                })*
            }
        )* };
    }

    watched! {
        AtomicBool bool: {
            load(order: Ordering) -> bool;
            store(value: bool, order: Ordering) -> ();
            swap(value: bool, order: Ordering) -> bool;
        }
        AtomicU8 u8: {
            load(order: Ordering) -> u8;
            store(value: u8, order: Ordering) -> ();
            compare_exchange(old: u8, new: u8, order: Ordering, failed: Ordering) -> Result<u8, u8>;
        }
        AtomicU32 u32: {
            load(order: Ordering) -> u32;
            store(value: u32, order: Ordering) -> ();
            swap(value: u32, order: Ordering) -> u32;
            fetch_or(value: u32, order: Ordering) -> u32;
            fetch_and(value: u32, order: Ordering) -> u32;
        }
        AtomicU64 u64: {
            load(order: Ordering) -> u64;
            store(value: u64, order: Ordering) -> ();
            swap(value: u64, order: Ordering) -> u64;
            fetch_add(value: u64, order: Ordering) -> u64;
            fetch_sub(value: u64, order: Ordering) -> u64;
            fetch_or(value: u64, order: Ordering) -> u64;
            fetch_and(value: u64, order: Ordering) -> u64;
            compare_exchange(old: u64, new: u64, order: Ordering, failed: Ordering) -> Result<u64, u64>;
        }
        AtomicUsize usize: {
            load(order: Ordering) -> usize;
            store(value: usize, order: Ordering) -> ();
            fetch_add(value: usize, order: Ordering) -> usize;
            fetch_sub(value: usize, order: Ordering) -> usize;
        }
    }
}
