//! AES-256-XTS against the standard's vectors and another implementation.

use aes::Aes256;
use aes::cipher::{Array, KeyInit};
use dragonfly_storage::{
    BlockBackend, BlockError, DataUnit, EncryptedDisk, Extent, KeyError, RamDisk, Sector, XtsAes256,
};
use proptest::prelude::*;
use xts_mode::{Xts128, get_tweak_default};

use crate::cases;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The key of IEEE 1619's vectors 10 to 14.
fn standard_key() -> [u8; 64] {
    bytes(
        "2718281828459045235360287471352662497757247093699959574966967627
         3141592653589793238462643383279502884197169399375105820974944592",
    )
    .try_into()
    .expect("64 bytes")
}

/// The other implementation: one block at a time.
fn oracle(key: &[u8; 64]) -> Xts128<Aes256> {
    let half = |half: &[u8]| Aes256::new(&Array::try_from(half).expect("32 bytes"));
    Xts128::new(half(&key[..32]), half(&key[32..]))
}

#[test]
fn the_standards_vectors_are_met() {
    let cipher = XtsAes256::new(&standard_key()).expect("a good key");
    let plaintext: Vec<u8> = (0..512).map(|index| index as u8).collect();
    let mut vector_10 = plaintext.clone();
    cipher.encrypt(0xff, DataUnit::Bytes512, &mut vector_10);
    assert_eq!(vector_10, bytes(include_str!("vector_10.hex")));
    let mut data = vector_10;
    // The plaintext of each vector but the first is the ciphertext of the one before.
    for (number, unit, start) in [
        (11, 0xffff, "77a31251618a15e6b92d1d66dffe7b50"),
        (12, 0xff_ffff, "e387aaa58ba483afa7e8eb469778317e"),
        (13, 0xffff_ffff, "bf53d2dade78e822a4d949a9bc6766b0"),
        (14, 0xff_ffff_ffff, "64497e5a831e4a932c09be3e5393376d"),
    ] {
        data.copy_from_slice(&plaintext);
        cipher.encrypt(unit, DataUnit::Bytes512, &mut data);
        assert_eq!(data[..16], bytes(start), "vector {number}");
        cipher.decrypt(unit, DataUnit::Bytes512, &mut data);
        assert_eq!(data, plaintext, "vector {number}");
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn another_implementation_gives_the_same(
        key in proptest::array::uniform32(any::<u8>()),
        first_unit in prop_oneof![any::<u64>().prop_map(|unit| unit >> 1), 0..1000u64],
        units in 1..200usize,
        is_large in any::<bool>(),
        seed in any::<u8>(),
    ) {
        let unit = if is_large { DataUnit::Bytes4096 } else { DataUnit::Bytes512 };
        let unit_bytes = unit.bytes();
        let mut whole_key = [0x5a; 64];
        whole_key[..32].copy_from_slice(&key);
        let plaintext: Vec<u8> = (0..units * unit_bytes).map(|index| (index * 7) as u8 ^ seed).collect();
        let (mut ours, mut theirs) = (plaintext.clone(), plaintext.clone());
        let cipher = XtsAes256::new(&whole_key).expect("halves differ");
        cipher.encrypt(first_unit, unit, &mut ours);
        oracle(&whole_key).encrypt_area(&mut theirs, unit_bytes, first_unit.into(), get_tweak_default);
        prop_assert!(ours == theirs);
        cipher.decrypt(first_unit, unit, &mut ours);
        prop_assert!(ours == plaintext);
    }
}

#[test]
fn a_key_of_two_equal_halves_is_refused() {
    assert_eq!(XtsAes256::new(&[7; 64]).expect_err("equal halves"), KeyError::EqualHalves);
}

#[test]
fn a_key_is_never_shown() {
    let cipher = XtsAes256::new(&standard_key()).expect("a good key");
    assert_eq!(format!("{cipher:?}"), "XtsAes256(..)");
}

#[test]
fn the_disk_below_holds_each_unit_encrypted_under_its_number() {
    for (unit, unit_bytes) in [(DataUnit::Bytes512, 512), (DataUnit::Bytes4096, 4096)] {
        let ram = RamDisk::new(2048);
        let disk = EncryptedDisk::new(&ram, XtsAes256::new(&standard_key()).expect("a good key"), unit).expect("fits");
        let plaintext: Vec<u8> = (0..512 << 10).map(|index: usize| (index / 3) as u8).collect();
        disk.write(Sector(64), &plaintext).expect("it is written");
        let mut stored = vec![0; plaintext.len()];
        ram.read(Sector(64), &mut stored).expect("it is there");
        let mut expected = plaintext.clone();
        let first_unit = 64 * 512 / unit_bytes as u128;
        oracle(&standard_key()).encrypt_area(&mut expected, unit_bytes, first_unit, get_tweak_default);
        assert!(stored == expected);
        disk.read(Sector(64), &mut stored).expect("it is read");
        assert!(stored == plaintext);
    }
}

#[test]
fn zeroes_written_to_an_encrypted_disk_are_read_as_zeroes() {
    let ram = RamDisk::new(1024);
    let cipher = XtsAes256::new(&standard_key()).expect("a good key");
    let disk = EncryptedDisk::new(&ram, cipher, DataUnit::Bytes4096).expect("fits");
    disk.write(Sector(0), &[1; 512 << 10]).expect("it is written");
    disk.write_zeroes(Extent { first: Sector(8), count: 512 }, true).expect("it is zeroed");
    let mut read = vec![2; 512 << 10];
    disk.read(Sector(0), &mut read).expect("it is read");
    assert!(read[..4096].iter().all(|byte| *byte == 1));
    assert!(read[4096..520 * 512].iter().all(|byte| *byte == 0));
    assert!(read[520 * 512..].iter().all(|byte| *byte == 1));
}

#[test]
fn parts_of_a_data_unit_cannot_be_written() {
    let cipher = XtsAes256::new(&standard_key()).expect("a good key");
    let disk = EncryptedDisk::new(RamDisk::new(64), cipher, DataUnit::Bytes4096).expect("fits");
    assert_eq!(disk.geometry().block_bytes, 4096);
    assert_eq!(disk.write(Sector(0), &[0; 512]), Err(BlockError::Unaligned));
    assert_eq!(disk.read(Sector(1), &mut [0; 4096]), Err(BlockError::Unaligned));
    assert_eq!(disk.write(Sector(64), &[0; 4096]), Err(BlockError::OutOfRange));
}

#[test]
fn a_disk_that_is_no_whole_number_of_units_is_refused() {
    let cipher = XtsAes256::new(&standard_key()).expect("a good key");
    let refused = EncryptedDisk::new(RamDisk::new(63), cipher, DataUnit::Bytes4096);
    assert_eq!(refused.err(), Some(BlockError::Unaligned));
}
