//! What an emulator keeps of an instruction: used as long as all is as it was, and never after.

use dragonfly_emulate::{Access, Cause, Cpu, Emulator, GuestPhys, Outcome, Paging, Registers, Translated, translate};

use crate::support::*;

/// The registers of a vCPU as an owner of a state page would show them.
struct InPlace<'c>(&'c mut Cpu);

impl Registers for InPlace<'_> {
    fn general(&self, number: u8) -> u64 {
        self.0.general[usize::from(number)]
    }

    fn set_general(&mut self, number: u8, value: u64) {
        self.0.general[usize::from(number)] = value;
    }

    fn rip(&self) -> u64 {
        self.0.rip
    }

    fn rflags(&self) -> u64 {
        self.0.rflags
    }

    fn is_64_bit(&self) -> bool {
        self.0.segments[1].attributes & 1 << 13 != 0
    }

    fn paging(&self) -> Paging {
        Paging {
            cr0: self.0.cr0,
            cr3: self.0.cr3,
            cr4: self.0.cr4,
            efer: self.0.efer,
            cpl: self.0.cpl,
            allows_user_pages: self.0.rflags & 1 << 18 != 0,
            physical_address_bits: self.0.physical_address_bits,
        }
    }
}

/// `mov [rbx], eax`.
const STORE: &[u8] = &[0x89, 0x03];
/// `mov eax, [rbx]`.
const LOAD: &[u8] = &[0x8b, 0x03];

/// An emulator that has executed this code once, with RBX at the device.
fn learned(code: &[u8]) -> (Emulator, Cpu, Bus) {
    let (mut cpu, mut bus) = long_world(code);
    (cpu.general[0], cpu.general[3]) = (0x1122_3344_5566_7788, DEVICE_LINEAR + 0x10);
    let mut emulator = Emulator::new();
    let mut first = cpu.clone();
    assert_eq!(emulator.emulate(&mut first, &mut bus, Cause::Memory, 1), Ok(Outcome::Done), "{code:x?}");
    bus.events.clear();
    (emulator, cpu, bus)
}

/// Repeats the instruction, with the access that the processor would have found; RIP moves on as the answer says.
fn repeat(emulator: &mut Emulator, cpu: &mut Cpu, bus: &mut Bus, address: u64, access: Access) -> bool {
    let translated = Translated { address: GuestPhys(address), access };
    let length = emulator.repeat(&mut InPlace(cpu), bus, translated);
    cpu.rip += u64::from(length.unwrap_or(0));
    length.is_some()
}

/// Whether the store is repeated after this change.
fn is_repeated_after(change: impl FnOnce(&mut Cpu, &mut Bus)) -> bool {
    let (mut emulator, mut cpu, mut bus) = learned(STORE);
    // The way to the code is found at the first time.
    assert!(repeat(&mut emulator, &mut cpu.clone(), &mut bus, DEVICE + 0x10, Access::Write));
    bus.events.clear();
    change(&mut cpu, &mut bus);
    let before = cpu.clone();
    let is_repeated = repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Write);
    if !is_repeated {
        assert_eq!((&cpu, bus.events.as_slice()), (&before, &[][..]));
    }
    is_repeated
}

#[test]
fn a_move_is_repeated_as_it_was_executed() {
    let (mut emulator, mut cpu, mut bus) = learned(STORE);
    for _ in 0..3 {
        cpu.rip = CODE;
        assert!(repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Write));
        assert_eq!(cpu.rip, CODE + 2);
        assert_eq!(bus.events.split_off(0), [Event::Write(DEVICE + 0x10, vec![0x88, 0x77, 0x66, 0x55])]);
    }
    assert!(is_repeated_after(|_, _| {}));
}

