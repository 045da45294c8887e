//! The loop around a guest: enters, and handles exits that are pure mechanism.

use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dragonfly_abi::arch::guest::{ExitCounter, General, VcpuState};
use dragonfly_abi::guest::{ExitReason, PortAccess};
use dragonfly_hw::x86::control::Cr4;
use dragonfly_hw::x86::cpuid::{LEAF_EXTENDED_FEATURES, LEAF_FEATURES, LEAF_XSAVE, Leaf1Ecx};
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::kvm::HC_SEND_IPI;
use dragonfly_vapic::{Effect, LocalApic};

use super::hardware::{Event, Exit, Hardware};
use super::msr::Access;
use super::{GuestCpu, Interrupts, Wait, message, vector};
use crate::Ref;
use crate::arch::GuestExit;
use crate::arch::x86_64::{X86, interrupts, registers};
use crate::cpu::Cpu;
use crate::shared_page::WORDS;
use crate::vcpu::Vcpu;

/// CPUID leaf 7, ECX: CR4.PKE is set.
const OSPKE: u32 = 1 << 4;
/// Interrupt flag of RFLAGS.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Hypercalls of KVM are below; a kernel answers those that it does not have (Linux, virt/kvm/x86/hypercalls).
const KVM_HYPERCALLS: u64 = 0x100;
/// What KVM answers to an unknown hypercall.
const KVM_ENOSYS: u64 = 1000_u64.wrapping_neg();
/// What KVM answers to a hypercall with wrong arguments.
const KVM_EINVAL: u64 = 22_u64.wrapping_neg();
/// What KVM answers to a hypercall of a program.
const KVM_EPERM: u64 = 1_u64.wrapping_neg();

/// The state page's words.
type Words = [AtomicU64; WORDS];

fn general(words: &Words, register: General) -> u64 {
    words[register as usize].load(Relaxed)
}

fn set_general(words: &Words, register: General, value: u64) {
    words[register as usize].store(value, Relaxed);
}

/// Counts an exit. Only the CPU that runs the guest does; a VMM that writes there deceives itself.
#[inline]
pub(super) fn count(words: &Words, counter: ExitCounter) {
    const FIRST: usize = core::mem::offset_of!(VcpuState, exits) / 8;
    let word = &words[FIRST + counter as usize];
    word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
}

