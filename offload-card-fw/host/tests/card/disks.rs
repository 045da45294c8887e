//! Reading and writing.

use std::path::Path;

use dragonfly_virtqueue::RingFeatures;

use crate::{Setup, front_end::*};

pub const LAYOUTS: [RingFeatures; 2] = [RingFeatures::empty(), RingFeatures::RING_PACKED];

#[test]
fn what_a_guest_writes_is_in_the_image_and_read_back() {
    for layout in LAYOUTS {
        let setup = Setup::new("serial = 'S-7'");
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        write_and_read(&mut guest);
        assert_was_written(&setup.end());
    }
}

/// Writes every third sector, reads them again, and the serial number `S-7`.
pub fn write_and_read(guest: &mut Guest) {
    for sector in 0..200u64 {
        guest.fill(0, &[sector as u8 + 1; 512]);
        assert_eq!(guest.request((sector % 2) as usize, WRITE, sector * 3, 512), 0);
    }
    assert_eq!(guest.request(0, FLUSH, 0, 0), 0);
    for sector in 0..200u64 {
        assert_eq!(guest.request(1, READ, sector * 3, 512), 0);
        assert_eq!(guest.data(0, 512), [sector as u8 + 1; 512], "{:?} sector {sector}", guest.features);
    }
    assert_eq!(guest.request(0, GET_ID, 0, 20), 0);
    assert_eq!(guest.data(0, 20), b"S-7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

/// A disk that was written so.
pub fn assert_was_written(image: &[u8]) {
    for sector in 0..200 {
        assert!(image[sector * 3 * 512..][..512].iter().all(|byte| *byte == sector as u8 + 1));
    }
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let setup = Setup::new("read_only = true");
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    guest.fill(0, &[5; 512]);
    assert_eq!(guest.request(0, WRITE, 0, 512), 1);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
    assert!(setup.end().iter().all(|byte| *byte == 0));
}

#[test]
fn an_encrypted_disk_is_read_by_the_guest_and_not_in_the_image() {
    let keys = tempfile::tempdir().unwrap();
    let setup = Setup::new(&key_file(keys.path()));
    write_secret(&setup);
    assert_hides_secret(&setup.end());
}

/// Digits of two keys, as a key file has them.
pub fn key() -> String {
    "0123456789abcdef".repeat(4) + &"fedcba9876543210".repeat(4)
}

/// Writes a key file there: what a machine file says of it.
pub fn key_file(folder: &Path) -> String {
    let path = folder.join("key");
    std::fs::write(&path, key()).unwrap();
    format!("key_file = '{}'", path.display())
}

/// Writes a sector, and reads it again.
pub fn write_secret(setup: &Setup) {
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    guest.fill(0, &[0x61; 512]);
    assert_eq!(guest.request(0, WRITE, 9, 512), 0);
    assert_eq!(guest.request(0, READ, 9, 512), 0);
    assert_eq!(guest.data(0, 512), [0x61; 512]);
}

/// A disk to which that was written, encrypted.
pub fn assert_hides_secret(image: &[u8]) {
    assert!(!image.windows(8).any(|bytes| bytes == [0x61; 8]));
    assert!(image[9 * 512..10 * 512].iter().any(|byte| *byte != 0));
}

#[test]
fn a_limit_makes_requests_wait_and_none_is_lost() {
    let setup = Setup::new("iops = 100\niops_burst = 1");
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    let begin = std::time::Instant::now();
    for place in 0..20 {
        guest.add(0, place, READ, place, 512).unwrap();
    }
    guest.publish(0);
    for _ in 0..20 {
        guest.wait_used(0);
    }
    // The first passes at once, each other one after ten milliseconds.
    assert!(begin.elapsed().as_millis() >= 190, "{:?}", begin.elapsed());
}