#[test]
fn every_form_of_a_move_does_what_it_does_when_it_is_decoded() {
    // With registers of each width, immediates, extensions, and each part of an address.
    let forms: [(&[u8], Access); 22] = [
        (&[0x88, 0x03], Access::Write),                               // mov [rbx], al
        (&[0x66, 0x89, 0x03], Access::Write),                         // mov [rbx], ax
        (&[0x48, 0x89, 0x03], Access::Write),                         // mov [rbx], rax
        (&[0x40, 0x88, 0x33], Access::Write),                         // mov [rbx], sil
        (&[0xc6, 0x03, 0x85], Access::Write),                         // mov byte [rbx], 0x85
        (&[0x66, 0xc7, 0x03, 0x34, 0x92], Access::Write),             // mov word [rbx], 0x9234
        (&[0x48, 0xc7, 0x03, 0x78, 0x56, 0x34, 0x92], Access::Write), // mov qword [rbx], sign-extended
        (&[0x0f, 0xc3, 0x03], Access::Write),                         // movnti [rbx], eax
        (&[0x89, 0x44, 0x8b, 0x04], Access::Write),                   // mov [rbx + 4 * rcx + 4], eax
        (&[0x89, 0x04, 0xcd, 0, 0, 0, 0], Access::Write),             // mov [8 * rcx], eax
        (&[0x89, 0x05, 4, 0, 0, 0], Access::Write),                   // mov [rip + 4], eax
        (&[0xa3, 0x18, 0, 0, 0, 0, 0x80, 0xff, 0xff], Access::Write), // mov [absolute], eax
        (&[0x8a, 0x03], Access::Read),                                // mov al, [rbx]
        (&[0x66, 0x8b, 0x03], Access::Read),                          // mov ax, [rbx]
        (&[0x8b, 0x03], Access::Read),                                // mov eax, [rbx]
        (&[0x4c, 0x8b, 0x3b], Access::Read),                          // mov r15, [rbx]
        (&[0x48, 0x8b, 0x1b], Access::Read),                          // mov rbx, [rbx]
        (&[0x0f, 0xb6, 0x03], Access::Read),                          // movzx eax, byte [rbx]
        (&[0x66, 0x0f, 0xbe, 0x03], Access::Read),                    // movsx ax, byte [rbx]
        (&[0x48, 0x0f, 0xbf, 0x03], Access::Read),                    // movsx rax, word [rbx]
        (&[0x48, 0x63, 0x03], Access::Read),                          // movsxd rax, dword [rbx]
        (&[0xa1, 0x18, 0, 0, 0, 0, 0x80, 0xff, 0xff], Access::Read),  // mov eax, [absolute]
    ];
    for (code, access) in forms {
        let (mut cpu, mut bus) = long_world(code);
        bus.map(4, CODE, CODE, P | RW);
        (cpu.general[0], cpu.general[3], cpu.general[6]) = (0x1122_3344_85a6_f788, DEVICE_LINEAR + 0x20, 0xc5);
        // Small where it is added, an eighth of the address where it is all of it.
        cpu.general[1] = if code[1] == 0x04 { DATA_LINEAR / 8 } else { 3 };
        bus.device.iter_mut().zip((0x81..=0xff).cycle()).for_each(|(byte, value)| *byte = value);
        let mut emulator = Emulator::new();
        let (mut decoded, mut other) = (cpu.clone(), bus.clone());
        assert_eq!(emulator.emulate(&mut decoded, &mut other, Cause::Memory, 1), Ok(Outcome::Done), "{code:x?}");

        let linear = match code {
            [0x89, 0x44, ..] => DEVICE_LINEAR + 0x20 + 12 + 4,
            [0x89, 0x04, ..] => DATA_LINEAR,
            [0x89, 0x05, ..] => CODE + 6 + 4,
            [0xa1 | 0xa3, ..] => DEVICE_LINEAR + 0x18,
            _ => DEVICE_LINEAR + 0x20,
        };
        let physical = translate(&cpu, &mut bus, linear, access).unwrap().0;
        assert!(repeat(&mut emulator, &mut cpu, &mut bus, physical, access), "{code:x?}");
        assert_eq!((&cpu, &bus.events), (&decoded, &other.events), "{code:x?}");
        assert_eq!((bus.ram == other.ram, bus.device == other.device), (true, true), "{code:x?}");
    }
}

#[test]
fn other_instructions_are_not_kept() {
    let codes: [&[u8]; 8] = [
        &[0x01, 0x03],                         // add [rbx], eax
        &[0x87, 0x03],                         // xchg [rbx], eax
        &[0xab],                               // stosd
        &[0x88, 0x23],                         // mov [rbx], ah
        &[0x64, 0x89, 0x03],                   // mov fs:[rbx], eax
        &[0x8c, 0x1b],                         // mov [rbx], ds
        &[0x0f, 0x38, 0xf1, 0x03],             // movbe [rbx], eax
        &[0x67, 0xa3, 0x10, 0x00, 0x20, 0x00], // mov [32-bit absolute], eax
    ];
    for code in codes {
        let (mut cpu, mut bus) = long_world(code);
        (cpu.general[3], cpu.general[7]) = (DEVICE_LINEAR + 0x10, DEVICE_LINEAR + 0x10);
        let mut emulator = Emulator::new();
        assert_eq!(emulator.emulate(&mut cpu.clone(), &mut bus, Cause::Memory, 1), Ok(Outcome::Done), "{code:x?}");
        assert!(!repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Write), "{code:x?}");
    }
}

#[test]
fn changed_code_is_decoded_anew() {
    for (offset, byte) in [(0, 0x8b), (1, 0x43)] {
        assert!(!is_repeated_after(|_, bus| bus.put(CODE + offset, &[byte])));
    }
    // What follows is none of its bytes.
    assert!(is_repeated_after(|_, bus| bus.put(CODE + 2, &[0x90])));
    assert!(is_repeated_after(|_, bus| bus.put(CODE - 1, &[0x90])));
}

#[test]
fn code_on_a_page_that_was_mapped_elsewhere_is_decoded_anew_unless_it_is_the_same() {
    const OTHER: u64 = 0x5_0000;
    let remap = |code: &'static [u8]| {
        move |_: &mut Cpu, bus: &mut Bus| {
            bus.put(OTHER, code);
            bus.map(4, CODE, OTHER, P | A);
        }
    };
    assert!(!is_repeated_after(remap(LOAD)));
    assert!(is_repeated_after(remap(STORE)));
    assert!(!is_repeated_after(|_, bus| bus.map(4, CODE, CODE, 0)));
    assert!(!is_repeated_after(|_, bus| bus.map(4, CODE, CODE, P | XD)));
    // The root table says it is not there.
    assert!(!is_repeated_after(|_, bus| bus.put_word(ROOT, 0)));
}

