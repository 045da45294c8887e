//! A machine in miniature: RAM, what a boot loader tells, a kernel's file, and an independent reading of page tables.

#![expect(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;

use dragonfly_handoff::{KERNEL_BASE, PhysAddr, PhysRange};
use dragonfly_multiboot2::arena::{self, Arena};
use dragonfly_multiboot2::boot_info::BootInfo;
use dragonfly_multiboot2::load::{Launch, load};
use dragonfly_multiboot2::machine::{Cpu, Machine};
use dragonfly_multiboot2::{LoadError, kernel_image::KernelImage};

pub const MIB: u64 = 1 << 20;

pub fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(PhysAddr(base), size).unwrap()
}

// What a boot loader tells.

pub const CMDLINE: u32 = 1;
pub const MODULE: u32 = 3;
pub const MMAP: u32 = 6;
pub const EFI64: u32 = 12;
pub const ACPI_V1: u32 = 14;
pub const ACPI_V2: u32 = 15;
pub const EFI_MMAP: u32 = 17;
pub const EFI_BS: u32 = 18;

pub type Tag = (u32, Vec<u8>);

pub fn tags(list: &[Tag]) -> impl Iterator<Item = (u32, &[u8])> + Clone {
    list.iter().map(|(kind, payload)| (*kind, payload.as_slice()))
}

pub fn module(start: u32, end: u32, text: &str) -> Tag {
    (MODULE, [&start.to_le_bytes()[..], &end.to_le_bytes(), text.as_bytes(), &[0]].concat())
}

pub fn command_line(text: &str) -> Tag {
    (CMDLINE, [text.as_bytes(), &[0]].concat())
}

