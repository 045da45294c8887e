//! Memory that is a device, by FS the I/O APIC and by GS configuration space: what is emulated depends on the mode's
//! addresses, segments and page tables.

use dragonfly_guest_kit::Check;
use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::equal;
use dragonfly_guest_kit::playground::{ACCESSED, DIRTY, PRESENT, USER, WRITABLE};
use dragonfly_hw::x86::ioapic::IOWIN;

use super::code::{Code, code};
use super::layout::{ABSENT, ALIAS, MEMORY, NOTHING_OFFSET, low};
use super::mode::{Kind, Mode, Paging, Size};
use super::switch::Registers;
use super::tables::{self, ALIAS_FRAME};
use crate::metal::mmio::{IO_APIC, choose_entry, configuration, configuration_space, window};

const CARRY: u64 = 1;
const ZERO: u64 = 1 << 6;

pub fn check(mode: &Mode) -> Check {
    loads(mode)?;
    stores(mode)?;
    arithmetic(mode)?;
    strings(mode)?;
    if mode.size != Size::Bits64 {
        short_addresses(mode)?;
    }
    if mode.paging != Paging::None {
        paged(mode)?;
    }
    Ok(())
}

fn loads(mode: &Mode) -> Check {
    let id = configuration(0);
    let start = Registers { eax: 0x1122_3344, esi: 1, ..Registers::default() };
    let load = |what, code: &Code, wanted: u32| equal(what, mode.finish(what, code, start)?.rax, wanted.into());
    load("MOV to AL", &code!("mov al, gs:[ebx]"), 0x1122_3300 | id & 0xff)?;
    load("MOV to AH", &code!("mov ah, gs:[ebx + 1]"), 0x1122_0044 | id & 0xff00)?;
    load("MOV to AX", &code!("mov ax, gs:[ebx]"), 0x1122_0000 | id & 0xffff)?;
    load("MOV to EAX", &code!("mov eax, gs:[ebx]"), id)?;
    load("MOV with a scaled index", &code!("mov eax, gs:[ebx + esi*4 + 4]"), configuration(8))?;
    load("MOV that is not aligned", &code!("mov ax, gs:[ebx + esi*2]"), 0x1122_0000 | id >> 16)?;
    load("MOV across the end of a page", &code!("mov eax, gs:[ebx + 0xffe]"), 0xffff_0000)?;
    let start = Registers { ebx: NOTHING_OFFSET, ..start };
    let load = |what, code: &Code, wanted: u32| equal(what, mode.finish(what, code, start)?.rax, wanted.into());
    load("MOVZX of a byte", &code!("movzx eax, byte ptr fs:[ebx]"), 0xff)?;
    load("MOVZX to 16 bits", &code!("movzx ax, byte ptr fs:[ebx]"), 0x1122_00ff)?;
    load("MOVZX of a word", &code!("movzx eax, word ptr fs:[ebx]"), 0xffff)?;
    load("MOVSX of a byte", &code!("movsx eax, byte ptr fs:[ebx]"), 0xffff_ffff)?;
    load("MOVSX to 16 bits", &code!("movsx ax, byte ptr fs:[ebx]"), 0x1122_ffff)?;
    load("IMUL", &code!("imul eax, dword ptr fs:[ebx]"), 0_u32.wrapping_sub(0x1122_3344))?;
    load("IMUL of 16 bits with a constant", &code!("imul ax, word ptr fs:[ebx], 7"), 0x1122_fff9)?;
    let code = code!(each ["push dword ptr gs:[ebx]", "pop eax"], ["push dword ptr gs:[ebx]", "pop eax"],
        ["push qword ptr gs:[ebx]", "pop rax"]);
    let after = mode.finish("PUSH", &code, Registers::default())?;
    equal("PUSH", after.rax & 0xffff_ffff, id.into())?;
    let after = mode.finish("PUSH of 16 bits", &code!("push word ptr gs:[ebx]", "pop ax"), Registers::default())?;
    equal("PUSH of 16 bits", after.rax, (id & 0xffff).into())
}

