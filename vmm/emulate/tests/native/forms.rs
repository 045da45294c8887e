//! Encodings of the supported instructions with an operand in memory at [RDI + displacement].

/// An encoded instruction, and what is known of it.
#[derive(Clone, Debug)]
pub struct Form {
    pub code: Vec<u8>,
    pub is_string: bool,
    /// A bit test whose position is in a register and may lie outside of the operand.
    pub is_far_bit_test: bool,
    pub counts_by_cl: bool,
    bits: u32,
    flags: Flags,
    /// A count in the instruction.
    count: Option<u8>,
}

/// Which flags the manuals define.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flags {
    All,
    /// AF is undefined.
    Logic,
    /// Only CF is defined.
    BitTest,
    /// Only CF and OF are defined.
    Multiplication,
    /// By count.
    Shift,
    /// By count, and the result is undefined if the count is above the width.
    DoubleShift,
    /// By count.
    Rotation,
}

const STATUS: u64 = CF | 1 << 2 | AF | 1 << 6 | 1 << 7 | OF;
const CF: u64 = 1;
const AF: u64 = 1 << 4;
const OF: u64 = 1 << 11;

impl Form {
    /// The flags that are to agree, DF and the like among them.
    pub fn defined_flags(&self, rcx: u64) -> u64 {
        let undefined = match self.flags {
            Flags::All => 0,
            Flags::Logic => AF,
            Flags::BitTest => STATUS & !CF,
            Flags::Multiplication => STATUS & !(CF | OF),
            Flags::Shift | Flags::DoubleShift | Flags::Rotation => match self.effective_count(rcx) {
                0 => 0,
                _ if self.flags == Flags::Rotation && self.effective_count(rcx) == 1 => 0,
                1 => AF,
                count if count >= self.bits && self.flags != Flags::Rotation => AF | OF | CF,
                _ if self.flags == Flags::Rotation => OF,
                _ => AF | OF,
            },
        };
        !undefined
    }

    pub fn has_defined_result(&self, rcx: u64) -> bool {
        self.flags != Flags::DoubleShift || self.effective_count(rcx) <= self.bits
    }

    fn effective_count(&self, rcx: u64) -> u32 {
        let count = self.count.unwrap_or(rcx as u8);
        u32::from(count & if self.bits == 64 { 0x3f } else { 0x1f })
    }
}

/// Register fields that do not mean RSP or RBP; as 8-bit registers without REX they may all be used.
const REGISTERS: [u8; 4] = [0, 2, 3, 6];
const BYTE_REGISTERS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Every instruction in every width.
pub fn forms() -> Vec<Form> {
    let mut forms = Forms::default();
    forms.arithmetic();
    forms.multiplication();
    forms.shifts();
    forms.bit_tests();
    forms.moves();
    forms.exchanges();
    forms.conditional();
    forms.strings();
    forms.0
}

#[derive(Default)]
struct Forms(Vec<Form>);

impl Forms {
    /// An instruction of this width with operand-size prefixes; `opcode` is that for wider operands than a byte.
    fn add(&mut self, bits: u32, prefix: &[u8], opcode: &[u8], field: u8, immediate: &[u8]) -> &mut Form {
        let displacement = (self.0.len() as u8 % 64).wrapping_mul(4).wrapping_sub(128) & !15;
        let modrm = [0x47 | field << 3, displacement];
        self.push(bits, prefix, &[opcode, &modrm, immediate].concat())
    }

    fn push(&mut self, bits: u32, prefix: &[u8], rest: &[u8]) -> &mut Form {
        let mut code = prefix.to_vec();
        match bits {
            16 => code.push(0x66),
            64 => code.push(0x48),
            _ => {}
        }
        code.extend_from_slice(rest);
        self.0.push(Form {
            code,
            is_string: false,
            is_far_bit_test: false,
            counts_by_cl: false,
            bits,
            flags: Flags::All,
            count: None,
        });
        self.0.last_mut().unwrap()
    }

