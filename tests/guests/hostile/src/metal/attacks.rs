//! One attack after another.

use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

use dragonfly_guest_kit::playground::{SCRATCH, USER_CODE, USER_STACK, prepare_user};
use dragonfly_guest_kit::{Random, USER_CODE as CODE, USER_DATA as DATA, cpu, enter_user};

use super::{HAS_NMIS, interrupts, memory, registers};

/// Does one thing that a hypervisor may not like.
pub fn one(random: &mut Random) {
    match random.below(24) {
        0..=2 => port(random),
        3 => port_string(random),
        4..=6 => memory::device(random),
        7 => memory::device_string(random),
        8 => memory::entry(random),
        9 => memory::control(random),
        10..=12 => registers::model_specific(random),
        13 => registers::cpuid(random),
        14 => registers::extended_control(random),
        15 => registers::segments(random),
        16 if !HAS_NMIS.load(Relaxed) => registers::tables(random),
        16 => registers::segments(random),
        17 => registers::debug(random),
        18 => interrupts::command(random),
        19 => interrupts::storm(random),
        20 => interrupts::timer(random),
        21 => hypercall(random),
        22 => virtualisation(random),
        _ => program(random),
    }
}

/// Ports that end the machine: they are not attacks but requests.
fn ends_the_machine(port: u16) -> bool {
    matches!(port, 0x61..=0x64 | 0x8f..=0x92 | 0x600..=0x60b | 0xcf6..=0xcf9)
}

/// A port of a device, or any.
fn any_port(random: &mut Random) -> u16 {
    const DEVICES: [u16; 8] = [0x3f8, 0x70, 0xcf8, 0xcfc, 0x402, 0x608, 0x600, 0x2f8];
    let port = match random.below(3) {
        0 => random.number() as u16,
        _ => DEVICES[random.below(8) as usize % DEVICES.len()] + random.below(8) as u16,
    };
    if ends_the_machine(port) { 0xcfa } else { port }
}

fn port(random: &mut Random) {
    let (port, value) = (any_port(random), random.awkward());
    match random.below(6) {
        0 => cpu::write_port(port, value as u8),
        1 => cpu::write_port(port, value as u16),
        2 => cpu::write_port(port, value as u32),
        3 => drop_value(cpu::read_port::<u8>(port)),
        4 => drop_value(cpu::read_port::<u16>(port)),
        _ => drop_value(cpu::read_port::<u32>(port)),
    }
}

pub fn drop_value<T>(_: T) {}

/// INS and OUTS with awkward addresses, counts and directions.
fn port_string(random: &mut Random) {
    let port = any_port(random);
    let address = memory::harmless(random);
    let count = random.below(600);
    // SAFETY: what is written to is harmless, or faults.
    unsafe {
        match random.below(6) {
            0 => asm!("rep outsb", in("dx") port, inout("rsi") address => _, inout("rcx") count => _),
            1 => asm!("rep outsd", in("dx") port, inout("rsi") address => _, inout("rcx") count => _),
            2 => asm!("rep insb", in("dx") port, inout("rdi") address => _, inout("rcx") count => _),
            3 => asm!("rep insw", in("dx") port, inout("rdi") address => _, inout("rcx") count => _),
            4 => asm!("std", "rep insd", "cld", in("dx") port, inout("rdi") address => _, inout("rcx") count => _),
            _ => asm!("addr32 rep insb", in("dx") port, inout("rdi") SCRATCH => _, inout("rcx") count => _),
        }
    }
}

fn hypercall(random: &mut Random) {
    let arguments = [random.awkward(), random.awkward(), random.awkward(), random.awkward() & !0x700];
    let number = if random.below(2) == 0 { random.below(16) } else { random.awkward() };
    cpu::hypercall(number, arguments);
}

/// Instructions that guests do not have.
fn virtualisation(random: &mut Random) {
    let address = random.awkward();
    // SAFETY: each is an exception, or does nothing.
    unsafe {
        match random.below(12) {
            0 => asm!("vmrun rax", in("rax") address),
            1 => asm!("vmload rax", in("rax") address),
            2 => asm!("vmsave rax", in("rax") address),
            3 => asm!("stgi"),
            4 => asm!("skinit eax", in("eax") address as u32),
            5 => asm!("invlpga rax, ecx", in("rax") address, in("ecx") 7),
            6 => asm!("vmxoff"),
            7 => asm!("vmptrld [{}]", in(reg) SCRATCH),
            8 => asm!("monitor", in("rax") SCRATCH, in("ecx") 0, in("edx") 0),
            9 => asm!("rdpmc", in("ecx") address as u32, out("eax") _, out("edx") _),
            10 => asm!("rsm"),
            _ => asm!("wbinvd", "invd"),
        }
    }
}

/// Random bytes as a program. It gets a single step: one that does not end would be the guest's own trouble.
fn program(random: &mut Random) {
    const TRAP_FLAG: u64 = 1 << 8;
    let mut code = [0; 16];
    for part in code.chunks_mut(8) {
        part.copy_from_slice(&random.number().to_le_bytes());
    }
    prepare_user(&code);
    enter_user(USER_CODE, USER_STACK, TRAP_FLAG | 2, CODE, DATA)
}