/// Stores to the select register, which is read back.
fn stores(mode: &Mode) -> Check {
    let store = |what, value: u32, code: &Code| {
        let after = mode.finish(what, code, Registers { eax: value, ..Registers::default() })?;
        equal(what, peek::<u8>(IO_APIC).into(), u64::from(value & 0xff))?;
        equal(what, after.rcx, u64::from(value & 0xff))
    };
    store("MOV of AL", 0x12, &code!("mov fs:[ebx], al", "mov cl, fs:[ebx]"))?;
    store("MOV of AX", 0x13, &code!("mov fs:[ebx], ax", "mov cl, fs:[ebx]"))?;
    store("MOV of EAX", 0x14, &code!("mov fs:[ebx], eax", "mov cl, fs:[ebx]"))?;
    store("MOV of 8 bits", 0x15, &code!("mov byte ptr fs:[ebx], 0x15", "mov cl, fs:[ebx]"))?;
    store("MOV of 16 bits", 0x16, &code!("mov word ptr fs:[ebx], 0x16", "mov cl, fs:[ebx]"))?;
    store("MOV of 32 bits", 0x17, &code!("mov dword ptr fs:[ebx], 0x17", "mov cl, fs:[ebx]"))?;
    let pop = code!(each
        ["push eax", "pop dword ptr fs:[ebx]", "mov cl, fs:[ebx]"],
        ["push eax", "pop dword ptr fs:[ebx]", "mov cl, fs:[ebx]"],
        ["push rax", "pop qword ptr fs:[ebx]", "mov cl, fs:[ebx]"]
    );
    store("POP", 0x18, &pop)?;
    store("POP of 16 bits", 0x19, &code!("push ax", "pop word ptr fs:[ebx]", "mov cl, fs:[ebx]"))
}

fn arithmetic(mode: &Mode) -> Check {
    // What the window holds, then it and ECX and the flags.
    let change = |what, code: &Code, before: u32, ecx: u32, wanted: u32| {
        choose_entry();
        poke(window(), before);
        let start = Registers { ecx, eax: before, ebx: IOWIN as u32, ..Registers::default() };
        let after = mode.finish(what, code, start)?;
        equal(what, peek::<u32>(window()).into(), wanted.into())?;
        Ok((after.rcx, after.flags))
    };
    change("OR", &code!("or fs:[ebx], ecx"), 0x1100_0000, 0x2200_0000, 0x3300_0000)?;
    let (_, flags) = change("ADD", &code!("add fs:[ebx], ecx"), 0xf000_0000, 0x1000_0000, 0)?;
    equal("flags of ADD", flags & (CARRY | ZERO), CARRY | ZERO)?;
    change("SUB of 8 bits", &code!("sub byte ptr fs:[ebx + 3], 1"), 0x1100_0000, 0, 0x1100_0000)?;
    let (register, _) = change("XCHG", &code!("xchg fs:[ebx], ecx"), 0x1100_0000, 0x2200_0000, 0x2200_0000)?;
    equal("XCHG's register", register, 0x1100_0000)?;
    let (register, _) = change("XADD", &code!("lock xadd fs:[ebx], ecx"), 0x1100_0000, 0x2200_0000, 0x3300_0000)?;
    equal("XADD's register", register, 0x1100_0000)?;
    let code = code!("lock cmpxchg fs:[ebx], ecx");
    let (_, flags) = change("CMPXCHG", &code, 0x1100_0000, 0x2200_0000, 0x2200_0000)?;
    equal("flags of CMPXCHG", flags & ZERO, ZERO)?;
    let (_, flags) = change("TEST", &code!("test dword ptr fs:[ebx], 0x10000000"), 0x2200_0000, 0, 0x2200_0000)?;
    equal("flags of TEST", flags & ZERO, ZERO)?;
    change("NEG", &code!("neg dword ptr fs:[ebx]"), 0x0100_0000, 0, 0xff00_0000)?;
    let (_, flags) = change("LOCK BTS", &code!("lock bts dword ptr fs:[ebx], 25"), 0x1100_0000, 0, 0x1300_0000)?;
    equal("flags of LOCK BTS", flags & CARRY, 0)
}

