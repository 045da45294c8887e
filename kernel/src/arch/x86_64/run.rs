//! What the entry code calls: from here on it is the kernel above the architecture.
#![expect(unsafe_code, reason = "it claims this CPU's data and leaves through machine code")]

use dragonfly_abi::Rights;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_memory::UserVirt;

use super::context::Context;
use super::per_cpu::{self, PerCpu};
use super::{KERNEL, apic, entry, interrupts, panic, registers};
use crate::fault::Fault;
use crate::system_call::Return;

/// Page-fault error code: the access was a write (SDM 3A, figure "Page-Fault Error Code").
const PAGE_FAULT_WRITE: u64 = 1 << 1;
/// Page-fault error code: the access was an instruction fetch.
const PAGE_FAULT_FETCH: u64 = 1 << 4;

/// What a direct return gives back in RAX and RDX.
#[repr(C)]
pub struct Direct {
    status: u64,
    word: u64,
}

/// A system call. Returns to the same thread, or leaves with the registers of another.
pub extern "sysv64" fn syscall(w0: u64, w1: u64, w2: u64, w3: u64, w4: u64, w5: u64, number: u64) -> Direct {
    // SAFETY: The entry code calls this once per entry, and nothing in the kernel is on the stack below.
    let this = unsafe { per_cpu::this() };
    match KERNEL.system_call(this.cpu(), number, [w0, w1, w2, w3, w4, w5]) {
        Return::Direct(status, word) => Direct { status: status as u64, word },
        Return::Selected => leave(this),
    }
}

/// An interrupt or exception while a domain ran.
pub extern "sysv64" fn interrupt(context: &'static Context) -> ! {
    // SAFETY: As in `syscall`.
    let this = unsafe { per_cpu::this() };
    match u8::try_from(context.entry()).ok().map(|vector| (vector, Exception::from_vector(vector))) {
        Some((_, Some(exception))) => KERNEL.fault(this.cpu(), fault_of(exception, context)),
        Some((vector, None)) => interrupts::dispatch(this.cpu(), vector),
        None => {}
    }
    leave(this)
}

/// What an exception of a domain means.
fn fault_of(exception: Exception, context: &Context) -> Fault {
    let (number, code) = (u64::from(exception.vector()), context.error_code());
    match exception {
        Exception::PageFault => {
            let access = match code {
                code if code & PAGE_FAULT_FETCH != 0 => Rights::EXECUTE,
                code if code & PAGE_FAULT_WRITE != 0 => Rights::WRITE,
                _ => Rights::READ,
            };
            let address = x86_64::registers::control::Cr2::read_raw();
            Fault::Page { address: UserVirt::new(address), access }
        }
        Exception::InvalidOpcode | Exception::DeviceNotAvailable | Exception::GeneralProtection => {
            Fault::IllegalInstruction { number, code }
        }
        _ => Fault::Exception { number, code },
    }
}

/// An interrupt while this CPU was idle, or an exception in the kernel. The latter is a mistake of ours.
pub extern "sysv64" fn kernel_interrupt(frame: &'static Context) -> ! {
    let vector = frame.entry() as u8;
    if Exception::from_vector(vector).is_some() {
        panic::exception(frame);
    }
    // SAFETY: The kernel has interrupts on only while it idles, and then borrows nothing.
    let this = unsafe { per_cpu::this() };
    interrupts::dispatch(this.cpu(), vector);
    leave(this)
}

/// NMI, double fault, machine check: at any instruction, so nothing of the kernel may be touched.
pub extern "sysv64" fn paranoid_interrupt(frame: &'static Context) {
    match Exception::from_vector(frame.entry() as u8) {
        // A panic stops the other CPUs by NMI.
        Some(Exception::Nmi) if panic::is_panicking() => registers::halt(),
        Some(Exception::Nmi) => panic::note_nmi(),
        _ => panic::exception(frame),
    }
}

/// Leaves the kernel: to the thread that is to run, or into idleness.
fn leave(this: &'static mut PerCpu) -> ! {
    loop {
        if KERNEL.select(this.cpu()) {
            if let Some(current) = &this.cpu().current {
                // The context lives as long as its thread, which is current until the kernel is entered again.
                let context: *const Context = &raw const current.context;
                // SAFETY: See above; `select` has made the address space active.
                unsafe {
                    this.set_context(&*context);
                    entry::resume(&*context);
                }
            }
            continue;
        }
        this.set_no_context();
        // SAFETY: There is no current thread and nothing left to do here.
        unsafe { entry::idle() };
    }
}

/// Starts to schedule on this CPU.
pub fn start() -> ! {
    apic::start_on_this_cpu();
    // SAFETY: The set-up code gives the CPU away here and borrows nothing of it.
    leave(unsafe { per_cpu::this() })
}
