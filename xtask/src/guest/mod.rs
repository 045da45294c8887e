//! Guests: what they are made of on the host's side, and how their consoles are shown.
//!
//! [`description`] is what the user asked for, [`initramfs`] the initial RAM disk of Linux guests, [`disk`] the disk of the
//! default guest, [`devices`] all disks and networks, [`bundle`] all of it with the programs that run it. [`stream`] is the serial line that carries the consoles; [`keys`], [`screen`] and
//! [`terminal`] are the user's side of them, [`plain`] that of pipes and files.

pub mod bundle;
pub mod description;
pub mod devices;
pub mod disk;
pub mod initramfs;
pub mod keys;
pub mod plain;
pub mod screen;
pub mod stream;
pub mod terminal;
