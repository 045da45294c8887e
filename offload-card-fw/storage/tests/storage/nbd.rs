//! Conversations with NBD servers, byte by byte (`doc/proto.md` of the NBD project).

use dragonfly_storage::BlockError;
use dragonfly_storage::nbd::{Client, Command, Done, Export, NbdError, TransmissionFlags};

const SECOND: u64 = 1_000_000_000;
const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const ACK: u32 = 1;
const INFO: u32 = 3;
/// Has flags, flush, FUA, trim, write-zeroes.
const FLAGS: u16 = 1 | 4 | 8 | 32 | 64;

fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    let head = [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &7_u32.to_be_bytes(), &kind.to_be_bytes()].concat();
    [&head[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

fn export(bytes: u64, flags: u16) -> Vec<u8> {
    option(INFO, &[&[0; 2][..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat())
}

fn block_sizes(least: u32, most: u32) -> Vec<u8> {
    let sizes = [least, least, most].map(u32::to_be_bytes).concat();
    option(INFO, &[&3_u16.to_be_bytes()[..], &sizes].concat())
}

fn reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

/// All that the client has to send.
fn said<T>(client: &mut Client<T>) -> Vec<u8> {
    let mut all = Vec::new();
    while !client.to_send().is_empty() {
        // Not all at once, as with sockets.
        let some = client.to_send().len().div_ceil(2);
        all.extend(&client.to_send()[..some]);
        client.sent(some);
    }
    all
}

/// Type and cookie of the commands in `bytes`, none of which has data.
fn commands(bytes: &[u8]) -> Vec<(u16, u64)> {
    let command = |header: &[u8]| {
        assert_eq!(header[..4], 0x2560_9513_u32.to_be_bytes());
        (u16::from_be_bytes([header[6], header[7]]), u64::from_be_bytes(header[8..16].try_into().unwrap()))
    };
    assert_eq!(bytes.len() % 28, 0);
    bytes.chunks(28).map(command).collect()
}

fn greeted(client: &mut Client<u32>) {
    client.connected();
    client.receive(&[GREETING, &export(1 << 20, FLAGS), &option(ACK, &[])].concat()).unwrap();
    said(client);
}

fn client() -> Client<u32> {
    let mut client = Client::new("disk".into(), SECOND);
    greeted(&mut client);
    client
}

fn read(offset: u64) -> Command {
    Command::Read { offset, bytes: 512 }
}

fn done(client: &mut Client<u32>) -> Vec<(u32, Result<Vec<u8>, BlockError>)> {
    std::iter::from_fn(|| client.take_done()).map(|Done { token, outcome }| (token, outcome)).collect()
}

#[test]
fn the_export_is_asked_for_by_its_name_and_is_as_the_server_says() {
    let mut client = Client::<u32>::new("disk".into(), SECOND);
    client.connected();
    client.receive(GREETING).unwrap();
    let go = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0, 0, 0, 12, 0, 0, 0, 4], b"disk", &[0, 1, 0, 3]].concat();
    assert_eq!(said(&mut client), go);
    let more = option(INFO, &[0, 1, b'n']);
    let info = [export(1_000_000, FLAGS | 2), more, block_sizes(4096, 65_000), option(ACK, &[])].concat();
    // However the bytes come.
    info.iter().for_each(|byte| client.receive(&[*byte]).unwrap());
    assert!(client.is_ready());
    let export = *client.export().unwrap();
    let flags = TransmissionFlags::all();
    assert_eq!(export, Export { bytes: 1_000_000, flags, block_bytes: 4096, max_data_bytes: 61_440 });
    let geometry = export.geometry();
    assert_eq!((geometry.capacity_sectors, geometry.block_bytes, geometry.is_read_only), (1952, 4096, true));
}

#[test]
fn each_command_is_sent_as_the_protocol_has_it() {
    for (command, flags, kind, offset, bytes, data) in [
        (read(1024), 0, 0, 1024_u64, 512_u32, &[][..]),
        (Command::Write { offset: 512, data: vec![7; 3], is_safe: false }, 0, 1, 512, 3, &[7; 3]),
        (Command::Write { offset: 512, data: vec![7; 3], is_safe: true }, 1_u16, 1_u16, 512, 3, &[7; 3]),
        (Command::Flush, 0, 3, 0, 0, &[]),
        (Command::Trim { offset: 0, bytes: 1 << 30 }, 0, 4, 0, 1 << 30, &[]),
        (Command::WriteZeroes { offset: 4096, bytes: 512, may_unmap: true }, 0, 6, 4096, 512, &[]),
        (Command::WriteZeroes { offset: 4096, bytes: 512, may_unmap: false }, 2, 6, 4096, 512, &[]),
    ] {
        let mut client = client();
        client.submit(command, 0, 0);
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes(), &[0; 8]].concat();
        let place = [&offset.to_be_bytes()[..], &bytes.to_be_bytes(), data].concat();
        assert_eq!(said(&mut client), [head, place].concat());
    }
}

#[test]
fn several_commands_are_under_way_and_end_in_the_servers_order() {
    let mut client = client();
    client.submit(read(0), 10, 0);
    client.submit(Command::Flush, 11, 0);
    client.submit(read(512), 12, 0);
    assert_eq!(commands(&said(&mut client)), [(0, 0), (3, 1), (0, 2)]);
    let replies = [reply(0, 2, &[2; 512]), reply(28, 1, &[]), reply(0, 0, &[1; 512])].concat();
    for piece in replies.chunks(100) {
        client.receive(piece).unwrap();
    }
    let all = [(12, Ok(vec![2; 512])), (11, Err(BlockError::NoSpace)), (10, Ok(vec![1; 512]))];
    assert_eq!(done(&mut client), all);
}

#[test]
fn what_had_no_reply_is_sent_anew_over_the_next_connection() {
    let mut client = client();
    (0..3).for_each(|token| client.submit(read(0), token, 0));
    said(&mut client);
    // The second's data is cut short.
    client.receive(&[reply(0, 0, &[1; 512]), reply(0, 1, &[1; 100])].concat()).unwrap();
    client.disconnected();
    client.submit(read(0), 3, 0);
    assert!(client.to_send().is_empty() && !client.is_ready());
    greeted(&mut client);
    // They went out behind the greeting, so another connection shows them.
    client.disconnected();
    client.connected();
    client.receive(&[GREETING, &export(1 << 20, FLAGS), &option(ACK, &[])].concat()).unwrap();
    let hello = 4 + 16 + 12;
    assert_eq!(commands(&said(&mut client)[hello..]), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(done(&mut client).len(), 1);
}

#[test]
fn what_nobody_waits_for_any_more_is_answered_before_anything_else_is_sent() {
    let mut client = client();
    client.submit(read(0), 1, 0);
    said(&mut client);
    client.submit(read(0), 1, 0);
    client.submit(read(0), 2, 0);
    client.abandon(|token| *token == 1);
    client.submit(read(0), 3, 0);
    assert!(client.to_send().is_empty());
    client.receive(&reply(0, 0, &[1; 512])).unwrap();
    assert_eq!(commands(&said(&mut client)), [(0, 2), (0, 3)]);
    assert_eq!(done(&mut client), []);
    // A lost connection is an answer, too.
    client.abandon(|token| *token == 2);
    client.disconnected();
    greeted(&mut client);
    client.receive(&reply(0, 3, &[1; 512])).unwrap();
    assert_eq!(done(&mut client), [(3, Ok(vec![1; 512]))]);
}

#[test]
fn a_command_that_is_half_sent_is_sent_whole_before_it_is_forgotten() {
    let mut client = client();
    client.submit(read(0), 1, 0);
    client.sent(10);
    client.abandon(|_| true);
    assert_eq!(client.to_send().len(), 18);
    client.sent(18);
    client.receive(&reply(5, 0, &[])).unwrap();
    client.submit(read(0), 2, 0);
    assert_eq!(commands(&said(&mut client)), [(0, 1)]);
}

#[test]
fn a_command_fails_when_its_time_is_over() {
    let mut client = client();
    client.submit(read(0), 1, 0);
    client.submit(read(0), 2, SECOND / 2);
    assert_eq!(client.next_deadline_ns(), Some(SECOND));
    assert!(!client.expire(SECOND - 1));
    assert!(client.expire(SECOND));
    assert_eq!(done(&mut client), [(1, Err(BlockError::Medium))]);
    assert!(!client.is_ready(), "the server may do it yet");
    assert_eq!((client.next_deadline_ns(), client.failure()), (Some(SECOND * 3 / 2), None));
}

#[test]
fn each_lie_is_the_end_of_the_disk_with_its_reason() {
    let ack = || option(ACK, &[]);
    let wrong = |kind, bytes| NbdError::OptionReply { option: 7, kind, bytes };
    for (lie, error) in [
        (b"SSH-2.0-OpenSSH_9".repeat(2), NbdError::NoServer),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x03".to_vec(), NbdError::TooOld),
        (b"NBDMAGICIHAVEOPT\x00\x02".to_vec(), NbdError::TooOld),
        ([GREETING, &option(1 << 31 | 1, &[])].concat(), NbdError::TooOld),
        ([GREETING, &option(1 << 31 | 5, b"TLS")].concat(), NbdError::TlsRequired),
        ([GREETING, &option(1 << 31 | 3, &[])].concat(), NbdError::Refused(1 << 31 | 3)),
        ([GREETING, &option(9, &[])].concat(), wrong(9, 0)),
        ([GREETING, &option(INFO, &[0])].concat(), wrong(INFO, 1)),
        ([GREETING, &option(INFO, &[0; 13])].concat(), wrong(INFO, 13)),
        ([GREETING, &option(INFO, &[0; 16_385])].concat(), wrong(INFO, 16_385)),
        ([GREETING, &[0; 20]].concat(), NbdError::OptionReply { option: 0, kind: 0, bytes: 0 }),
        ([GREETING, &ack()].concat(), NbdError::NoSize),
        ([GREETING, &export(511, FLAGS), &ack()].concat(), NbdError::Empty),
        (
            [GREETING, &export(1 << 20, FLAGS), &block_sizes(3, 1 << 20), &ack()].concat(),
            NbdError::BlockSize { least_bytes: 3, most_bytes: 1 << 20 },
        ),
        (
            [GREETING, &export(1 << 20, FLAGS), &block_sizes(4096, 512), &ack()].concat(),
            NbdError::BlockSize { least_bytes: 4096, most_bytes: 512 },
        ),
        (
            [GREETING, &export(1 << 20, FLAGS), &block_sizes(1 << 31, 1 << 31), &ack()].concat(),
            NbdError::BlockSize { least_bytes: 1 << 31, most_bytes: 1 << 31 },
        ),
    ] {
        let mut client = Client::<u32>::new("disk".into(), SECOND);
        client.connected();
        assert_eq!(client.receive(&lie), Err(error), "{lie:02x?}");
        assert_eq!(client.failure(), Some(error));
    }
    for (lie, error) in [
        (reply(0, 7, &[]), NbdError::UnknownReply(7)),
        // It was not even sent.
        (reply(0, 1, &[]), NbdError::UnknownReply(1)),
        ([reply(0, 0, &[0; 512]), reply(0, 0, &[])].concat(), NbdError::UnknownReply(0)),
        // Data where the next reply should be.
        ([reply(0, 0, &[0xee; 513]), vec![0xee; 15]].concat(), NbdError::ReplyMagic(0xeeee_eeee)),
    ] {
        let mut client = client();
        client.submit(read(0), 0, 0);
        said(&mut client);
        client.submit(read(0), 1, 0);
        assert_eq!(client.receive(&lie), Err(error), "{lie:02x?}");
        assert_eq!(client.failure(), Some(error));
        let failed = done(&mut client).into_iter().filter(|(_, outcome)| *outcome == Err(BlockError::Medium)).count();
        assert!(failed >= 1);
        // And so does what comes later; another connection does not help.
        client.submit(read(0), 2, 0);
        assert_eq!(done(&mut client), [(2, Err(BlockError::Medium))]);
        client.connected();
        assert_eq!(client.receive(GREETING), Ok(()));
        assert!(client.to_send().is_empty() && client.failure() == Some(error));
    }
}

#[test]
fn another_disk_at_the_same_place_is_not_taken_for_the_first() {
    for (bytes, flags) in [(2 << 20, FLAGS), (1 << 20, FLAGS | 2)] {
        let mut client = client();
        client.submit(read(0), 0, 0);
        client.connected();
        let other = [GREETING, &export(bytes, flags), &option(ACK, &[])].concat();
        assert_eq!(client.receive(&other), Err(NbdError::Changed));
        assert_eq!(done(&mut client), [(0, Err(BlockError::Medium))]);
    }
}

#[test]
fn a_server_that_is_not_ready_is_asked_again() {
    for (kind, error) in [(6, NbdError::NoExport), (2, NbdError::Policy), (7, NbdError::ShuttingDown)] {
        let mut client = client();
        client.submit(read(0), 0, 0);
        said(&mut client);
        client.connected();
        assert_eq!(client.receive(&[GREETING, &option(1 << 31 | kind, &[])].concat()), Err(error));
        greeted(&mut client);
        // ESHUTDOWN
        assert_eq!(client.receive(&reply(108, 0, &[])), Err(NbdError::ShuttingDown));
        greeted(&mut client);
        client.receive(&reply(0, 0, &[3; 512])).unwrap();
        assert_eq!(done(&mut client), [(0, Ok(vec![3; 512]))]);
    }
}
