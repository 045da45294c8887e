//! Power-off values in the bytes of a DSDT.

use dragonfly_acpi::{SleepType, sleep_type_s5};

use crate::builder::{bytes, name_s5};

#[test]
fn each_encoding_of_an_integer_is_read() {
    for (encoding, value) in [
        (&[0x00][..], 0),
        (&[0x01], 1),
        (&[0x0a, 7], 7),
        (&[0x0b, 6, 0], 6),
        (&[0x0c, 5, 0, 0, 0], 5),
        (&[0x0e, 4, 0, 0, 0, 0, 0, 0, 0], 4),
    ] {
        let aml = name_s5(2, &bytes(&[encoding, &[0x0a, 3]]));
        assert_eq!(sleep_type_s5(&aml), Some(SleepType { a: value, b: 3 }), "{encoding:x?}");
        let aml = name_s5(2, &bytes(&[&[0x0a, 3], encoding]));
        assert_eq!(sleep_type_s5(&aml), Some(SleepType { a: 3, b: value }), "{encoding:x?}");
    }
}

#[test]
fn the_name_may_start_at_the_root_and_the_length_may_take_more_bytes() {
    let aml = bytes(&[&[0x08, b'\\'], b"_S5_", &[0x12, 0x46, 0x00, 2, 0x01, 0x01, 0x00]]);
    assert_eq!(sleep_type_s5(&aml), Some(SleepType { a: 1, b: 1 }));
    let aml = bytes(&[&[0x08], b"_S5_", &[0x12, 0x8a, 0x00, 0x00, 2, 0x0a, 5, 0x0a, 5, 0x00, 0x00]]);
    assert_eq!(sleep_type_s5(&aml), Some(SleepType { a: 5, b: 5 }));
}

#[test]
fn a_mention_of_the_name_that_is_no_definition_is_passed_over() {
    let mention = bytes(&[&[0x70], b"_S5_", &[0x12, 0x04, 2, 0x01, 0x01]]);
    assert_eq!(sleep_type_s5(&mention), None);
    let aml = bytes(&[&mention, b"_S5_", &name_s5(2, &[0x0a, 5, 0x00])]);
    assert_eq!(sleep_type_s5(&aml), Some(SleepType { a: 5, b: 0 }));
}

#[test]
fn what_is_no_package_of_two_sleep_types_is_none() {
    for aml in [
        name_s5(1, &[0x01]),
        name_s5(2, &[0x01]),
        name_s5(2, &[0x0a, 8, 0x00]),
        name_s5(2, &[0x0b, 5, 1, 0x00]),
        name_s5(2, &[0xff, 0x00]),
        bytes(&[&[0x08], b"_S5_", &[0x12]]),
        bytes(&[&[0x08], b"_S5_", &[0x12, 0x00, 2, 1, 1]]),
        bytes(&[&[0x08], b"_S5_", &[0x12, 0xff, 0xff, 0xff, 0xff, 2, 1, 1]]),
        bytes(&[&[0x08], b"_S5_"]),
        vec![],
    ] {
        assert_eq!(sleep_type_s5(&aml), None, "{aml:x?}");
    }
}