impl<H: Hardware> GuestCpu<H> {
    pub(super) fn run_until_exit(&mut self, cpu: &mut Cpu<X86>, vcpu: &Ref<Vcpu<X86>, X86>) -> GuestExit {
        let apic = &vcpu.interrupts.apic;
        let words = vcpu.page.words();
        if apic.timer_deadline().is_some_and(|deadline| deadline <= registers::read_tsc()) {
            apic.timer_expired(self.clock());
        }
        self.hardware.prepare(&mut cpu.local, &vcpu.page, &vcpu.vm.space);
        // Whether something may have changed what the guest is to be offered.
        let mut has_news = true;
        loop {
            if has_news || apic.has_work() {
                has_news = false;
                if let Some(exit) = self.look_at_requests(vcpu) {
                    return exit;
                }
                // Waiting for a lock, this CPU may have given away what another virtual CPU was thought to have here.
                vector::load(vcpu);
            }
            self.speculation.before_entry();
            let exit = self.hardware.enter(&vcpu.page);
            self.speculation.after_exit();
            count(words, ExitCounter::Total);
            if let Some(vector) = self.offered {
                self.offered = None;
                if self.hardware.has_taken() {
                    count(words, ExitCounter::Injected);
                    apic.accept(vector);
                } else {
                    apic.withdraw(vector);
                }
                has_news = true;
            }
            match exit {
                Exit::Cpuid => {
                    count(words, ExitCounter::Cpuid);
                    let (leaf, subleaf) = (general(words, General::Rax) as u32, general(words, General::Rcx) as u32);
                    match self.cpuid(leaf, subleaf) {
                        Some([eax, ebx, ecx, edx]) => {
                            set_general(words, General::Rax, eax.into());
                            set_general(words, General::Rbx, ebx.into());
                            set_general(words, General::Rcx, ecx.into());
                            set_general(words, General::Rdx, edx.into());
                            self.skip();
                        }
                        None => return self.vmm(vcpu, ExitReason::Cpuid, [leaf.into(), subleaf.into(), 0]),
                    }
                }
                Exit::MsrRead | Exit::MsrWrite => {
                    has_news = true;
                    if let Some(exit) = self.msr_exit(cpu, vcpu, exit == Exit::MsrWrite) {
                        return exit;
                    }
                    // A message may have made another thread of this CPU ready.
                    if cpu.needs_reschedule || cpu.needs_timer {
                        return self.leave(vcpu, GuestExit::Again);
                    }
                }
                Exit::Interrupt(vector) => {
                    count(words, ExitCounter::Interrupt);
                    if let Some(vector) = vector {
                        interrupts::dispatch(cpu, vector);
                    }
                    return self.leave(vcpu, GuestExit::Interrupted);
                }
                Exit::Halt => {
                    count(words, ExitCounter::Halt);
                    self.skip();
                    self.wait = if self.hardware.pointer().1 & INTERRUPT_FLAG == 0 {
                        Wait::Unmaskable
                    } else {
                        Wait::Interrupt
                    };
                    has_news = true;
                }
                Exit::Port(access) => {
                    count(words, ExitCounter::Port);
                    return self.port_exit(vcpu, access);
                }
                Exit::Memory { address, access, linear, is_final } => {
                    self.length = self.hardware.length();
                    return self.leave(vcpu, GuestExit::Memory { address, access, linear, is_final });
                }
                Exit::Hypercall => {
                    count(words, ExitCounter::Hypercall);
                    let number = general(words, General::Rax);
                    if number >= KVM_HYPERCALLS {
                        return self.vmm(vcpu, ExitReason::Hypercall, [0; 3]);
                    }
                    let answer = self.hypercall(cpu, vcpu, number);
                    set_general(words, General::Rax, answer);
                    self.skip();
                    if number == HC_SEND_IPI {
                        has_news = true;
                        // It may have made another thread of this CPU ready.
                        if cpu.needs_reschedule || cpu.needs_timer {
                            return self.leave(vcpu, GuestExit::Again);
                        }
                    }
                }
                Exit::Xsetbv if !self.has_cr4(Cr4::OSXSAVE) => self.inject(Exception::InvalidOpcode, None),
                Exit::Xsetbv => {
                    let value = general(words, General::Rdx) << 32 | general(words, General::Rax) & 0xffff_ffff;
                    if general(words, General::Rcx) as u32 == 0
                        && self.hardware.privilege() == 0
                        && vector::is_valid_xcr0(value)
                    {
                        vector::set_xcr0(&vcpu.interrupts.vector, value);
                        self.skip();
                    } else {
                        self.inject(Exception::GeneralProtection, Some(0));
                    }
                }
                Exit::CacheControl => self.skip(),
                Exit::Window => {
                    count(words, ExitCounter::Window);
                    has_news = true;
                }
                Exit::LogFull => {
                    count(words, ExitCounter::Other);
                    self.hardware.empty_log(&vcpu.vm.space);
                }
                Exit::Pause => {
                    count(words, ExitCounter::Pause);
                    self.skip();
                    return self.leave(vcpu, GuestExit::Paused);
                }
                Exit::Eoi(vector) => {
                    count(words, ExitCounter::MsrWrite);
                    self.length = 0;
                    return self.vmm_after(vcpu, ExitReason::ApicEoi, [vector.into(), 0, 0]);
                }
                Exit::SelfInterrupt(vector) => {
                    count(words, ExitCounter::MsrWrite);
                    apic.send_self(vector);
                    has_news = true;
                }
                Exit::Undefined => self.inject(Exception::InvalidOpcode, None),
                Exit::Forbidden => self.inject(Exception::GeneralProtection, Some(0)),
                Exit::Nmi | Exit::Done => count(words, ExitCounter::Other),
                Exit::Shutdown => return self.vmm(vcpu, ExitReason::Shutdown, [0; 3]),
                Exit::TaskSwitch(selector, details) => {
                    return self.vmm(vcpu, ExitReason::TaskSwitch, [selector, details, 0]);
                }
                Exit::EntryFailed(why) => return self.vmm(vcpu, ExitReason::EntryFailed, [why, 0, 0]),
                Exit::MachineCheck => return self.vmm(vcpu, ExitReason::MachineCheck, [0; 3]),
                Exit::Unknown(number, first, second) => {
                    count(words, ExitCounter::Other);
                    return self.vmm(vcpu, ExitReason::Unknown, [number, first, second]);
                }
            }
        }
    }

