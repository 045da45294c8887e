//! The console server's program; see the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

dragonfly_rt::main!(dragonfly_console::run);
