use dragonfly_abi::Rights;

use super::{Program, ProgramError, Segment};

const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

/// A program header to put into a file: type, flags, address, size in the file, size in memory.
type Header = (u32, u32, u64, u64, u64);

const TEXT: Header = (1, R | X, 0x20_0000, 0x10, 0x10);
const DATA: Header = (1, R | W, 0x20_1008, 0x20, 0x1800);

/// An ELF file of these program headers (ELF-64 Object File Format, figures 2 and 6); all data is 0xda.
fn file(entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend_from_slice(&2_u16.to_le_bytes()); // e_type: ET_EXEC
    bytes.extend_from_slice(&62_u16.to_le_bytes()); // e_machine: x86-64
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    for word in [entry, 64, 0] {
        bytes.extend_from_slice(&word.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64, 56, headers.len() as u16, 64, 0, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    let data_start = 64 + 56 * headers.len() as u64;
    for (kind, flags, address, file_size, memory_size) in headers {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [data_start, *address, *address, *file_size, *memory_size, 0x1000] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes.resize(bytes.len() + 0x100, 0xda);
    bytes
}

fn error(entry: u64, headers: &[Header]) -> Option<ProgramError> {
    Program::parse(&file(entry, headers)).err()
}

#[test]
fn segments_become_whole_pages_by_rising_address() {
    let bytes = file(0x20_0004, &[DATA, TEXT]);
    let program = Program::parse(&bytes).unwrap();
    assert_eq!(program.entry, 0x20_0004);
    let text = Segment {
        address: 0x20_0000,
        size: 0x1000,
        rights: Rights::READ | Rights::EXECUTE,
        offset: 0,
        data: &[0xda; 0x10],
    };
    let data = Segment {
        address: 0x20_1000,
        size: 0x2000,
        rights: Rights::READ | Rights::WRITE,
        offset: 8,
        data: &[0xda; 0x20],
    };
    assert_eq!(program.segments, [text, data]);
}

#[test]
fn an_empty_segment_is_passed_over() {
    let bytes = file(0x20_0000, &[TEXT, (1, R | W, 0x20_0000, 0, 0)]);
    assert_eq!(Program::parse(&bytes).unwrap().segments.len(), 1);
}

#[test]
fn what_is_no_static_program_for_this_machine_is_refused() {
    assert_eq!(Program::parse(b""), Err(ProgramError::Malformed));
    assert_eq!(Program::parse(b"#!/bin/sh"), Err(ProgramError::Malformed));
    let mut other = file(0x20_0000, &[TEXT]);
    other[18] = 183;
    assert_eq!(Program::parse(&other), Err(ProgramError::WrongMachine));
    let mut position_independent = file(0x20_0000, &[TEXT]);
    position_independent[16] = 3;
    assert_eq!(Program::parse(&position_independent), Err(ProgramError::NotStatic));
    for kind in [2, 3, 7] {
        assert_eq!(error(0x20_0000, &[TEXT, (kind, R, 0x20_1000, 8, 8)]), Some(ProgramError::NotStatic));
    }
    assert_eq!(error(0x20_0000, &[]), Some(ProgramError::Empty));
    assert_eq!(error(0x20_0000, &[(4, R, 0x20_0000, 8, 8)]), Some(ProgramError::Empty));
}

#[test]
fn a_segment_outside_the_addresses_for_programs_is_refused() {
    for (address, size) in [(0x1f_ffff, 1), (0x3fff_ffff, 2), (0x20_0000, 0x4000_0000), (u64::MAX, 1), (1 << 47, 1)] {
        let refused = error(0x20_0000, &[(1, R | X, address, 0, size)]);
        assert_eq!(refused, Some(ProgramError::OutOfRange { address }));
    }
}

#[test]
fn segments_that_share_a_page_are_refused() {
    let data = (1, R | W, 0x20_0800, 8, 8);
    assert_eq!(error(0x20_0000, &[TEXT, data]), Some(ProgramError::Overlap { address: 0x20_0000 }));
}

#[test]
fn only_three_combinations_of_rights_are_accepted() {
    for flags in [0, W, X, W | X, R | W | X] {
        let address = 0x20_0000;
        assert_eq!(error(address, &[(1, flags, address, 8, 8)]), Some(ProgramError::BadRights { address }));
    }
}

#[test]
fn data_outside_the_file_or_larger_than_its_segment_is_refused() {
    for (file_size, memory_size) in [(0x1000, 0x1000), (9, 8)] {
        let refused = error(0x20_0000, &[(1, R | X, 0x20_0000, file_size, memory_size)]);
        assert_eq!(refused, Some(ProgramError::Malformed));
    }
    assert_eq!(error(0x20_0000, &[(1, R | X, 0x20_0000, u64::MAX, 0x1000)]), Some(ProgramError::Malformed));
}

#[test]
fn the_entry_must_lie_in_an_executable_segment() {
    for address in [0, 0x20_1008, 0x20_3000, u64::MAX] {
        assert_eq!(error(address, &[TEXT, DATA]), Some(ProgramError::BadEntry { address }));
    }
}

#[test]
fn more_than_sixteen_segments_are_refused() {
    let headers: Vec<Header> = (0..17).map(|page| (1, R | X, 0x20_0000 + page * 0x1000, 8, 8)).collect();
    assert!(Program::parse(&file(0x20_0000, &headers[..16])).is_ok());
    assert_eq!(error(0x20_0000, &headers), Some(ProgramError::TooManySegments));
}
