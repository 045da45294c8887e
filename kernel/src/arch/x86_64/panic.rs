//! The end of the kernel: what is said of a mistake of ours, and how the machine is stopped.
#![expect(unsafe_code, reason = "back-traces read the stack")]

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dragonfly_hw::x86::exception::Exception;

use super::context::Context;
use super::{apic, log, per_cpu, registers};
use crate::arch::Context as _;

/// How the emulator is told to end, from the command line's `exit=`.
static EXIT: AtomicU32 = AtomicU32::new(EXIT_NONE);
const EXIT_NONE: u32 = 0;
const EXIT_QEMU: u32 = 1;
const EXIT_BOCHS: u32 = 2;

/// QEMU's isa-debug-exit device: the status is twice the value plus one.
const QEMU_EXIT_PORT: u16 = 0xf4;
/// Bochs ends when it is sent "Shutdown" here.
const BOCHS_EXIT_PORT: u16 = 0x8900;
/// What a panic leaves with.
const EXIT_CODE: u32 = 0x7e;

/// How many frames of a back-trace are shown.
const MAX_FRAMES: usize = 32;
/// Where the kernel's stacks and image are: frame pointers elsewhere are not followed.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

static IS_PANICKING: AtomicBool = AtomicBool::new(false);

/// Whether some CPU is in a panic: then the others stop, and the log does without its lock.
pub fn is_panicking() -> bool {
    IS_PANICKING.load(Ordering::Relaxed)
}

/// Sets how the emulator is stopped.
pub fn set_exit(kind: &str) {
    match kind {
        "qemu" => EXIT.store(EXIT_QEMU, Ordering::Relaxed),
        "bochs" => EXIT.store(EXIT_BOCHS, Ordering::Relaxed),
        "none" => EXIT.store(EXIT_NONE, Ordering::Relaxed),
        other => ::log::warn!("unknown exit={other}: qemu, bochs or none"),
    }
}

/// An NMI that nobody in the kernel asked for.
pub fn note_nmi() {
    log::panic_line(format_args!("warn  non-maskable interrupt on CPU {}", per_cpu::id()));
}

/// A panic of the kernel's code.
pub fn panic(info: &PanicInfo) -> ! {
    let frame: u64;
    // SAFETY: Reading RBP has no effect.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    match info.location() {
        Some(location) => {
            end(format_args!("{} at {}:{}", info.message(), location.file(), location.line()), None, frame)
        }
        None => end(format_args!("{}", info.message()), None, frame),
    }
}

/// An exception in the kernel.
pub fn exception(context: &Context) -> ! {
    let state = context.state();
    let name = Exception::from_vector(context.entry() as u8).map_or("unknown exception", Exception::name);
    let address = x86_64::registers::control::Cr2::read_raw();
    end(format_args!("{name}, error code {:#x}, CR2 {address:#x}", context.error_code()), Some(context), state.rbp)
}

fn end(what: fmt::Arguments, context: Option<&Context>, frame: u64) -> ! {
    if IS_PANICKING.swap(true, Ordering::SeqCst) {
        // A panic in a panic, or on a second CPU.
        registers::halt();
    }
    log::panic_line(format_args!("panic: CPU {}: {what}", per_cpu::id()));
    for cpu in 0..per_cpu::count() {
        if cpu != per_cpu::id() {
            apic::send_nmi(cpu);
        }
    }
    if let Some(context) = context {
        let s = context.state();
        log::panic_line(format_args!("  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", s.rax, s.rbx, s.rcx, s.rdx));
        log::panic_line(format_args!("  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}", s.rsi, s.rdi, s.rbp, s.rsp));
        log::panic_line(format_args!("  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", s.r8, s.r9, s.r10, s.r11));
        log::panic_line(format_args!("  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}", s.r12, s.r13, s.r14, s.r15));
        log::panic_line(format_args!("  rip {:016x} rflags {:x}", s.rip, s.rflags));
        log::panic_line(format_args!("  #0 {:#018x}", s.rip));
    }
    back_trace(frame, usize::from(context.is_some()));
    log::panic_line(format_args!("dragonfly: exit {EXIT_CODE}"));
    match EXIT.load(Ordering::Relaxed) {
        EXIT_QEMU => registers::port_out(QEMU_EXIT_PORT, 4, EXIT_CODE),
        EXIT_BOCHS => {
            // Bochs ends with the last letter, whatever the serial port still holds.
            log::drain();
            b"Shutdown".iter().for_each(|&byte| registers::port_out(BOCHS_EXIT_PORT, 1, u32::from(byte)));
        }
        _ => {}
    }
    registers::halt()
}

/// Prints return addresses, from frame pointer to frame pointer.
fn back_trace(mut frame: u64, first: usize) {
    for number in first..first + MAX_FRAMES {
        if frame < KERNEL_HALF || !frame.is_multiple_of(8) || frame > u64::MAX - 16 {
            return;
        }
        // SAFETY: All kernel code keeps frame pointers, so this is a frame on the kernel's stack. Were it not, the
        // read could at worst fault, and a second panic halts.
        let (next, address) = unsafe { (*(frame as *const u64), *(frame as *const u64).add(1)) };
        if address == 0 {
            return;
        }
        // The call is before the return address.
        log::panic_line(format_args!("  #{number} {:#018x}", address - 1));
        if next <= frame {
            return;
        }
        frame = next;
    }
}
