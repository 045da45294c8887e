//! The host's processor: machine code in executable memory, called with given registers.

use core::arch::asm;

use dragonfly_emulate::Cpu;

use crate::forms::Form;

/// Bytes of the page of data.
pub const PAGE: usize = 4096;
/// Bytes reserved for an instruction and its return.
const SLOT: usize = 16;

const SYS_MMAP: u64 = 9;
const SYS_MPROTECT: u64 = 10;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_PRIVATE_ANONYMOUS: u64 = 0x22;
const RET: u8 = 0xc3;
/// Bits of RFLAGS that a program can set without being trapped or losing its interrupts.
const SETTABLE: u64 = 0xed5 | 2;

/// The registers that instructions may use.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub flags: u64,
}

impl Registers {
    pub fn give_to(&self, cpu: &mut Cpu) {
        let numbers = [0, 1, 2, 3, 6, 7, 8, 9];
        let values = [self.rax, self.rcx, self.rdx, self.rbx, self.rsi, self.rdi, self.r8, self.r9];
        for (number, value) in numbers.into_iter().zip(values) {
            cpu.general[number] = value;
        }
        cpu.rflags = self.flags;
    }
}

/// What an instruction has left.
pub struct Result {
    pub registers: Registers,
    pub memory: [u8; PAGE],
}

/// Executable memory with one instruction per slot, and a page of data.
pub struct Processor {
    code: u64,
    slots: usize,
    data: *mut [u8; PAGE],
}

impl Processor {
    pub fn new(forms: &[Form]) -> Self {
        let size = forms.len() * SLOT;
        let code = map(size);
        for (index, form) in forms.iter().enumerate() {
            let mut slot = [RET; SLOT];
            slot[..form.code.len()].copy_from_slice(&form.code);
            // SAFETY: `map` gave `size` writable bytes that nothing else uses, and `index` is below their number of slots.
            unsafe { ((code as *mut [u8; SLOT]).add(index)).write(slot) };
        }
        // SAFETY: the range is the mapping above; nothing points into it but `code`, which is only called from now on.
        let status = unsafe { system_call(SYS_MPROTECT, [code, size as u64, PROT_READ | PROT_EXEC, 0, 0, 0]) };
        assert_eq!(status, 0);
        // The pages beside it stay unused, so a wrong address in a form is a fault and no silent change.
        let data = (map(3 * PAGE) + PAGE as u64) as *mut [u8; PAGE];
        Self { code, slots: forms.len(), data }
    }

    pub fn data_address(&self) -> u64 {
        self.data as u64
    }

    /// Executes the form with this index.
    pub fn run(&mut self, index: usize, registers: Registers, memory: &[u8; PAGE]) -> Result {
        assert!(index < self.slots && registers.flags & !SETTABLE == 0);
        let code = self.code + (index * SLOT) as u64;
        let Registers { mut rax, mut rcx, mut rdx, mut rbx, mut rsi, mut rdi, mut r8, mut r9, mut flags } = registers;
        // SAFETY: `data` is a page that only this object uses. The slot holds one instruction of `forms`, which changes the
        // registers named here and that page or its mapped neighbours only, and a return. Direction is as Rust wants it
        // afterwards, and all other flags are the program's to change.
        let memory = unsafe {
            self.data.write(*memory);
            asm!(
                "xchg rbx, r12",
                "push r10",
                "popfq",
                "call r11",
                "pushfq",
                "pop r10",
                "cld",
                "xchg rbx, r12",
                inout("rax") rax,
                inout("rcx") rcx,
                inout("rdx") rdx,
                inout("r12") rbx,
                inout("rsi") rsi,
                inout("rdi") rdi,
                inout("r8") r8,
                inout("r9") r9,
                inout("r10") flags,
                in("r11") code,
            );
            self.data.read()
        };
        Result { registers: Registers { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, flags }, memory }
    }
}

/// Fresh memory that can be written.
fn map(size: usize) -> u64 {
    let arguments = [0, size as u64, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, u64::MAX, 0];
    // SAFETY: a new anonymous mapping at an address of the system's choice changes no memory that is in use.
    let address = unsafe { system_call(SYS_MMAP, arguments) };
    assert!(address % PAGE as u64 == 0 && address != 0, "mmap: {address:#x}");
    address
}

/// # Safety
/// The call changes no memory that the program uses.
unsafe fn system_call(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> u64 {
    let result;
    // SAFETY: the kernel changes RAX, RCX and R11 only; what the call does to memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
