//! NBD servers that lie, and some that keep to the protocol and are lost at any moment, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use dragonfly_random::{Random, fuzz_end};
use dragonfly_storage::nbd::{Address, Client, Command};

/// Three targets share the time.
fn end() -> Instant {
    let now = Instant::now();
    now + fuzz_end().duration_since(now) / 3
}

const BLOCK: usize = 512;
const BLOCKS: u64 = 16;
const FLAGS: u16 = 1 | 4;
const TIMEOUT_NS: u64 = 1000;

fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    let head = [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &7_u32.to_be_bytes(), &kind.to_be_bytes()].concat();
    [&head[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

fn greeting() -> Vec<u8> {
    let info = [&[0; 2][..], &(BLOCKS * BLOCK as u64).to_be_bytes(), &FLAGS.to_be_bytes()].concat();
    [&b"NBDMAGICIHAVEOPT\x00\x03"[..], &option(3, &info), &option(1, &[])].concat()
}

fn reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

fn read(random: &mut Random) -> Command {
    Command::Read { offset: random.below(BLOCKS) * BLOCK as u64, bytes: BLOCK as u32 }
}

#[test]
fn no_server_harms_the_client_and_each_command_ends_once() {
    let end = end();
    let mut random = Random::new(1);
    let mut errors = BTreeSet::new();
    while Instant::now() < end {
        let mut client = Client::<u32>::new("x".into(), TIMEOUT_NS);
        let (mut submitted, mut ended, mut now_ns) = (0, BTreeSet::new(), 0);
        for _ in 0..40 {
            match random.index(8) {
                0 => {
                    client.connected();
                    let mut bytes = greeting();
                    if random.once_in(4) {
                        let place = random.index(bytes.len());
                        bytes[place] ^= 1 << random.index(8);
                    }
                    errors.extend(client.receive(&bytes).err().map(|error| format!("{error:?}")));
                }
                1 | 2 if client.has_room() => {
                    client.submit(read(&mut random), submitted, now_ns);
                    submitted += 1;
                }
                3 => client.sent(random.index(client.to_send().len() + 1)),
                4 | 5 => {
                    let cookie =
                        if random.once_in(4) { random.awkward() } else { random.below(u64::from(submitted) + 1) };
                    let mut bytes = reply(random.choose(&[0, 0, 0, 5, 28, 108]), cookie, &[7; BLOCK]);
                    bytes.truncate(if random.once_in(2) { bytes.len() } else { random.index(bytes.len()) });
                    errors.extend(client.receive(&bytes).err().map(|error| format!("{error:?}")));
                }
                6 => {
                    let noise: Vec<u8> = (0..random.index(64)).map(|_| random.number() as u8).collect();
                    errors.extend(client.receive(&noise).err().map(|error| format!("{error:?}")));
                }
                _ => {
                    now_ns += random.below(TIMEOUT_NS);
                    client.expire(now_ns);
                }
            }
            while let Some(done) = client.take_done() {
                assert!(ended.insert(done.token), "{} ended twice", done.token);
                assert!(done.outcome.is_err() || done.outcome.is_ok_and(|data| data.len() == BLOCK));
            }
        }
        // In the end each ends, whatever was before.
        client.expire(now_ns + TIMEOUT_NS);
        ended.extend(std::iter::from_fn(|| client.take_done()).map(|done| done.token));
        assert_eq!(ended.len(), submitted as usize);
    }
    assert!(errors.len() > 5, "only {errors:?}");
}

/// A server that keeps to the protocol, and does commands in any order.
#[derive(Default)]
struct Server {
    disk: BTreeMap<u64, Vec<u8>>,
    heard: Vec<u8>,
    /// Type, cookie, offset, data.
    commands: Vec<(u16, u64, u64, Vec<u8>)>,
}

impl Server {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend(bytes);
        while let Some(header) = self.heard.first_chunk::<28>() {
            let field = |from: usize| u64::from_be_bytes(header[from..from + 8].try_into().unwrap());
            let (kind, cookie, offset) = (u16::from_be_bytes([header[6], header[7]]), field(8), field(16));
            let bytes = if kind == 1 { BLOCK } else { 0 };
            if self.heard.len() < 28 + bytes {
                break;
            }
            let data = self.heard.drain(..28 + bytes).skip(28).collect();
            self.commands.push((kind, cookie, offset, data));
        }
    }

    /// Does any one of its commands: the reply.
    fn act(&mut self, random: &mut Random) -> Vec<u8> {
        if self.commands.is_empty() {
            return Vec::new();
        }
        let (kind, cookie, offset, data) = self.commands.swap_remove(random.index(self.commands.len()));
        if kind == 1 {
            self.disk.insert(offset, data);
            return reply(0, cookie, &[]);
        }
        reply(0, cookie, self.disk.get(&offset).map_or(&[0; BLOCK][..], |data| data))
    }
}

#[test]
fn however_often_a_server_is_lost_what_was_written_is_read() {
    let end = end();
    let mut random = Random::new(2);
    while Instant::now() < end {
        let mut client = Client::<(u32, u64)>::new("x".into(), u64::MAX);
        let mut server = Server::default();
        // What each block holds, if that is known, and which has a command under way: a write's data, or none for a read.
        let mut holds = BTreeMap::from_iter((0..BLOCKS).map(|block| (block, Some(vec![0; BLOCK]))));
        let mut busy: BTreeMap<u64, Option<Vec<u8>>> = BTreeMap::new();
        let (mut life, mut is_up) = (0, false);
        for step in 0..400_u32 {
            let block = random.below(BLOCKS);
            match random.index(16) {
                0 if !is_up || random.once_in(4) => {
                    client.connected();
                    server.heard.clear();
                    server.commands.clear();
                    client.receive(&greeting()).unwrap();
                    // Its greeting: flags, and the option with the name of one byte.
                    let hello = 4 + 16 + 9;
                    client.sent(hello);
                    is_up = true;
                }
                1 if random.once_in(8) => {
                    client.abandon(|token| token.0 == life);
                    for (block, written) in std::mem::take(&mut busy) {
                        if written.is_some() {
                            holds.insert(block, None);
                        }
                    }
                    life += 1;
                }
                2..6 if !busy.contains_key(&block) && client.has_room() => {
                    let offset = block * BLOCK as u64;
                    let written = random.once_in(2).then(|| vec![step as u8; BLOCK]);
                    let command = match written.clone() {
                        Some(data) => Command::Write { offset, data, is_safe: false },
                        None => Command::Read { offset, bytes: BLOCK as u32 },
                    };
                    client.submit(command, (life, block), 0);
                    busy.insert(block, written);
                }
                6..11 => {
                    // Mostly whole commands, so that several wait at the server.
                    for _ in 0..random.index(4) {
                        let all = client.to_send().len();
                        let count = if random.once_in(4) { random.index(all + 1) } else { all };
                        server.hear(&client.to_send()[..count]);
                        client.sent(count);
                    }
                }
                _ if is_up => client.receive(&server.act(&mut random)).unwrap(),
                _ => {}
            }
            while let Some(done) = client.take_done() {
                assert_eq!(done.token.0, life, "nobody waits for it");
                let data = done.outcome.unwrap();
                let block = done.token.1;
                match busy.remove(&block).expect("it ended once") {
                    Some(written) => {
                        holds.insert(block, Some(written));
                    }
                    None => {
                        let known = holds.get(&block).and_then(Option::as_ref);
                        assert!(known.is_none_or(|known| *known == data), "block {block} at step {step}");
                    }
                }
            }
        }
    }
}

#[test]
fn any_text_is_an_address_or_is_refused() {
    let end = end();
    let mut random = Random::new(3);
    let pieces =
        ["nbd", "+unix", "s", "://", "/", "?", "socket=", "%2", "f", "%", "[", "]", ":", "1", "host", "&", "é"];
    let mut addresses = 0;
    while Instant::now() < end {
        let text: String = (0..random.index(14)).map(|_| pieces[random.index(pieces.len())]).collect();
        addresses += u32::from(Address::parse(&text).is_ok());
    }
    assert!(addresses > 0);
}
