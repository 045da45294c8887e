//! Tiny kernels of each protocol, and a guest's memory that records what is written.

use std::collections::BTreeMap;

use dragonfly_guest_boot::{GuestMemory, GuestPhys, Inaccessible, LoadError, Loaded, MemoryLayout, Request, load};

pub const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A machine with this much RAM below the devices.
pub fn layout(low_ram_bytes: u64) -> MemoryLayout {
    MemoryLayout {
        low_ram_bytes,
        high_ram_bytes: 0,
        acpi_tables: GuestPhys(0xe_0000)..GuestPhys(0xf_0000),
        rsdp: GuestPhys(0xe_0000),
        ecam: GuestPhys(0xe000_0000)..GuestPhys(0xe010_0000),
    }
}

/// RAM that is filled with ones at first, as after an earlier run of the guest, and that refuses to be written twice.
pub struct FakeMemory {
    layout: MemoryLayout,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    written: BTreeMap<u64, u64>,
    pub zeroed: Vec<(u64, u64)>,
}

impl FakeMemory {
    pub fn new(layout: &MemoryLayout) -> Self {
        Self { layout: layout.clone(), pages: BTreeMap::new(), written: BTreeMap::new(), zeroed: Vec::new() }
    }

    pub fn bytes(&self, address: u64, size: usize) -> Vec<u8> {
        (address..)
            .take(size)
            .map(|at| self.pages.get(&(at / PAGE)).map_or(0xff, |page| page[(at % PAGE) as usize]))
            .collect()
    }

    pub fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.bytes(address, 4).try_into().unwrap())
    }

    pub fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().unwrap())
    }

    /// A text with a final NUL.
    pub fn text(&self, address: u64) -> String {
        let bytes = (address..).map(|at| self.bytes(at, 1)[0]).take_while(|byte| *byte != 0).collect();
        String::from_utf8(bytes).unwrap()
    }

    fn claim(&mut self, address: u64, size: u64) {
        let end = address.checked_add(size).unwrap();
        let map = self.layout.map();
        let is_ram =
            map.iter().any(|entry| entry.kind.number() == 1 && entry.range.start <= address && end <= entry.range.end);
        assert!(is_ram || size == 0, "{address:#x}..{end:#x} is no RAM");
        if let Some((start, last_end)) = self.written.range(..end).next_back() {
            assert!(*last_end <= address || size == 0, "{address:#x}..{end:#x} meets {start:#x}..{last_end:#x}");
        }
        if size > 0 {
            self.written.insert(address, end);
        }
    }
}

impl GuestMemory for FakeMemory {
    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.claim(address.0, bytes.len() as u64);
        for (at, byte) in (address.0..).zip(bytes) {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Box::new([0xff; PAGE as usize]));
            page[(at % PAGE) as usize] = *byte;
        }
        Ok(())
    }

    fn zero(&mut self, address: GuestPhys, size_bytes: u64) -> Result<(), Inaccessible> {
        self.claim(address.0, size_bytes);
        self.zeroed.push((address.0, size_bytes));
        Ok(())
    }
}

/// Loads into a machine with this much RAM.
pub fn load_into(
    low_ram_bytes: u64,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    command_line: &str,
) -> Result<(Loaded, FakeMemory), LoadError> {
    let layout = layout(low_ram_bytes);
    let mut memory = FakeMemory::new(&layout);
    let request = Request { kernel, initrd, command_line: command_line.as_bytes(), memory: &layout };
    load(&request, &mut memory).map(|loaded| (loaded, memory))
}

pub fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage of protocol 2.15 for 16 MiB that needs 8 MiB there.
pub fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 512 * 3 + 0x1000];
    file[512 * 3..].fill(0xcc);
    file[0x1f1] = 2;
    put(&mut file, 0x1f4, &0x100_u32.to_le_bytes());
    put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x020f_u16.to_le_bytes());
    file[0x211] = 1;
    put(&mut file, 0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(&mut file, 0x230, &0x20_0000_u32.to_le_bytes());
    file[0x234] = 1;
    put(&mut file, 0x236, &0x3f_u16.to_le_bytes());
    put(&mut file, 0x238, &2047_u32.to_le_bytes());
    put(&mut file, 0x258, &(16 * MIB).to_le_bytes());
    put(&mut file, 0x260, &(8 * MIB as u32).to_le_bytes());
    // Code after the header, which is no part of it.
    put(&mut file, 0x26c, &[0xf4; 16]);
    file
}