    /// All widths of an instruction whose opcode is even for bytes and odd for others.
    fn widths(&mut self, mut add: impl FnMut(&mut Self, u32, u8, &[u8])) {
        for (bits, odd, registers) in
            [(8, 0, &BYTE_REGISTERS[..]), (16, 1, &REGISTERS), (32, 1, &REGISTERS), (64, 1, &REGISTERS)]
        {
            add(self, bits, odd, registers);
        }
    }

    fn arithmetic(&mut self) {
        self.widths(|forms, bits, odd, registers| {
            for operation in 0..8 {
                let flags = if matches!(operation, 1 | 4 | 6) { Flags::Logic } else { Flags::All };
                let prefixes: &[&[u8]] = if operation == 7 { &[&[]] } else { &[&[], &[0xf0]] };
                for prefix in prefixes {
                    for register in registers {
                        forms.add(bits, prefix, &[operation << 3 | odd], *register, &[]).flags = flags;
                    }
                    forms.add(bits, prefix, &[0x80 | odd], operation, wide(bits, 0x87)).flags = flags;
                }
                for register in registers {
                    forms.add(bits, &[], &[operation << 3 | 2 | odd], *register, &[]).flags = flags;
                }
                if odd == 1 {
                    forms.add(bits, &[], &[0x83], operation, &[0xf1]).flags = flags;
                }
            }
            for register in registers {
                forms.add(bits, &[], &[0x84 | odd], *register, &[]).flags = Flags::Logic;
            }
            forms.add(bits, &[], &[0xf6 | odd], 0, wide(bits, 0xa5)).flags = Flags::Logic;
            for prefix in [&[][..], &[0xf0]] {
                forms.add(bits, prefix, &[0xf6 | odd], 2, &[]);
                forms.add(bits, prefix, &[0xf6 | odd], 3, &[]);
                forms.add(bits, prefix, &[0xfe | odd], 0, &[]);
                forms.add(bits, prefix, &[0xfe | odd], 1, &[]);
            }
        });
    }

    fn multiplication(&mut self) {
        for bits in [16, 32, 64] {
            for register in REGISTERS {
                self.add(bits, &[], &[0x0f, 0xaf], register, &[]).flags = Flags::Multiplication;
                self.add(bits, &[], &[0x69], register, wide(bits, 0x87)).flags = Flags::Multiplication;
                self.add(bits, &[], &[0x6b], register, &[0xf1]).flags = Flags::Multiplication;
            }
        }
    }

    fn shifts(&mut self) {
        self.widths(|forms, bits, odd, registers| {
            for operation in 0..8 {
                let flags = if operation < 4 { Flags::Rotation } else { Flags::Shift };
                for count in [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64] {
                    let form = forms.add(bits, &[], &[0xc0 | odd], operation, &[count]);
                    (form.flags, form.count) = (flags, Some(count));
                }
                let form = forms.add(bits, &[], &[0xd0 | odd], operation, &[]);
                (form.flags, form.count) = (flags, Some(1));
                let form = forms.add(bits, &[], &[0xd2 | odd], operation, &[]);
                (form.flags, form.counts_by_cl) = (flags, true);
            }
            if odd == 0 {
                return;
            }
            for opcode in [0xa4, 0xac] {
                for register in registers {
                    for count in [0, 1, 5, 16, 17, 31, 63] {
                        let form = forms.add(bits, &[], &[0x0f, opcode], *register, &[count]);
                        (form.flags, form.count) = (Flags::DoubleShift, Some(count));
                    }
                    let form = forms.add(bits, &[], &[0x0f, opcode + 1], *register, &[]);
                    (form.flags, form.counts_by_cl) = (Flags::DoubleShift, true);
                }
            }
        });
    }

