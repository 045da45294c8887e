//! The card's program; see the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

dragonfly_rt::main!(dragonfly_card_domain::run);
