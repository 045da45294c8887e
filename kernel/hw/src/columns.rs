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

/// Bit flags, as [`flags`], that are a field of a structure in memory.
macro_rules! stored_flags {
    ($($(#[$attribute:meta])* $flags:ident: $type:ty { $($name:ident $bit:literal $doc:literal)* })*) => {
        $(
            $(#[$attribute])*
            #[derive(
                Clone, Copy, PartialEq, Eq, Debug,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(transparent)]
            pub struct $flags($type);

            bitflags::bitflags! {
                impl $flags: $type {
                    $(#[doc = $doc] const $name = 1 << $bit;)*
                    const _ = !0;
                }
            }
        )*
    };
}

/// A number of which hardware may give values that are not listed: name, value, meaning.
macro_rules! open_numbers {
    ($($(#[$attribute:meta])* $number:ident: $type:ty { $($name:ident $value:literal $doc:literal)* })*) => {
        $(
            $(#[$attribute])*
            #[derive(
                Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(transparent)]
            pub struct $number(pub $type);

            impl $number {
                $(#[doc = $doc] pub const $name: Self = Self($value);)*

                /// The manual's name; `None` for a value that is not listed.
                #[must_use]
                pub const fn name(self) -> Option<&'static str> {
                    match self.0 {
                        $($value => Some(stringify!($name)),)*
                        _ => None,
                    }
                }
            }
        )*
    };
}
