//! Questions, and the answers that are made here (RFC 1035 4.1).

use alloc::vec::Vec;

use smoltcp::wire::{DnsFlags as Flags, DnsOpcode, DnsPacket, DnsQueryType as Type, DnsQuestion, DnsRcode as Rcode};

use super::{Name, Verdict, Zone};

/// Bytes of a message's header.
pub const HEADER: usize = 12;
/// The class of the Internet.
const CLASS_IN: u16 = 1;
/// The name that stands behind the header, as a pointer to it (RFC 1035 4.1.4).
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// How long clients may remember an answer, in seconds: names change with the machine files only.
const TTL: u32 = 60;
/// The most addresses of an answer: with the longest name they fit into the 512 bytes that each client takes.
const MAX_ADDRESSES: usize = 8;
/// The type of a record that names an address' machine.
const PTR: u16 = 12;

/// A query with one question, which is what is asked in practice (RFC 9619).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// What is asked about.
    pub name: Name,
    /// The type of record that is wanted.
    pub kind: u16,
    /// The query up to the end of its question.
    pub head: &'a [u8],
}

impl<'a> Question<'a> {
    /// Reads a query.
    ///
    /// # Errors
    /// Gives the code to answer with, or `None` for what is no query at all.
    pub fn parse(message: &'a [u8]) -> Result<Self, Option<Rcode>> {
        let packet = DnsPacket::new_checked(message).map_err(|_| None)?;
        if packet.flags().contains(Flags::RESPONSE) {
            return Err(None);
        }
        if packet.opcode() != DnsOpcode::Query {
            return Err(Some(Rcode::NotImp));
        }
        if packet.question_count() != 1 {
            return Err(Some(Rcode::FormErr));
        }
        let payload = message.get(HEADER..).unwrap_or_default();
        let (rest, question) = DnsQuestion::parse(payload).map_err(|_| Some(Rcode::FormErr))?;
        let name = Name::parse(question.name).ok_or(Some(Rcode::FormErr))?;
        let head = message.len().checked_sub(rest.len()).and_then(|end| message.get(..end)).unwrap_or_default();
        Ok(Self { name, kind: question.type_.into(), head })
    }
}

/// The answer to a query of which no question could be read.
pub fn refuse_unreadable(message: &[u8], code: Rcode) -> Option<Vec<u8>> {
    let mut reply = message.get(..HEADER)?.to_vec();
    finish(&mut reply, code, Flags::empty(), [0; 4]);
    Some(reply)
}

/// An answer without records that tells why.
pub fn error(question: &Question<'_>, code: Rcode, is_recursive: bool) -> Vec<u8> {
    let mut reply = question.head.to_vec();
    finish(&mut reply, code, available(is_recursive), [1, 0, 0, 0]);
    reply
}

/// The answer that a zone gives; `None` if it has none.
pub fn records(question: &Question<'_>, zone: &Zone, verdict: Verdict<'_>, is_recursive: bool) -> Option<Vec<u8>> {
    let mut reply = question.head.to_vec();
    let (code, answers) = match verdict {
        Verdict::Addresses(addresses) => {
            let addresses = addresses.get(..MAX_ADDRESSES).unwrap_or(addresses);
            for address in addresses {
                record(&mut reply, &SAME_NAME, Type::A.into(), &address.octets());
            }
            (Rcode::NoError, addresses.len())
        }
        Verdict::Name(name) => {
            record(&mut reply, &SAME_NAME, PTR, name.as_bytes());
            (Rcode::NoError, 1)
        }
        Verdict::Empty => (Rcode::NoError, 0),
        Verdict::Absent => (Rcode::NXDomain, 0),
        Verdict::Elsewhere => return None,
    };
    // What is not there may be remembered only with the zone's own record (RFC 2308 2).
    let has_authority = answers == 0 && question.name.is_in(zone.domain());
    if has_authority {
        record(&mut reply, zone.domain().as_bytes(), Type::Soa.into(), &start_of_authority(zone.domain()));
    }
    let counts = [1, u16::try_from(answers).ok()?, has_authority.into(), 0];
    finish(&mut reply, code, Flags::AUTHORITATIVE | available(is_recursive), counts);
    Some(reply)
}

const fn available(is_recursive: bool) -> Flags {
    if is_recursive { Flags::RECURSION_AVAILABLE } else { Flags::empty() }
}

/// Makes a query's header that of the answer: it keeps the id, and whether recursion was asked for (RFC 1035 4.1.1).
fn finish(reply: &mut [u8], code: Rcode, flags: Flags, [questions, answers, authorities, additional]: [u16; 4]) {
    const OPCODE: u16 = 0x7800;
    let Some(kept) = reply.get(2..4).and_then(|field| field.try_into().ok()).map(u16::from_be_bytes) else { return };
    let kept = kept & (OPCODE | Flags::RECURSION_DESIRED.bits());
    let field = kept | (Flags::RESPONSE | flags).bits() | u16::from(u8::from(code));
    if let Some(bytes) = reply.get_mut(2..4) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    let mut packet = DnsPacket::new_unchecked(reply);
    packet.set_question_count(questions);
    packet.set_answer_record_count(answers);
    packet.set_authority_record_count(authorities);
    packet.set_additional_record_count(additional);
}

/// Appends a record (RFC 1035 4.1.3).
fn record(reply: &mut Vec<u8>, name: &[u8], kind: u16, data: &[u8]) {
    // At most two names and a few numbers.
    let Ok(length) = u16::try_from(data.len()) else { return };
    reply.extend(name);
    reply.extend(kind.to_be_bytes());
    reply.extend(CLASS_IN.to_be_bytes());
    reply.extend(TTL.to_be_bytes());
    reply.extend(length.to_be_bytes());
    reply.extend(data);
}

/// The data of the zone's own record (RFC 1035 3.3.13): nobody copies the zone, so only the last number matters, which is
/// how long it may be remembered that something is not there (RFC 2308 4).
fn start_of_authority(domain: &Name) -> Vec<u8> {
    let numbers = [1, 3600, 600, 86_400, TTL];
    let mut data = [domain.as_bytes(), domain.as_bytes()].concat();
    data.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
    data
}