#[test]
fn other_tables_that_lead_to_the_same_code_do_as_well() {
    const OTHER_ROOT: u64 = 0x6_0000;
    let switch = |entry: fn(u64) -> u64| {
        move |cpu: &mut Cpu, bus: &mut Bus| {
            bus.put_word(OTHER_ROOT, entry(bus.word(ROOT)));
            cpu.cr3 = OTHER_ROOT | 0x18;
        }
    };
    assert!(is_repeated_after(switch(|entry| entry)));
    assert!(!is_repeated_after(switch(|_| 0)));
    // Tables in a device are not read without need.
    assert!(!is_repeated_after(|cpu, _| cpu.cr3 = DEVICE));
}

#[test]
fn a_table_that_was_marked_as_not_accessed_is_marked_again() {
    let (mut emulator, mut cpu, mut bus) = learned(STORE);
    let entry = bus.entry(4, CODE);
    for _ in 0..2 {
        bus.put_word(entry, bus.word(entry) & !A);
        cpu.rip = CODE;
        assert!(repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Write));
        assert_ne!(bus.word(entry) & A, 0);
    }
}

#[test]
fn an_instruction_is_another_one_in_another_mode() {
    let changes: [fn(&mut Cpu); 8] = [
        |cpu| cpu.segments[1].attributes = 0xc09b, // compatibility mode
        |cpu| cpu.cpl = 3,
        |cpu| cpu.cr0 &= !(1 << 16),
        |cpu| cpu.cr4 |= 1 << 12, // five levels
        |cpu| cpu.cr4 |= 1 << 20,
        |cpu| cpu.efer &= !(1 << 11),
        |cpu| cpu.rflags |= 1 << 8,  // TF
        |cpu| cpu.rflags |= 1 << 18, // AC
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(!is_repeated_after(|cpu, _| change(cpu)), "{index}");
    }
}

#[test]
fn an_access_that_is_not_the_instruction_s_is_not_made() {
    for (address, access) in [(DEVICE + 0x10, Access::Read), (DEVICE + 0x14, Access::Write), (DEVICE, Access::Write)] {
        let (mut emulator, mut cpu, mut bus) = learned(STORE);
        assert!(!repeat(&mut emulator, &mut cpu, &mut bus, address, access), "{address:x} {access:?}");
        assert_eq!(bus.events, []);
    }
    let (mut emulator, mut cpu, mut bus) = learned(LOAD);
    assert!(!repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Write));
    assert!(repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0x10, Access::Read));
}

#[test]
fn an_operand_or_an_instruction_across_a_page_is_not_repeated() {
    let (mut emulator, mut cpu, mut bus) = learned(STORE);
    cpu.general[3] = DEVICE_LINEAR + 0xffe;
    assert!(!repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0xffe, Access::Write));
    cpu.general[3] = DEVICE_LINEAR + 0xffc;
    assert!(repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + 0xffc, Access::Write));

    let (mut cpu, mut bus) = long_world(&[]);
    bus.map(4, CODE + 0x1000, CODE + 0x1000, P);
    bus.put(CODE + 0xfff, STORE);
    (cpu.rip, cpu.general[3]) = (CODE + 0xfff, DEVICE_LINEAR);
    let mut emulator = Emulator::new();
    assert_eq!(emulator.emulate(&mut cpu.clone(), &mut bus, Cause::Memory, 1), Ok(Outcome::Done));
    assert!(!repeat(&mut emulator, &mut cpu, &mut bus, DEVICE, Access::Write));
}

#[test]
fn where_nothing_is_nothing_is_repeated() {
    let (mut emulator, mut cpu, mut bus) = learned(LOAD);
    let before = cpu.clone();
    assert!(!repeat(&mut emulator, &mut cpu, &mut bus, DEVICE + DEVICE_SIZE + 0x10, Access::Read));
    assert_eq!(cpu, before);
}

#[test]
fn more_instructions_than_are_kept_are_executed_all_the_same() {
    let code = STORE.repeat(200);
    let (mut cpu, mut bus) = long_world(&code);
    cpu.general[3] = DEVICE_LINEAR;
    let mut emulator = Emulator::new();
    let mut repeated = 0;
    for _ in 0..2 {
        cpu.rip = CODE;
        while cpu.rip < CODE + code.len() as u64 {
            if repeat(&mut emulator, &mut cpu, &mut bus, DEVICE, Access::Write) {
                repeated += 1;
            } else {
                assert_eq!(emulator.emulate(&mut cpu, &mut bus, Cause::Memory, 1), Ok(Outcome::Done));
            }
        }
    }
    assert_eq!((bus.events.len(), repeated < 200), (400, true));
}
