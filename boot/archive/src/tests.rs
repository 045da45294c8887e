use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use crate::{Archive, ArchiveError, Entry};

/// Appends a member as `cpio -H newc` writes it.
fn append(archive: &mut Vec<u8>, name: &str, data: &[u8]) {
    let fields = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    for value in fields {
        archive.extend_from_slice(format!("{value:08X}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in files {
        append(&mut bytes, name, data);
    }
    append(&mut bytes, "TRAILER!!!", b"");
    bytes
}

/// Overwrites a header field of the first member.
fn set_field(bytes: &mut [u8], index: usize, digits: &[u8; 8]) {
    bytes[6 + index * 8..][..8].copy_from_slice(digits);
}

fn first_error(bytes: &[u8]) -> Option<ArchiveError> {
    Archive::new(bytes).entries().find_map(Result::err)
}

#[test]
fn files_come_in_the_order_in_which_they_were_stored() {
    let bytes = archive(&[("bundle.toml", b"[system]"), ("supervisor", b"\x7fELF"), ("empty", b"")]);
    let entries: Result<Vec<_>, _> = Archive::new(&bytes).entries().collect();
    assert_eq!(
        entries,
        Ok(vec![
            Entry { name: "bundle.toml", data: b"[system]" },
            Entry { name: "supervisor", data: b"\x7fELF" },
            Entry { name: "empty", data: b"" },
        ])
    );
}

#[test]
fn find_gives_the_first_file_of_a_name() {
    let bytes = archive(&[("a", b"1"), ("b", b"2"), ("b", b"3")]);
    assert_eq!(Archive::new(&bytes).find("b"), Ok(Some(Entry { name: "b", data: b"2" })));
    assert_eq!(Archive::new(&bytes).find("c"), Ok(None));
}

#[test]
fn bytes_after_the_trailer_are_ignored() {
    let mut bytes = archive(&[("a", b"1")]);
    bytes.extend_from_slice(&[0xff; 300]);
    assert_eq!(Archive::new(&bytes).entries().count(), 1);
    assert_eq!(first_error(&bytes), None);
}

#[test]
fn an_error_names_the_member_and_ends_the_iteration() {
    let good = archive(&[("file", b"data")]);
    let magic = good.len() - 124;
    let mut bytes = good.clone();
    bytes[magic] = b'X';
    assert_eq!(first_error(&bytes), Some(ArchiveError::BadMagic { offset: magic }));
    let mut entries = Archive::new(&bytes).entries();
    assert!(entries.by_ref().any(|entry| entry.is_err()));
    assert!(entries.next().is_none());
}

#[test]
fn malformed_members_are_refused() {
    let good = archive(&[("file", b"data")]);
    let with_field = |index, digits| {
        let mut bytes = good.clone();
        set_field(&mut bytes, index, digits);
        first_error(&bytes)
    };
    assert_eq!(with_field(6, b"0000000G"), Some(ArchiveError::BadNumber { offset: 0 }));
    assert_eq!(with_field(6, b"+0000004"), Some(ArchiveError::BadNumber { offset: 0 }));
    assert_eq!(with_field(6, b"FFFFFFFF"), Some(ArchiveError::Truncated { offset: 0 }));
    assert_eq!(with_field(11, b"FFFFFFFF"), Some(ArchiveError::Truncated { offset: 0 }));
    assert_eq!(with_field(11, b"00000000"), Some(ArchiveError::BadName { offset: 0 }));
    assert_eq!(with_field(11, b"00000001"), Some(ArchiveError::BadName { offset: 0 }));
    assert_eq!(with_field(11, b"00000004"), Some(ArchiveError::BadName { offset: 0 }));
    assert_eq!(with_field(11, b"00000006"), Some(ArchiveError::BadName { offset: 0 }));

    let mut bytes = good;
    bytes[110] = 0xff;
    assert_eq!(first_error(&bytes), Some(ArchiveError::BadName { offset: 0 }));
}

#[test]
fn an_archive_without_a_trailer_is_truncated() {
    let mut bytes = Vec::new();
    assert_eq!(first_error(&bytes), Some(ArchiveError::Truncated { offset: 0 }));
    append(&mut bytes, "a", b"1");
    assert_eq!(first_error(&bytes), Some(ArchiveError::Truncated { offset: bytes.len() }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_stored_is_read_back(
        files in prop::collection::vec(("[a-z./]{1,20}", prop::collection::vec(any::<u8>(), 0..100)), 0..8)
    ) {
        let listed: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        let bytes = archive(&listed);
        let read: Result<Vec<_>, _> = Archive::new(&bytes).entries().collect();
        let expected = listed.iter().map(|(name, data)| Entry { name, data }).collect();
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn an_archive_cut_anywhere_gives_a_prefix_of_its_files_and_an_error(
        data in prop::collection::vec(any::<u8>(), 0..50), cut in any::<prop::sample::Index>()
    ) {
        let bytes = archive(&[("one", &data), ("two", &data)]);
        let cut = &bytes[..cut.index(bytes.len())];
        let entries: Vec<_> = Archive::new(cut).entries().collect();
        prop_assert!(entries.len() <= 3);
        prop_assert!(entries.last().is_some_and(Result::is_err));
        for (entry, name) in entries.iter().filter_map(|entry| entry.ok()).zip(["one", "two"]) {
            prop_assert_eq!(entry, Entry { name, data: &data });
        }
    }
}