/// Entries of base, size and ACPI's number for the type.
pub fn bios_map(entries: &[(u64, u64, u32)]) -> Tag {
    let mut bytes = [24u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    for (base, size, kind) in entries {
        bytes.extend([&base.to_le_bytes()[..], &size.to_le_bytes(), &kind.to_le_bytes(), &[0; 4]].concat());
    }
    (MMAP, bytes)
}

/// Entries of UEFI's number for the type, base, pages and attributes, in descriptors of 48 bytes, as EDK II has them.
pub fn uefi_map(entries: &[(u32, u64, u64, u64)]) -> Tag {
    let mut bytes = [48u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
    for (kind, base, pages, attributes) in entries {
        let words = [u64::from(*kind), *base, 0, *pages, *attributes, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    (EFI_MMAP, bytes)
}

// A kernel's file.

pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;

/// A program header, and the bytes that its file range is filled with.
#[derive(Clone, Debug)]
pub struct Header {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
    pub memory_size: u64,
}

impl Header {
    /// A segment whose bytes lie in the file where its address lies in the kernel's space.
    pub fn at(place: u64, file_size: u64, memory_size: u64, flags: u32) -> Self {
        Self { kind: 1, flags, offset: place + 0x1000, address: KERNEL_BASE.0 + place, file_size, memory_size }
    }
}

/// The kernel's file as hostile tests want it: headers as given, whether or not they make sense.
#[derive(Clone, Debug)]
pub struct ElfFile {
    pub class: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub headers: Vec<Header>,
    pub length: usize,
}

impl ElfFile {
    /// Code, constants, and data with zeros behind.
    pub fn valid() -> Self {
        Self {
            class: 2,
            kind: 2,
            machine: 62,
            entry: KERNEL_BASE.0 + 0x10,
            headers: vec![
                Header::at(0, 0x1800, 0x1800, R | X),
                Header::at(0x2000, 0x300, 0x300, R),
                Header::at(0x3400, 0x500, 0x5000, R | W),
            ],
            length: 0x8000,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file: Vec<u8> = (0..self.length).map(|at| (at / 7) as u8 | 1).collect();
        let mut head = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for half in [self.kind, self.machine] {
            head.extend(half.to_le_bytes());
        }
        head.extend(1u32.to_le_bytes());
        for word in [self.entry, 64, 0] {
            head.extend(word.to_le_bytes());
        }
        head.extend(0u32.to_le_bytes());
        for half in [64, 56, self.headers.len() as u16, 64, 0, 0] {
            head.extend(half.to_le_bytes());
        }
        for header in &self.headers {
            head.extend([header.kind.to_le_bytes(), header.flags.to_le_bytes()].concat());
            let words = [header.offset, header.address, header.address, header.file_size, header.memory_size, 0x1000];
            head.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        let length = head.len().min(file.len());
        file[..length].copy_from_slice(&head[..length]);
        file
    }
}

/// What memory at and above [`KERNEL_BASE`] is to hold: for each page its bytes, whether writable, whether executable.
pub fn expected_pages(file: &ElfFile) -> BTreeMap<u64, (Vec<u8>, bool, bool)> {
    let bytes = file.bytes();
    let mut pages = BTreeMap::new();
    for header in &file.headers {
        for at in 0..header.memory_size {
            let address = header.address + at;
            let page = pages
                .entry(address & !0xfff)
                .or_insert_with(|| (vec![0; 0x1000], header.flags & W != 0, header.flags & X != 0));
            if at < header.file_size {
                page.0[(address & 0xfff) as usize] = bytes[(header.offset + at) as usize];
            }
        }
    }
    pages
}

// RAM and page tables.

/// RAM from address 0.
pub struct Ram(pub Vec<u8>);

/// A page that the page tables map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub virt: u64,
    pub phys: u64,
    pub size: u64,
    pub writable: bool,
    pub executable: bool,
    pub user: bool,
}

impl Ram {
    pub fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().unwrap())
    }

    pub fn bytes(&self, address: u64, size: u64) -> &[u8] {
        &self.0[address as usize..(address + size) as usize]
    }

    /// All pages, as a CPU with no-execute enabled would see them (SDM 3A, 4.5).
    pub fn pages(&self, root: u64) -> Vec<Page> {
        let mut pages = Vec::new();
        let whole = Page { virt: 0, phys: root, size: 1 << 48, writable: true, executable: true, user: true };
        self.collect(whole, 4, &mut pages);
        pages
    }

    fn collect(&self, table: Page, level: u32, pages: &mut Vec<Page>) {
        let size = table.size / 512;
        for index in 0..512 {
            let entry = self.word(table.phys + index * 8);
            if entry & 1 == 0 {
                assert_eq!(entry, 0);
                continue;
            }
            let virt = table.virt | (index * size);
            let page = Page {
                virt: if level == 4 && index >= 256 { virt | 0xffff << 48 } else { virt },
                phys: entry & 0x000f_ffff_ffff_f000,
                size,
                writable: table.writable && entry & 2 != 0,
                executable: table.executable && entry >> 63 == 0,
                user: table.user && entry & 4 != 0,
            };
            if level == 1 || entry & 0x80 != 0 { pages.push(page) } else { self.collect(page, level - 1, pages) }
        }
    }
}

// All of it together.

pub const LOADER_IMAGE: (u64, u64) = (2 * MIB, 0x3_0000);
pub const LOADER_CODE: (u64, u64) = (2 * MIB, 0x9000);
pub const KERNEL_FILE: u64 = 3 * MIB;
pub const RAM_SIZE: u64 = 16 * MIB;

pub const CPU: Cpu = Cpu { no_execute: true, gib_pages: true, physical_address_bits: 40 };

/// What GRUB would tell on a BIOS machine of 16 MiB.
pub fn boot_tags(kernel_size: usize, bundle: (u32, u32)) -> Vec<Tag> {
    vec![
        command_line("log=debug exit=qemu"),
        module(KERNEL_FILE as u32, KERNEL_FILE as u32 + kernel_size as u32, "kernel"),
        module(bundle.0, bundle.1, "bundle"),
        bios_map(&[(0, 0x9_fc00, 1), (0x9_fc00, 0x400, 2), (0xf_0000, 0x1_0000, 2), (MIB, RAM_SIZE - MIB, 1)]),
        (ACPI_V1, b"RSD PTR 20 bytes.... and more".to_vec()),
    ]
}

/// Loads `kernel` as the program would; returns RAM as it is afterwards, too.
pub fn run(list: &[Tag], kernel: &[u8], cpu: Cpu) -> (Ram, Result<Launch, LoadError>) {
    let mut ram = Ram(vec![0xa5; RAM_SIZE as usize]);
    let launch = load_into(&mut ram, list, kernel, cpu);
    (ram, launch)
}

fn load_into(ram: &mut Ram, list: &[Tag], kernel: &[u8], cpu: Cpu) -> Result<Launch, LoadError> {
    let boot = BootInfo::read(tags(list))?;
    let machine = Machine {
        cpu,
        boot,
        boot_info_memory: range(0x8_0000, 0x500),
        loader_image: range(LOADER_IMAGE.0, LOADER_IMAGE.1),
        loader_code: range(LOADER_CODE.0, LOADER_CODE.1),
    };
    let free = arena::choose(&machine.memory_map_before()?).ok_or(LoadError::NoArena)?;
    let bundle = ram.0.get(boot.bundle.base().0 as usize..boot.bundle.end().0 as usize).unwrap_or_default().to_vec();
    // A map that tells of more RAM than there is can only be answered here; a machine would have the RAM.
    let memory = ram.0.get_mut(free.base().0 as usize..free.end().0 as usize).ok_or(LoadError::NoArena)?;
    load(&machine, kernel, &bundle, Arena::new(free.base(), memory))
}

/// Whether the properties of a checked kernel file hold, as its documentation words them.
pub fn check_image(image: &KernelImage<'_>) {
    let mut end = KERNEL_BASE.0;
    for segment in &image.segments {
        assert!(segment.virtual_base.0 >= end && segment.virtual_base.is_page_aligned());
        assert!(segment.size > 0 && segment.size % 0x1000 == 0);
        assert!(segment.offset + segment.contents.len() as u64 <= segment.size);
        assert!(!segment.flags.is_all());
        end = segment.virtual_base.0.checked_add(segment.size).unwrap();
    }
}
