//! A station of the physical network, as far as address resolution goes: it says who it is, and finds out its neighbours.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use crate::{
    arp::{self, Message},
    frame::Station,
};

/// Between questions for a neighbour that has not answered: RFC 1122 2.3.2.1 allows one a second.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Between questions for one that has, which may have changed.
const REFRESH_NS: u64 = 30_000_000_000;

/// A station and the neighbours that it wants to know.
#[derive(Debug)]
pub struct Neighbours {
    own: Station,
    wanted: Vec<Neighbour>,
}

#[derive(Debug)]
struct Neighbour {
    address: Ipv4Addr,
    mac: Option<EthernetAddress>,
    ask_at_ns: u64,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is for others.
    Others,
    /// It was for the station, which has nothing to say.
    Done,
    /// This frame is the answer.
    Answer(Vec<u8>),
    /// A neighbour that is wanted has this address now.
    Found(Ipv4Addr, [u8; 6]),
}

impl Neighbours {
    /// A station that wants to know these neighbours.
    #[must_use]
    pub fn new(mac: [u8; 6], address: Ipv4Addr, wanted: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let mut neighbours = Self { own: Station { mac: EthernetAddress(mac), address }, wanted: Vec::new() };
        for address in wanted {
            if neighbours.wanted.iter().all(|neighbour| neighbour.address != address) {
                neighbours.wanted.push(Neighbour { address, mac: None, ask_at_ns: 0 });
            }
        }
        neighbours
    }

    /// Looks at a frame from the physical network.
    pub fn receive(&mut self, frame: &[u8]) -> Resolution {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return Resolution::Others };
        if frame.ethertype() != EthernetProtocol::Arp {
            return Resolution::Others;
        }
        let is_own = frame.dst_addr() == self.own.mac;
        match arp::parse(frame.payload()) {
            Some(Message::Request { sender, target }) if target == self.own.address => {
                Resolution::Answer(arp::reply(self.own, sender))
            }
            Some(Message::Reply(sender)) if is_own => self.learn(sender),
            _ if is_own => Resolution::Done,
            _ => Resolution::Others,
        }
    }

    /// Sends what is to be asked now; gives the time of the next questions, in nanoseconds.
    pub fn ask(&mut self, now_ns: u64, mut send: impl FnMut(Vec<u8>)) -> Option<u64> {
        for neighbour in &mut self.wanted {
            if neighbour.ask_at_ns <= now_ns {
                let period_ns = if neighbour.mac.is_some() { REFRESH_NS } else { ASK_AGAIN_NS };
                neighbour.ask_at_ns = now_ns.saturating_add(period_ns);
                send(arp::request(self.own, neighbour.address));
            }
        }
        self.wanted.iter().map(|neighbour| neighbour.ask_at_ns).min()
    }

    fn learn(&mut self, sender: Station) -> Resolution {
        let neighbour = self.wanted.iter_mut().find(|neighbour| neighbour.address == sender.address);
        match neighbour {
            Some(neighbour) if sender.mac.is_unicast() && neighbour.mac != Some(sender.mac) => {
                neighbour.mac = Some(sender.mac);
                Resolution::Found(sender.address, sender.mac.0)
            }
            _ => Resolution::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Station = Station { mac: EthernetAddress([2, 0, 0, 0, 0, 1]), address: Ipv4Addr::new(192, 0, 2, 1) };
    const PEER: Station = Station { mac: EthernetAddress([2, 0, 0, 0, 0, 2]), address: Ipv4Addr::new(192, 0, 2, 2) };
    const OTHER: Station = Station { mac: EthernetAddress([2, 0, 0, 0, 0, 3]), address: Ipv4Addr::new(192, 0, 2, 3) };

    fn neighbours() -> Neighbours {
        Neighbours::new(OWN.mac.0, OWN.address, [PEER.address, PEER.address])
    }

    fn asked(neighbours: &mut Neighbours, now_ns: u64) -> (Vec<Vec<u8>>, Option<u64>) {
        let mut frames = Vec::new();
        let next = neighbours.ask(now_ns, |frame| frames.push(frame));
        (frames, next)
    }

    #[test]
    fn a_neighbour_is_asked_for_each_second_until_it_answers_and_seldom_then() {
        let mut neighbours = neighbours();
        let question = arp::request(OWN, PEER.address);
        assert_eq!(asked(&mut neighbours, 5), (vec![question.clone()], Some(ASK_AGAIN_NS + 5)));
        assert_eq!(asked(&mut neighbours, 6), (vec![], Some(ASK_AGAIN_NS + 5)));
        assert_eq!(neighbours.receive(&arp::reply(PEER, OWN)), Resolution::Found(PEER.address, PEER.mac.0));
        let later = ASK_AGAIN_NS + 5;
        assert_eq!(asked(&mut neighbours, later), (vec![question], Some(later + REFRESH_NS)));
        assert_eq!(neighbours.receive(&arp::reply(PEER, OWN)), Resolution::Done, "it is known");
        let moved = Station { mac: OTHER.mac, ..PEER };
        assert_eq!(neighbours.receive(&arp::reply(moved, OWN)), Resolution::Found(PEER.address, OTHER.mac.0));
    }

    #[test]
    fn who_asks_for_the_station_is_answered() {
        let answer = neighbours().receive(&arp::request(OTHER, OWN.address));
        assert_eq!(answer, Resolution::Answer(arp::reply(OWN, OTHER)));
    }

    #[test]
    fn what_is_not_for_the_station_is_for_others() {
        for (frame, what) in [
            (arp::request(OTHER, PEER.address), "a question for another"),
            (arp::reply(PEER, OTHER), "an answer to another"),
            (vec![0; 60], "no address resolution"),
            (vec![0; 13], "no frame"),
        ] {
            assert_eq!(neighbours().receive(&frame), Resolution::Others, "{what}");
        }
        assert_eq!(neighbours().receive(&arp::reply(OTHER, OWN)), Resolution::Done, "nobody wants to know");
    }

    #[test]
    fn a_groups_address_is_nobodys() {
        let group = Station { mac: EthernetAddress::BROADCAST, ..PEER };
        assert_eq!(neighbours().receive(&arp::reply(group, OWN)), Resolution::Done);
    }
}
