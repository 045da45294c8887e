//! Guests: what they are made of on the host's side.
//!
//! [`initramfs`] builds the initial RAM disk of Linux guests.

pub mod initramfs;
