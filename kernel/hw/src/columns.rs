//! Macros that let definitions stand in columns: name, value, meaning.

/// Constants of one type.
macro_rules! constants {
    ($($type:ty { $($name:ident $value:literal $doc:literal)* })*) => {
        $($(#[doc = $doc] pub const $name: $type = $value;)*)*
    };
}

/// Bit flags: name, bit number, meaning.
macro_rules! flags {
    ($($(#[$attribute:meta])* $flags:ident: $type:ty { $($name:ident $bit:literal $doc:literal)* })*) => {
        $(bitflags::bitflags! {
            $(#[$attribute])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $flags: $type {
                $(#[doc = $doc] const $name = 1 << $bit;)*
                // Reserved bits may be set by hardware to come; none is lost by reading and writing back.
                const _ = !0;
            }
        })*
    };
}
