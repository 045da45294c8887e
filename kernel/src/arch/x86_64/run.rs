//! What the entry code calls: from here on it is the kernel above the architecture.
#![expect(unsafe_code, reason = "it claims this CPU's data and leaves through machine code")]

use dragonfly_abi::{Call, Rights, Status};
use dragonfly_hw::x86::exception::Exception;
use dragonfly_memory::UserVirt;

use super::context::{Context, ENTRY_SYSCALL};
use super::per_cpu::{self, PerCpu};
use super::{KERNEL, apic, entry, guest, interrupts, panic, registers};
use crate::arch::Context as _;
use crate::fault::Fault;
use crate::system_call::Return;
use crate::vcpu::AfterGuest;

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
    if number == Call::Nop as u64 {
        return Direct { status: Status::Ok as u64, word: 0 };
    }
    if number == Call::Call as u64 {
        call(w0, w1, w2, w3, w4, w5);
    }
    if number == Call::ReplyReceive as u64 {
        reply_receive(w0, w1, w2, w3, w4, w5);
    }
    if number == Call::VcpuRun as u64 {
        return vcpu_run(w0, w1);
    }
    general(w0, w1, w2, w3, w4, w5, number)
}

/// A call to a gate.
#[inline(never)]
extern "sysv64" fn call(w0: u64, w1: u64, w2: u64, w3: u64, w4: u64, w5: u64) -> ! {
    // SAFETY: The entry code leads here once per entry, and nothing in the kernel is on the stack below.
    let this = unsafe { per_cpu::this() };
    if KERNEL.fast_call(this.cpu(), w0, w1, [w2, w3, w4, w5]) {
        leave_fast(this);
    }
    slow(this, [w0, w1, w2, w3, w4, w5], Call::Call)
}

/// An answer, and the next message.
#[inline(never)]
extern "sysv64" fn reply_receive(w0: u64, w1: u64, w2: u64, w3: u64, w4: u64, w5: u64) -> ! {
    // SAFETY: As in `call`.
    let this = unsafe { per_cpu::this() };
    if KERNEL.fast_reply_receive(this.cpu(), w0, w1, [w2, w3, w4, w5]) {
        leave_fast(this);
    }
    slow(this, [w0, w1, w2, w3, w4, w5], Call::ReplyReceive)
}

/// What the fast paths leave over.
#[cold]
#[inline(never)]
fn slow(this: &'static mut PerCpu, words: [u64; 6], call: Call) -> ! {
    if let Return::Direct(status, word) = KERNEL.system_call(this.cpu(), call as u64, words)
        && let Some(current) = &this.cpu().current
    {
        current.context.set_results(status, [word, 0, 0, 0, 0, 0]);
    }
    leave(this)
}

/// Leaves for the thread that a fast path has made current: it waits in a system call.
#[inline]
fn leave_fast(this: &'static mut PerCpu) -> ! {
    KERNEL.enter_current(this.cpu());
    match &this.cpu().current {
        Some(current) => {
            let context: *const Context = &raw const current.context;
            // SAFETY: As in `leave`; the thread came into the kernel by a system call.
            unsafe {
                this.set_context(&*context);
                entry::resume_call(&*context);
            }
        }
        None => leave(this),
    }
}

/// A guest is to run: the call that counts once there are guests.
#[inline(never)]
extern "sysv64" fn vcpu_run(w0: u64, w1: u64) -> Direct {
    // SAFETY: As in `call`.
    let this = unsafe { per_cpu::this() };
    match KERNEL.vcpu_run(this.cpu(), w0, w1) {
        Ok(after) => {
            after_guest(this, after);
            leave(this)
        }
        Err(status) => Direct { status: status as u64, word: 0 },
    }
}

/// A guest was left: lets the interrupt come that it was left for, or goes back to its VMM if that is all there is to do.
/// Comes back if it has to be chosen who runs.
#[inline]
fn after_guest(this: &mut PerCpu, after: AfterGuest) {
    if after == AfterGuest::Interrupted {
        // SAFETY: As for `idle`: what was on the stack is done with, and an interrupt starts anew.
        unsafe { entry::take_interrupt() };
    }
    let cpu = this.cpu();
    if !cpu.needs_reschedule
        && !cpu.needs_timer
        && let Some(current) = &cpu.current
        && current.context.entry() == ENTRY_SYSCALL
    {
        let context: *const Context = &raw const current.context;
        guest::before_domain(&mut cpu.local);
        // SAFETY: As in `leave`: the thread has not changed, nor have its address space and its context's place.
        unsafe { entry::resume_call(&*context) };
    }
}

/// Any other system call.
#[inline(never)]
extern "sysv64" fn general(w0: u64, w1: u64, w2: u64, w3: u64, w4: u64, w5: u64, number: u64) -> Direct {
    // SAFETY: As in `call`.
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

/// Debug trap, NMI, double fault, machine check: at any instruction, so nothing of the kernel may be touched.
pub extern "sysv64" fn paranoid_interrupt(frame: &'static Context) {
    match Exception::from_vector(frame.entry() as u8) {
        // A domain's single step that took effect at the entry of its system call: the kernel goes on without it. What
        // the domain gets back has the flag still.
        Some(Exception::Debug) if !frame.is_from_domain() => frame.end_single_step(),
        Some(Exception::Debug) => {
            // SAFETY: The trap came from a domain, so the kernel is entered for the first time; this stack is left.
            let context = unsafe { per_cpu::this() }.copy_to_context(frame);
            interrupt(context)
        }
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
                let is_in_guest = current.context.is_in_guest();
                if !is_in_guest {
                    guest::before_domain(&mut this.cpu().local);
                }
                // SAFETY: See above; `select` has made the address space active.
                unsafe {
                    this.set_context(&*context);
                    if !is_in_guest {
                        entry::resume(&*context);
                    }
                }
                let after = KERNEL.run_guest(this.cpu());
                after_guest(this, after);
            }
            continue;
        }
        this.set_no_context();
        // SAFETY: There is no current thread and nothing left to do here.
        unsafe { entry::idle() };
    }
}

/// The kernel has let interrupts come, and none did.
pub extern "sysv64" fn no_interrupt() -> ! {
    // SAFETY: The stack is empty, and nothing is borrowed.
    leave(unsafe { per_cpu::this() })
}

/// Starts to schedule on this CPU.
pub fn start() -> ! {
    apic::start_on_this_cpu();
    // SAFETY: The set-up code gives the CPU away here and borrows nothing of it.
    leave(unsafe { per_cpu::this() })
}
