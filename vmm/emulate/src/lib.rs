//! Emulation of the guest instructions that touch devices.
#![no_std]
#![forbid(unsafe_code)]
