//! Chains as streams of bytes, however they are cut up.

#[expect(dead_code, reason = "chains come from a driver here, not from raw rings")]
mod common;

use common::{DATA, MEMORY, Ring};
use dragonfly_virtqueue::host::{Buffer, Driver, SplitDriver};
use dragonfly_virtqueue::{
    Chain, ChainError, GuestAddress, GuestMemory, MemoryError, Notification, Position, RingFeatures,
};
use zerocopy::little_endian::U32;

/// A chain of these buffers.
fn chain(ring: &mut Ring, buffers: &[Buffer]) -> Chain {
    let mut driver = SplitDriver::new(&ring.config, &ring.memory);
    driver.add(&ring.memory, buffers, buffers.len(), None).unwrap();
    driver.publish(&ring.memory);
    ring.pop().unwrap().unwrap()
}

fn ring() -> Ring {
    Ring::new(RingFeatures::empty())
}

#[test]
fn reading_goes_on_across_segments_of_any_length() {
    let mut ring = ring();
    let chain = chain(
        &mut ring,
        &[Buffer::readable(DATA, 3), Buffer::readable(DATA + 9, 0), Buffer::readable(DATA + 0x100, 10)],
    );
    ring.memory.write(GuestAddress(DATA), b"abc").unwrap();
    ring.memory.write(GuestAddress(DATA + 0x100), b"defghijklm").unwrap();
    let mut reader = chain.reader(&ring.memory);
    assert_eq!(reader.remaining(), 13);
    assert_eq!(reader.read_value::<[u8; 5]>().unwrap(), *b"abcde");
    reader.skip(1).unwrap();
    let mut rest = reader.split_at(2).unwrap();
    assert_eq!(reader.read_value::<[u8; 2]>().unwrap(), *b"gh");
    assert_eq!(reader.read_value::<u8>(), Err(ChainError::TooShort));
    assert_eq!(rest.read_value::<[u8; 6]>(), Err(ChainError::TooShort));
    assert_eq!(rest.read_value::<[u8; 5]>().unwrap(), *b"ijklm");
    assert_eq!((rest.remaining(), rest.skip(1)), (0, Err(ChainError::TooShort)));
}

#[test]
fn writing_goes_on_across_segments_and_counts_what_was_written() {
    let mut ring = ring();
    let chain =
        chain(&mut ring, &[Buffer::readable(DATA, 1), Buffer::writable(DATA, 4), Buffer::writable(DATA + 16, 9)]);
    let mut writer = chain.writer(&ring.memory);
    let mut status = writer.split_at(12).unwrap();
    writer.write_value(&U32::new(0x0403_0201)).unwrap();
    writer.write_zeros(2).unwrap();
    writer.write_all(b"xyz").unwrap();
    assert_eq!((writer.written(), writer.remaining()), (9, 3));
    assert_eq!(writer.write_all(&[0; 4]), Err(ChainError::TooShort));
    assert_eq!(writer.write_zeros(4), Err(ChainError::TooShort));
    status.write_all(&[7]).unwrap();
    assert_eq!(status.written(), 1);
    let mut bytes = [0xff; 25];
    ring.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
    assert_eq!(bytes[..4], [1, 2, 3, 4]);
    assert_eq!(bytes[16..], *b"\0\0xyz\0\0\0\x07");
}

#[test]
fn bytes_go_from_guest_to_guest_with_each_cut_up_in_its_own_way() {
    let mut from = ring();
    let mut to = ring();
    let cut = |writable| move |(at, len): (u64, u32)| Buffer { address: DATA + at, len, is_writable: writable };
    let source = chain(&mut from, &[(0, 5), (5, 1), (6, 30)].map(cut(false)));
    let target = chain(&mut to, &[(0, 2), (2, 20), (22, 20)].map(cut(true)));
    let bytes: Vec<u8> = (0..36).collect();
    from.memory.write(GuestAddress(DATA), &bytes).unwrap();
    let mut reader = source.reader(&from.memory);
    let mut writer = target.writer(&to.memory);
    reader.copy_to(&mut writer, 30).unwrap();
    assert_eq!((reader.remaining(), writer.written()), (6, 30));
    assert_eq!(reader.copy_to(&mut writer, 7), Err(ChainError::TooShort));
    reader.copy_to(&mut writer, 6).unwrap();
    let mut copied = vec![0; 37];
    to.memory.read(GuestAddress(DATA), &mut copied).unwrap();
    assert_eq!((&copied[..36], copied[36]), (&bytes[..], 0));
}

#[test]
fn a_segment_outside_of_memory_is_an_error_of_that_access_only() {
    let mut ring = ring();
    let end = MEMORY as u64;
    let chain = chain(&mut ring, &[Buffer::readable(end - 2, 4), Buffer::writable(1 << 40, 4)]);
    let mut reader = chain.reader(&ring.memory);
    let unmapped = |address| ChainError::Memory(MemoryError::Unmapped(GuestAddress(address)));
    assert_eq!(reader.read_value::<u32>(), Err(unmapped(end)));
    assert_eq!(chain.reader(&ring.memory).read_value::<u16>(), Ok(0));
    assert_eq!(chain.writer(&ring.memory).write_all(&[1]), Err(unmapped(1 << 40)));
    assert_eq!(chain.writer(&ring.memory).next_piece(1).unwrap_err(), unmapped(1 << 40));
    assert_eq!(ring.queue.error(), None);
}

#[test]
fn pieces_cover_all_bytes_in_order_and_stop_at_a_limit() {
    let mut ring = ring();
    let chain = chain(&mut ring, &[Buffer::writable(DATA, 6), Buffer::writable(DATA + 8, 2)]);
    let mut writer = chain.writer(&ring.memory);
    let mut lens = Vec::new();
    assert!(writer.next_piece(0).unwrap().is_none());
    while let Some(piece) = writer.next_piece(4).unwrap() {
        lens.push(piece.len());
    }
    assert_eq!(lens, [4, 2, 2]);
    assert_eq!(writer.written(), 8);
}

#[test]
fn a_chain_of_two_to_the_32_bytes_is_the_longest() {
    let mut ring = ring();
    let buffers = [Buffer::writable(DATA, u32::MAX), Buffer::writable(DATA, 1)];
    let chain = chain(&mut ring, &buffers);
    assert_eq!(chain.writable_len(), 1 << 32);
    let mut writer = chain.writer(&ring.memory);
    writer.skip(1 << 32).unwrap();
    assert_eq!((writer.written(), writer.remaining()), (u32::MAX, 0), "the ring cannot say 2^32");
}

#[test]
fn a_notification_names_the_queue_and_with_the_feature_what_is_available_2_9() {
    let packed = RingFeatures::RING_PACKED;
    let data = RingFeatures::NOTIFICATION_DATA;
    let position = |index, wrap| Some(Position { index, wrap });
    for (word, features, next_available) in [
        (0xabcd_0007, RingFeatures::empty(), None),
        (0xabcd_0007, packed, None),
        (0xabcd_0007, data, position(0xabcd, true)),
        (0x8005_0007, data | packed, position(5, true)),
        (0x7fff_0007, data | packed, position(0x7fff, false)),
    ] {
        assert_eq!(Notification::parse(word, features), Notification { queue: 7, next_available });
    }
}