    /// Sees to what others have asked for and what the guest is to be offered. Gives an exit if it does not run.
    fn look_at_requests(&mut self, vcpu: &Vcpu<X86>) -> Option<GuestExit> {
        let Interrupts { apic, posted, .. } = &vcpu.interrupts;
        self.settle_end(apic);
        if let Some(posted) = posted
            && posted.has_news()
        {
            posted.move_to(apic);
        }
        if apic.is_idle() && self.wait == Wait::Nothing && !self.is_nmi_pending && self.hardware.is_supplied() {
            self.hardware.offer(None);
            self.permit_end(apic);
            return None;
        }
        let requests = apic.take_requests();
        if !requests.is_empty() {
            if requests.init() && self.wait != Wait::Startup {
                if requests.nmi() {
                    apic.post_nmi();
                }
                if let Some(vector) = requests.startup() {
                    apic.post_startup(vector);
                }
                return Some(self.vmm(vcpu, ExitReason::Init, [0; 3]));
            }
            if let Some(vector) = requests.startup()
                && self.wait == Wait::Startup
            {
                self.wait = Wait::Nothing;
                return Some(self.vmm(vcpu, ExitReason::Startup, [vector.into(), 0, 0]));
            }
            if requests.nmi() && self.wait != Wait::Startup {
                self.wait = Wait::Nothing;
                self.is_nmi_pending = true;
            }
        }
        if self.is_nmi_pending && self.wait != Wait::Startup {
            // It also ends a halt that the guest has come to while it could not be injected.
            self.wait = Wait::Nothing;
            self.is_nmi_pending = !self.hardware.inject_nmi();
        }
        if self.wait == Wait::Startup {
            return Some(self.leave(vcpu, GuestExit::Halted));
        }
        if self.hardware.delivers() {
            return self.supply(vcpu);
        }
        // The hardware compares with the guest's task priority itself, which changes without an exit.
        let (class, old) = (self.hardware.cr8(), apic.task_priority());
        apic.set_task_priority(0);
        let pending = apic.pending();
        // The lower half of TPR is only in the APIC.
        apic.set_task_priority(if old >> 4 == class { old } else { class << 4 });
        if pending.is_some() && self.wait == Wait::Interrupt {
            self.wait = Wait::Nothing;
        }
        if self.wait != Wait::Nothing {
            return Some(self.leave(vcpu, GuestExit::Halted));
        }
        // QEMU's emulation lets an interrupt of the task priority's own class through (ctl_has_irq in its svm_helper.c).
        self.offered = pending.filter(|vector| vector >> 4 != class);
        if let Some(vector) = self.offered {
            apic.offer(vector);
        }
        self.hardware.offer(self.offered);
        self.permit_end(apic);
        None
    }

    /// Lets the guest end an interrupt in its memory if nobody waits for that end.
    #[inline]
    fn permit_end(&mut self, apic: &LocalApic) {
        if self.end_in_memory.has_place() && !self.hardware.delivers() {
            self.end_in_memory.permit_if(apic, self.offered);
        }
    }

    /// Ends the interrupt that the guest has ended in its memory. To call before anything looks at what is in service.
    #[inline]
    pub(super) fn settle_end(&mut self, apic: &LocalApic) {
        if self.end_in_memory.is_permitted() {
            self.end_in_memory.settle(apic);
        }
    }

    /// Lets the hardware deliver what there is, or gives an exit if there is nothing that ends a halt.
    // Not inlined: most exits need few registers.
    #[inline(never)]
    fn supply(&mut self, vcpu: &Vcpu<X86>) -> Option<GuestExit> {
        let apic = &vcpu.interrupts.apic;
        if self.wait != Wait::Nothing {
            self.hardware.take_back(apic);
            if self.wait == Wait::Unmaskable || apic.pending().is_none() {
                return Some(self.leave(vcpu, GuestExit::Halted));
            }
            self.wait = Wait::Nothing;
        }
        self.hardware.lend(apic);
        None
    }

    /// Does what a hypercall of KVM asks for, and gives its answer.
    #[inline]
    fn hypercall(&self, cpu: &mut Cpu<X86>, vcpu: &Vcpu<X86>, number: u64) -> u64 {
        if self.hardware.privilege() != 0 {
            return KVM_EPERM;
        }
        if number == HC_SEND_IPI { self.send_to_set(cpu, vcpu) } else { KVM_ENOSYS }
    }

    // Not inlined: most hypercalls need few registers.
    #[inline(never)]
    fn send_to_set(&self, cpu: &mut Cpu<X86>, vcpu: &Vcpu<X86>) -> u64 {
        let words = vcpu.page.words();
        // Outside of 64-bit mode registers are half as wide, and so is the set.
        let (mask, shift) = if self.hardware.is_64_bit() { (u64::MAX, 64) } else { (u32::MAX.into(), 32) };
        let [low, high, first, command] =
            [General::Rbx, General::Rcx, General::Rdx, General::Rsi].map(|register| general(words, register) & mask);
        let set = u128::from(low) | u128::from(high) << shift;
        message::send_to_set(cpu, &vcpu.vm, set, first, command).unwrap_or(KVM_EINVAL)
    }