/// REP MOVSD from GS. In 64-bit code with addresses of 64 bits: Bochs 3.0 ends itself by an assertion at those of 32.
fn moves_from_device() -> Code {
    code!(each [".byte 0x65, 0x67", "rep movsd"], [".byte 0x65", "rep movsd"], [".byte 0x65", "rep movsd"])
}

fn strings(mode: &Mode) -> Check {
    let memory = mode.at(MEMORY);
    let start = Registers { ecx: 3, edi: memory, ..Registers::default() };
    let after = mode.finish("REP MOVSD", &moves_from_device(), start)?;
    equal("count after REP MOVSD", after.rcx, 0)?;
    equal("source after REP MOVSD", after.rsi, 12)?;
    equal("target after REP MOVSD", after.rdi, u64::from(memory) + 12)?;
    for register in (0..12).step_by(4) {
        equal(
            "what REP MOVSD moved",
            peek::<u32>(low(MEMORY + register).into()).into(),
            configuration(register).into(),
        )?;
    }
    let lods = code!(each[".byte 0x65, 0x67, 0xac"], [".byte 0x65, 0xac"], [".byte 0x65, 0x67, 0xac"]);
    let after = mode.finish("LODSB", &lods, Registers { esi: 1, ..Registers::default() })?;
    equal("what LODSB loaded", after.rax, (configuration(0) >> 8 & 0xff).into())?;
    equal("source after LODSB", after.rsi, 2)?;
    let cmps = code!(each [".byte 0x65, 0x67", "repe cmpsb"], [".byte 0x65", "repe cmpsb"], [".byte 0x65, 0x67", "repe cmpsb"]);
    poke(u64::from(low(MEMORY + 6)), !configuration(4).to_le_bytes()[2]);
    let after = mode.finish("REPE CMPSB", &cmps, Registers { ecx: 12, ..start })?;
    equal("count after REPE CMPSB", after.rcx, 5)?;
    if mode.size == Size::Bits64 || mode.kind == Kind::Real {
        // ES cannot be the device's.
        return Ok(());
    }
    let es = |instruction: Code, what, registers| mode.finish(what, &instruction, registers);
    let start = Registers { ecx: 40, edi: NOTHING_OFFSET, eax: 0xffff_ffff, ..Registers::default() };
    let stos = code!(each
        ["mov dx, fs", "mov es, dx", ".byte 0x67", "rep stosd"],
        ["mov dx, fs", "mov es, dx", "rep stosd"],
        ["nop"]
    );
    let after = es(stos, "REP STOSD", start)?;
    equal("target after REP STOSD", after.rdi, u64::from(NOTHING_OFFSET) + 160)?;
    let scas = code!(each
        ["mov dx, gs", "mov es, dx", ".byte 0x67", "repne scasb"],
        ["mov dx, gs", "mov es, dx", "repne scasb"],
        ["nop"]
    );
    let wanted = configuration(0) >> 8 & 0xff;
    let start = Registers { ecx: 20, edi: 0, eax: wanted, ..Registers::default() };
    let after = es(scas, "REPNE SCASB", start)?;
    let found = if wanted == configuration(0) & 0xff { 1 } else { 2 };
    equal("target after REPNE SCASB", after.rdi, found)
}

