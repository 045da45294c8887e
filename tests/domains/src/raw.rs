//! System calls with nothing in between: any number, any words, and every register looked at afterwards.
#![expect(unsafe_code, reason = "a test of the kernel makes calls that a program does not")]

use core::arch::naked_asm;

use dragonfly_abi::{Call, Status};
use dragonfly_rt::sys;

/// Makes a call; missing words are zero. `Ok` has the words that came back.
///
/// # Errors
/// The status. One that does not exist shows as [`Status::BadCall`], which no existing call gives.
pub fn call(call: Call, words: &[u64]) -> Result<[u64; 6], Status> {
    let (status, words) = number(call as u64, padded(words));
    match Status::from_raw(status) {
        Some(Status::Ok) => Ok(words),
        other => Err(other.unwrap_or(Status::BadCall)),
    }
}

/// The same call until the kernel has done all of its parts.
///
/// # Errors
/// As [`call`], but for [`Status::Again`].
pub fn call_until_done(number: Call, words: &[u64]) -> Result<[u64; 6], Status> {
    loop {
        match call(number, words) {
            Err(Status::Again) => {}
            done => return done,
        }
    }
}

/// Makes the call of any number; gives the raw status and the words.
#[must_use]
pub fn number(number: u64, words: [u64; 6]) -> (u64, [u64; 6]) {
    if let Ok(number) = u32::try_from(number) {
        // SAFETY: what a test unmaps or runs are addresses at which it has put nothing of Rust's.
        return unsafe { sys::raw(number, words) };
    }
    let after = registers_after(number, words);
    (after.status, after.words)
}

/// Up to six words, the others zero.
#[must_use]
pub fn padded(words: &[u64]) -> [u64; 6] {
    let mut padded = [0; 6];
    for (word, given) in padded.iter_mut().zip(words) {
        *word = *given;
    }
    padded
}

/// Every general register after a call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct After {
    /// RAX.
    pub status: u64,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub words: [u64; 6],
    /// RBX, RBP, R12 to R15, which a call keeps.
    pub kept: [u64; 6],
    /// RCX and R11, which a call does not keep.
    pub clobbered: [u64; 2],
    /// By how much RSP has moved.
    pub stack_moved: u64,
}

/// What [`registers_after`] puts into the registers that a call keeps.
pub const KEPT: [u64; 6] = [0xb0b0_1111, 0xb0b0_2222, 0xb0b0_3333, 0xb0b0_4444, 0xb0b0_5555, 0xb0b0_6666];

/// Makes a call with [`KEPT`] in the registers that it keeps.
#[must_use]
pub fn registers_after(number: u64, words: [u64; 6]) -> After {
    let mut after = After::default();
    // SAFETY: both references are good for as long as the function runs; the call itself as in `number`.
    unsafe { call_and_store(number, &words, &mut after) };
    after
}

/// # Safety
/// The call must not take away memory that Rust code relies on.
#[unsafe(naked)]
unsafe extern "C" fn call_and_store(number: u64, words: &[u64; 6], after: &mut After) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        "push rsp",
        "mov rax, rdi",
        "mov r11, rsi",
        "mov rdi, [r11]",
        "mov rsi, [r11 + 8]",
        "mov rdx, [r11 + 16]",
        "mov r10, [r11 + 24]",
        "mov r8, [r11 + 32]",
        "mov r9, [r11 + 40]",
        "mov ebx, 0xb0b01111",
        "mov ebp, 0xb0b02222",
        "mov r12d, 0xb0b03333",
        "mov r13d, 0xb0b04444",
        "mov r14d, 0xb0b05555",
        "mov r15d, 0xb0b06666",
        "syscall",
        // RSP may be wrong after a faulty kernel; then the pushes below fault or the difference shows.
        "push rcx",
        "mov rcx, [rsp + 16]",
        "mov [rcx], rax",
        "mov [rcx + 8], rdi",
        "mov [rcx + 16], rsi",
        "mov [rcx + 24], rdx",
        "mov [rcx + 32], r10",
        "mov [rcx + 40], r8",
        "mov [rcx + 48], r9",
        "mov [rcx + 56], rbx",
        "mov [rcx + 64], rbp",
        "mov [rcx + 72], r12",
        "mov [rcx + 80], r13",
        "mov [rcx + 88], r14",
        "mov [rcx + 96], r15",
        "pop rax",
        "mov [rcx + 104], rax",
        "mov [rcx + 112], r11",
        "pop rax",
        "sub rax, rsp",
        "mov [rcx + 120], rax",
        "pop rdx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}
