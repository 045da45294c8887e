//! What orders memory: the processor's, or loom's model of it under `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