    fn bit_tests(&mut self) {
        for bits in [16, 32, 64] {
            for operation in 0..4 {
                let prefixes: &[&[u8]] = if operation == 0 { &[&[]] } else { &[&[], &[0xf0]] };
                for prefix in prefixes {
                    for register in [2, 6] {
                        let form = forms_bit(self, bits, prefix, 0xa3 | operation << 3, register);
                        (form.flags, form.is_far_bit_test) = (Flags::BitTest, true);
                    }
                    for position in [0, 1, 7, 15, 16, 31, 33, 63, 0x80, 0xff] {
                        self.add(bits, prefix, &[0x0f, 0xba], 4 + operation, &[position]).flags = Flags::BitTest;
                    }
                }
            }
        }
    }

    fn moves(&mut self) {
        self.widths(|forms, bits, odd, registers| {
            for register in registers {
                forms.add(bits, &[], &[0x88 | odd], *register, &[]);
                forms.add(bits, &[], &[0x8a | odd], *register, &[]);
            }
            forms.add(bits, &[], &[0xc6 | odd], 0, wide(bits, 0x93));
            if odd == 0 {
                return;
            }
            for register in registers {
                for opcode in [0xb6, 0xb7, 0xbe, 0xbf] {
                    forms.add(bits, &[], &[0x0f, opcode], *register, &[]);
                }
                if bits == 64 {
                    forms.add(bits, &[], &[0x63], *register, &[]);
                }
                if bits != 16 {
                    forms.add(bits, &[], &[0x0f, 0xc3], *register, &[]);
                }
                if std::arch::is_x86_feature_detected!("movbe") {
                    forms.add(bits, &[], &[0x0f, 0x38, 0xf0], *register, &[]);
                    forms.add(bits, &[], &[0x0f, 0x38, 0xf1], *register, &[]);
                }
            }
        });
    }

    fn exchanges(&mut self) {
        self.widths(|forms, bits, odd, registers| {
            for register in registers {
                forms.add(bits, &[], &[0x86 | odd], *register, &[]);
                for prefix in [&[][..], &[0xf0]] {
                    forms.add(bits, prefix, &[0x0f, 0xb0 | odd], *register, &[]);
                    forms.add(bits, prefix, &[0x0f, 0xc0 | odd], *register, &[]);
                }
            }
        });
        for bits in [32, 64] {
            for prefix in [&[][..], &[0xf0]] {
                self.add(bits, prefix, &[0x0f, 0xc7], 1, &[]);
            }
        }
    }

    fn conditional(&mut self) {
        for condition in 0..16 {
            self.add(8, &[], &[0x0f, 0x90 | condition], 0, &[]);
            for bits in [16, 32, 64] {
                self.add(bits, &[], &[0x0f, 0x40 | condition], 2, &[]);
            }
        }
    }

    fn strings(&mut self) {
        self.widths(|forms, bits, odd, _| {
            for opcode in [0xa4, 0xa6, 0xaa, 0xac, 0xae] {
                for prefix in [&[][..], &[0xf2], &[0xf3]] {
                    forms.push(bits, prefix, &[opcode | odd]).is_string = true;
                }
            }
        });
    }
}

fn forms_bit<'f>(forms: &'f mut Forms, bits: u32, prefix: &[u8], opcode: u8, register: u8) -> &'f mut Form {
    forms.add(bits, prefix, &[0x0f, opcode], register, &[])
}

/// An immediate of the width, at most 4 bytes.
fn wide(bits: u32, last: u8) -> &'static [u8] {
    match (bits, last) {
        (8, 0x87) => &[0x87],
        (8, 0x93) => &[0x93],
        (8, _) => &[0xa5],
        (16, 0x87) => &[0x34, 0x87],
        (16, 0x93) => &[0x34, 0x93],
        (16, _) => &[0x34, 0xa5],
        (_, 0x87) => &[0x12, 0x34, 0x56, 0x87],
        (_, 0x93) => &[0x12, 0x34, 0x56, 0x93],
        _ => &[0x12, 0x34, 0x56, 0xa5],
    }
}
