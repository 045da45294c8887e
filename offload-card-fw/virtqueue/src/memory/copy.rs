//! Copies between guest memory and the device's own, of which nothing is read again once they are done.
//!
//! An ordinary copy would not do: the compiler may merge it with later reads of the copy, and so fetch again from guest
//! memory what was checked already. Volatile accesses and an opaque instruction are neither merged nor repeated.

/// Above so many bytes one string instruction is faster than a loop, also where lines are another CPU's.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const STRING_COPY: usize = 256;

/// A word at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Copies `len` bytes.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and nothing but guests writes either meanwhile. They
/// may overlap only if both are guest memory; what is copied is unspecified then.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len > STRING_COPY {
        // SAFETY: The caller vouches for both ranges; the direction flag is clear in Rust code.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rsi") from => _,
                inout("rdi") to => _,
                inout("rcx") len => _,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    // Without loops where there can be: the last bytes are copied once more with those before them.
    // SAFETY: In each case the offsets and sizes stay below `len`, for which the caller vouches.
    unsafe {
        match len {
            64.. => {
                let mut at = 0;
                while len - at > 64 {
                    copy_line(from.add(at), to.add(at));
                    at += 64;
                }
                copy_line(from.add(len - 64), to.add(len - 64));
            }
            16.. => {
                if len > 32 {
                    copy_word(from.add(16), to.add(16));
                    copy_word(from.add(len - 32), to.add(len - 32));
                }
                copy_word(from, to);
                copy_word(from.add(len - 16), to.add(len - 16));
            }
            8.. => {
                copy_one::<u64>(from, to);
                copy_one::<u64>(from.add(len - 8), to.add(len - 8));
            }
            4.. => {
                copy_one::<u32>(from, to);
                copy_one::<u32>(from.add(len - 4), to.add(len - 4));
            }
            _ => {
                for at in 0..len {
                    copy_one::<u8>(from.add(at), to.add(at));
                }
            }
        }
    }
}

/// Copies 16 bytes: in one access where the compiler has registers for it, as a volatile number of 16 bytes takes two.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of 16 bytes, at any alignment.
#[inline(always)]
unsafe fn copy_word(from: *const u8, to: *mut u8) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
    // SAFETY: The caller vouches for both ranges; nothing else is accessed.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{from}]",
            "movdqu [{to}], {a}",
            from = in(reg) from,
            to = in(reg) to,
            a = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(miri))))]
    // SAFETY: As the caller says.
    unsafe {
        copy_one::<u128>(from, to);
    }
}

/// Copies 64 bytes: by registers of 16 where the compiler has such, as it takes a volatile value of 64 bytes to its stack.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of 64 bytes, at any alignment.
#[inline(always)]
unsafe fn copy_line(from: *const u8, to: *mut u8) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
    // SAFETY: The caller vouches for both ranges; nothing else is accessed.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movdqu [{to}], {a}",
            "movdqu [{to} + 16], {b}",
            "movdqu [{to} + 32], {c}",
            "movdqu [{to} + 48], {d}",
            from = in(reg) from,
            to = in(reg) to,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(miri))))]
    // SAFETY: As the caller says.
    unsafe {
        copy_one::<[u128; 4]>(from, to);
    }
}

/// Copies one `T`.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of a `T`, at any alignment. Any bytes are a `T`.
#[inline(always)]
unsafe fn copy_one<T: Copy>(from: *const u8, to: *mut u8) {
    // SAFETY: As the caller says; the packed wrapper needs no alignment.
    unsafe { to.cast::<Unaligned<T>>().write_volatile(from.cast::<Unaligned<T>>().read_volatile()) }
}

/// Reads eight bytes.
///
/// # Safety
/// `from` is valid for reads of eight bytes, at any alignment.
#[inline(always)]
pub(super) unsafe fn load(from: *const u8) -> u64 {
    // SAFETY: As the caller says; the packed wrapper needs no alignment.
    unsafe { from.cast::<Unaligned<u64>>().read_volatile().0 }
}

/// Writes eight bytes.
///
/// # Safety
/// `to` is valid for writes of eight bytes, at any alignment.
#[inline(always)]
pub(super) unsafe fn store(to: *mut u8, word: u64) {
    // SAFETY: As the caller says; the packed wrapper needs no alignment.
    unsafe { to.cast::<Unaligned<u64>>().write_volatile(Unaligned(word)) }
}

/// Sets `len` bytes to zero.
///
/// # Safety
/// `to` is valid for writes of `len` bytes.
#[inline]
pub(super) unsafe fn zero(to: *mut u8, len: usize) {
    let mut at = 0;
    while len - at >= 8 {
        // SAFETY: `at + 8 <= len`.
        unsafe { to.add(at).cast::<Unaligned<u64>>().write_volatile(Unaligned(0)) };
        at += 8;
    }
    while at < len {
        // SAFETY: `at < len`.
        unsafe { to.add(at).write_volatile(0) };
        at += 1;
    }
}