    /// The table's answer, with what depends on the guest's registers filled in.
    #[inline]
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
        let mut answer = self.cpuid.get(leaf, subleaf)?;
        match leaf {
            LEAF_FEATURES if self.has_cr4(Cr4::OSXSAVE) => answer[2] |= Leaf1Ecx::OSXSAVE.bits(),
            LEAF_EXTENDED_FEATURES if subleaf == 0 && self.has_cr4(Cr4::PKE) => answer[2] |= OSPKE,
            // The size for the components that are on: the CPU has the guest's XCR0.
            LEAF_XSAVE if subleaf < 2 => answer[1] = __cpuid_count(LEAF_XSAVE, subleaf).ebx,
            _ => {}
        }
        Some(answer)
    }

    fn has_cr4(&self, flag: Cr4) -> bool {
        self.hardware.control().cr4 & flag.bits() != 0
    }

    fn msr_exit(&mut self, cpu: &mut Cpu<X86>, vcpu: &Ref<Vcpu<X86>, X86>, is_write: bool) -> Option<GuestExit> {
        let words = vcpu.page.words();
        let register = general(words, General::Rcx) as u32;
        let access = if is_write {
            count(words, ExitCounter::MsrWrite);
            let value = general(words, General::Rdx) << 32 | general(words, General::Rax) & 0xffff_ffff;
            match self.write_msr(vcpu, register, value) {
                Access::Vmm => return Some(self.vmm(vcpu, ExitReason::MsrWrite, [register.into(), value, 0])),
                access => access,
            }
        } else {
            count(words, ExitCounter::MsrRead);
            match self.read_msr(vcpu, register) {
                Access::Vmm => return Some(self.vmm(vcpu, ExitReason::MsrRead, [register.into(), 0, 0])),
                access => access,
            }
        };
        match access {
            Access::Done(value) => {
                if !is_write {
                    set_general(words, General::Rax, value & 0xffff_ffff);
                    set_general(words, General::Rdx, value >> 32);
                }
                self.skip();
                None
            }
            Access::Effect(effect) => {
                self.skip();
                if effect == Effect::TimerChanged {
                    return Some(self.leave(vcpu, GuestExit::Again));
                }
                let ended = message::perform(cpu, vcpu, effect)?;
                self.length = 0;
                Some(self.vmm_after(vcpu, ExitReason::ApicEoi, [ended.into(), 0, 0]))
            }
            Access::Forbidden | Access::Vmm => {
                self.inject(Exception::GeneralProtection, Some(0));
                None
            }
        }
    }

    fn port_exit(&mut self, vcpu: &Vcpu<X86>, access: PortAccess) -> GuestExit {
        self.length = self.hardware.length();
        let rax = general(vcpu.page.words(), General::Rax) as u32;
        // As wide as the access: 1, 2 or 4 bytes.
        let value = rax & u32::MAX >> (32_u32.wrapping_sub(8 * u32::from(access.width())) & 31);
        self.leave(vcpu, GuestExit::Port { access, value, length: self.length })
    }

    /// An exit for the VMM, of an instruction that it may skip.
    fn vmm(&mut self, vcpu: &Vcpu<X86>, reason: ExitReason, words: [u64; 3]) -> GuestExit {
        self.length = self.hardware.length();
        self.vmm_after(vcpu, reason, words)
    }

    /// An exit for the VMM with nothing to skip, or with the length noted already.
    fn vmm_after(&mut self, vcpu: &Vcpu<X86>, reason: ExitReason, words: [u64; 3]) -> GuestExit {
        self.leave(vcpu, GuestExit::Vmm { reason, length: self.length, words })
    }

    /// Shows the VMM what it always sees.
    fn leave(&mut self, vcpu: &Vcpu<X86>, exit: GuestExit) -> GuestExit {
        const RIP: usize = core::mem::offset_of!(VcpuState, rip) / 8;
        // Nobody but this loop knows of ends in memory.
        self.settle_end(&vcpu.interrupts.apic);
        let (rip, rflags) = self.hardware.pointer();
        let words = vcpu.page.words();
        words[RIP].store(rip, Relaxed);
        words[RIP + 1].store(rflags, Relaxed);
        self.hardware.finish(&vcpu.page);
        exit
    }

    #[inline]
    fn skip(&mut self) {
        self.hardware.skip_instruction();
    }

    fn inject(&mut self, exception: Exception, error_code: Option<u32>) {
        self.hardware.inject(Event::exception(exception.vector(), error_code));
    }
}