/// Where the contents of the ELF files' loaded segment begin in the file.
pub const ELF_CODE: usize = 0x200;

/// A 64-bit ELF file with one segment of 0x100 bytes, 0x3000 in memory, at 1 MiB, and a note with this type.
pub fn elf64(note_type: u32) -> Vec<u8> {
    let mut file = vec![0; ELF_CODE + 0x100];
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut file, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut file, 24, &0x10_0010_u64.to_le_bytes());
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 52, &[64, 0, 56, 0, 2, 0, 64, 0]);
    let segments: [(u32, u64, u64, u64, u64); 2] = [(1, 0x200, MIB, 0x100, 0x3000), (4, 0x180, 0, 20, 20)];
    for (index, (kind, offset, address, file_size, memory_size)) in segments.into_iter().enumerate() {
        let header = 64 + 56 * index;
        put(&mut file, header, &kind.to_le_bytes());
        put(&mut file, header + 8, &offset.to_le_bytes());
        put(&mut file, header + 16, &(address | 0xffff_ffff_8000_0000).to_le_bytes());
        put(&mut file, header + 24, &address.to_le_bytes());
        put(&mut file, header + 32, &file_size.to_le_bytes());
        put(&mut file, header + 40, &memory_size.to_le_bytes());
        put(&mut file, header + 48, &4_u64.to_le_bytes());
    }
    put(&mut file, 0x180, &4_u32.to_le_bytes());
    put(&mut file, 0x184, &4_u32.to_le_bytes());
    put(&mut file, 0x188, &note_type.to_le_bytes());
    put(&mut file, 0x18c, b"Xen\0");
    put(&mut file, 0x190, &0x10_0020_u32.to_le_bytes());
    file[ELF_CODE..].fill(0xcc);
    file
}

/// A PVH kernel.
pub fn pvh() -> Vec<u8> {
    elf64(18)
}

/// A 32-bit ELF file with a Multiboot header at the start of its one segment, at 1 MiB.
pub fn multiboot_elf() -> Vec<u8> {
    let mut file = vec![0; ELF_CODE + 0x100];
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 1, 1, 1]);
    put(&mut file, 16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    put(&mut file, 24, &0x10_0010_u32.to_le_bytes());
    put(&mut file, 28, &52_u32.to_le_bytes());
    put(&mut file, 40, &[52, 0, 32, 0, 1, 0, 40, 0]);
    for (index, word) in [1, 0x200, MIB as u32, MIB as u32, 0x100, 0x3000, 5, 0x1000].into_iter().enumerate() {
        put(&mut file, 52 + 4 * index, &u32::to_le_bytes(word));
    }
    file[ELF_CODE..].fill(0xcc);
    multiboot_header(&mut file, ELF_CODE, &[], 3);
    file
}

/// A file without a format of its own, whose Multiboot header says: bytes from 0x40 on to 2 MiB, up to the end of the file,
/// 0x1000 more of zeros, entry at 2 MiB + 0x80.
pub fn multiboot_flat() -> Vec<u8> {
    let mut file = vec![0xcc; 0x200];
    let base = 2 * MIB as u32;
    multiboot_header(&mut file, 0x60, &[base + 0x20, base, 0, base + 0x11c0, base + 0x80], 0x1_0003);
    file
}

pub fn multiboot_header(file: &mut [u8], offset: usize, addresses: &[u32], flags: u32) {
    put(file, offset, &0x1bad_b002_u32.to_le_bytes());
    put(file, offset + 4, &flags.to_le_bytes());
    put(file, offset + 8, &0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags).to_le_bytes());
    for (index, address) in addresses.iter().enumerate() {
        put(file, offset + 12 + 4 * index, &address.to_le_bytes());
    }
}
