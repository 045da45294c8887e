//! The smallest machine on KVM that the measuring guest runs in: what Dragonfly's own machine is compared with.
//!
//! It is as KVM's users build theirs: interrupt controllers in the kernel, one thread for each vCPU, memory that the
//! host commits when it is touched, and the host's CPUID as far as KVM supports it. Its devices are a serial port that
//! writes to standard output and a power-off register; everything else is ignored, so that an exit to it costs what
//! KVM costs and next to nothing more.

pub mod devices;
pub mod image;
pub mod life;
pub mod machine;
pub mod memory;
pub mod start;
pub mod ticks;