/// Addresses of 16 bits, whose sums wrap.
fn short_addresses(mode: &Mode) -> Check {
    let id = configuration(0);
    let upper = 0x5555_0000;
    let start = Registers { ebx: upper | 0xfffe, esi: upper | 4, edi: MEMORY, ..Registers::default() };
    let load = |what, code: &Code, wanted: u32| equal(what, mode.finish(what, code, start)?.rax, wanted.into());
    load("a base and an index of 16 bits", &code!(legacy "mov ax, gs:[bx + si]"), id >> 16)?;
    load("a base and an offset of 16 bits", &code!(legacy "mov eax, dword ptr gs:[bx + 10]"), configuration(8))?;
    load("an address in the instruction", &code!(legacy "mov eax, dword ptr gs:[4]"), configuration(4))?;
    load(
        "an address of 32 bits in the instruction",
        &code!(each
        [".byte 0x65, 0x66, 0x67, 0xa1", ".long 8"], [".byte 0x65, 0xa1", ".long 8"], ["nop"]),
        configuration(8),
    )?;
    load(
        "an address of 16 bits in the instruction",
        &code!(each
        [".byte 0x65, 0xa1", ".word 10"], [".byte 0x65, 0x66, 0x67, 0xa1", ".word 10"], ["nop"]),
        configuration(8) >> 16,
    )?;
    let moves = code!(each [".byte 0x65", "rep movsb"], [".byte 0x65, 0x67", "rep movsb"], ["nop"]);
    let start = Registers { ecx: upper | 4, esi: upper, edi: upper | MEMORY, ..start };
    let after = mode.finish("REP MOVSB by 16 bits", &moves, start)?;
    equal("source of 16 bits", after.rsi, u64::from(upper) + 4)?;
    equal("target of 16 bits", after.rdi, u64::from(upper | MEMORY) + 4)?;
    equal("what was moved by 16 bits", peek::<u32>(low(MEMORY).into()).into(), id.into())
}

fn paged(mode: &Mode) -> Check {
    let user = if mode.is_user() { 4 } else { 0 };
    let start = Registers { ecx: 4, edi: mode.at(ABSENT) - 8, ..Registers::default() };
    let after = mode.fault("REP MOVSD to nothing", 14, 2 | user, &moves_from_device(), start)?;
    equal("address of nothing", after.cr2, low(ABSENT).into())?;
    equal("iterations left", after.rcx, 2)?;
    equal("source of the next", after.rsi, 8)?;
    // What the tables say of accesses to a device.
    tables::set_page(tables::WINDOW_PAGE, IO_APIC | PRESENT | WRITABLE | USER);
    let bits = || tables::page(mode.paging, tables::WINDOW_PAGE) & (ACCESSED | DIRTY);
    mode.finish("a load from a device", &code!("mov eax, fs:[ebx]"), Registers::default())?;
    equal("bits after a load from a device", bits(), ACCESSED)?;
    mode.finish("a store to a device", &code!("mov fs:[ebx], al"), Registers::default())?;
    equal("bits after a store to a device", bits(), ACCESSED | DIRTY)?;
    // Without the right to write.
    tables::set_page(tables::WINDOW_PAGE, IO_APIC | PRESENT | USER);
    let after = mode.fault(
        "a store to a device that is read-only",
        14,
        3 | user,
        &code!("mov fs:[ebx], al"),
        Registers::default(),
    );
    tables::set_page(tables::WINDOW_PAGE, IO_APIC | PRESENT | WRITABLE | USER);
    equal("address of that device", after?.cr2, tables::WINDOW_PAGE.into())?;
    if mode.kind != Kind::Protected {
        return Ok(());
    }
    let large = tables::large_page(mode.paging, configuration_space() as u32);
    equal("bits of a large page that is a device", large & (ACCESSED | DIRTY), ACCESSED)?;
    // RAM by a large and by a small page.
    poke(ALIAS_FRAME + 8, 0_u64);
    let code = code!(each
        ["mov es, ax", "mov [ebx], ecx", "mov edx, es:[esi]", "not edx", "mov es:[esi], edx", "mov edi, [ebx]"],
        ["mov es, ax", "mov [ebx], ecx", "mov edx, es:[esi]", "not edx", "mov es:[esi], edx", "mov edi, [ebx]"],
        ["mov [ebx], ecx", "mov edx, [esi]", "not edx", "mov [esi], edx", "mov edi, [ebx]"]
    );
    let start = Registers {
        eax: super::layout::DATA.into(),
        ebx: mode.at(ALIAS) + 8,
        esi: ALIAS_FRAME as u32 + 8,
        ecx: 0x1234_5678,
        ..Registers::default()
    };
    let after = mode.finish("two pages of the same RAM", &code, start)?;
    equal("by the large page", !after.rdx & 0xffff_ffff, 0x1234_5678)?;
    equal("by the small page", after.rdi, 0xedcb_a987)
}
