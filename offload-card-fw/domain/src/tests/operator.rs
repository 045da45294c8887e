//! Orders of the machine's operator.

use std::cell::RefCell;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use dragonfly_card_devices::kept::Area;
use dragonfly_rt::sync::Mutex;
use dragonfly_vhost_user::{FrontEnd, ProtocolFeatures};

use super::{FakeCard, Lent, Wire, card, front_end};
use crate::kept::KeptOrders;
use crate::machines::parse;
use crate::operator::{Changed, END, Order, Orders};

const MACHINE: &str = "name = \"one\"\n[[net]]\nname = \"n\"\ngroups = [\"g\"]\n";
const RULE: &str = "[[rule]]\ngroup = \"g\"\ndirection = \"in\"\naction = \"allow\"\n";

fn machine(rules: usize) -> String {
    MACHINE.to_string() + &RULE.repeat(rules)
}

fn obey(card: &mut FakeCard, order: &[u8]) -> Result<String, String> {
    Order::parse(order)?.obey(card)
}

fn orders(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut orders = Orders::default();
    bytes.iter().filter_map(|byte| orders.push(*byte)).collect()
}

#[test]
fn an_order_ends_with_its_last_byte_and_another_may_follow() {
    assert_eq!(orders(b"a\x04\x04bc\x04d"), [&b"a"[..], b"", b"bc"]);
}

#[test]
fn the_rules_that_a_machine_file_has_now_are_put_in_the_place_of_the_old_ones() {
    let mut card = card(&[("machines/0.toml", &machine(1))], Vec::new());
    for (rules, expected) in [(2, "2 rules of 1 groups"), (1, "1 rules of 1 groups")] {
        let order = format!("rules 0\n{}", machine(rules));
        let answer = obey(&mut card, order.as_bytes()).unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
    let now = parse(0, "machines/0.toml", "name = \"one\"\n[[net]]\nname = \"n\"\nmtu = 1400\n").unwrap();
    let changed = card.change_rules(0, &now.devices);
    assert_eq!(changed, Some(Changed { rules: 0, groups: 1, differs_in_more: true }));
}

#[test]
fn an_order_that_cannot_be_done_changes_nothing_and_says_why() {
    let mut long = b"rules 0\n".to_vec();
    long.extend(vec![b'#'; 70_000]);
    long.push(END);
    let long = orders(&long).remove(0);
    let wrong = format!("rules 0\n{MACHINE}[[rule]]\ngroup = \"g\"\ndirection = \"up\"\n");
    for (order, why) in [
        (&b""[..], "an order is not known"),
        (b"rules\n", "an order is not known"),
        (b"rules 4294967296\nname = \"m\"\n", "an order is not known"),
        (b"rules 0\n\xff", "an order is not known"),
        (b"link 0\nup", "an order is not known"),
        (b"link 0 n\non", "an order is not known"),
        (b"link x n\nup", "an order is not known"),
        (&long, "longer than 61440 bytes"),
        (wrong.as_bytes(), "machines/0.toml:7: `direction`"),
    ] {
        let answer = Order::parse(order).err().unwrap();
        assert!(answer.contains(why), "{answer}");
    }
    let mut card = card(&[("machines/0.toml", &machine(1))], Vec::new());
    for (order, why) in [
        (&b"rules 7\nname = \"m\"\n"[..], "there is no machine 7: nothing has changed"),
        (b"link 7 n\ndown", "machine 7 has no network device n: nothing has changed"),
        (b"link 0 m\ndown", "machine 0 has no network device m: nothing has changed"),
    ] {
        assert_eq!(obey(&mut card, order).unwrap_err(), why);
    }
}

#[test]
fn a_link_that_goes_down_and_up_is_told_the_vmm_and_stays_so_for_the_next_one() {
    const STATUS: u32 = 6;
    let lent = Lent::new();
    let card = Mutex::new(card(&[("machines/0.toml", &machine(1))], Vec::new()));
    let status = |front: &mut FrontEnd<Wire<'_>>| {
        let mut status = [0xff; 2];
        front.read_config(STATUS, &mut status).unwrap();
        u16::from_le_bytes(status)
    };
    for badge in [1, 1] {
        card.lock().attach(0, badge).unwrap();
        let mut front = front_end(&card, badge, 0);
        front.set_owner().unwrap();
        front.set_protocol_features(ProtocolFeatures::CONFIG | ProtocolFeatures::BACKEND_REQ).unwrap();
        front.set_back_end_channel(lent.clone()).unwrap();
        assert_eq!(lent.config_changes.take(), 1, "what was before");
        for (order, is_up) in [("up", 1), ("down", 0)] {
            let was_up = status(&mut front);
            obey(&mut card.lock(), format!("link 0 n\n{order}").as_bytes()).unwrap();
            assert_eq!((status(&mut front), lent.config_changes.take()), (is_up, u32::from(was_up != is_up)));
        }
    }
}

/// Memory that outlives cards.
#[derive(Clone)]
struct Lasting(Rc<RefCell<Vec<u8>>>);

impl Lasting {
    fn new(size: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; size])))
    }
}

impl Area for Lasting {
    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        self.0.borrow().get(offset..offset + into.len()).map(|from| into.copy_from_slice(from)).is_some()
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        self.0.borrow_mut().get_mut(offset..offset + bytes.len()).map(|to| to.copy_from_slice(bytes)).is_some()
    }
}

#[test]
fn the_next_card_finds_the_latest_order_for_each_machine() {
    let area = Lasting::new(256);
    let kept = KeptOrders::new(Some(area.clone()));
    assert_eq!((kept.orders().count(), kept.has_predecessor()), (0, false));
    assert!(KeptOrders::new(Some(area.clone())).has_predecessor(), "though it has given no order");
    let mut kept = KeptOrders::new(Some(area.clone()));
    for order in ["rules 0\na", "rules 1\nb", "rules 0\nlonger", "rules 10\nc"] {
        assert!(kept.keep(order.into()), "{order}");
    }
    for _ in 0..2 {
        let next = KeptOrders::new(Some(area.clone()));
        let orders: Vec<_> = next.orders().collect();
        assert_eq!(orders, [&b"rules 0\nlonger"[..], b"rules 1\nb", b"rules 10\nc"]);
    }
}

#[test]
fn an_order_that_cannot_be_kept_leaves_the_one_before_to_the_next_card() {
    let area = Lasting::new(128);
    let mut kept = KeptOrders::new(Some(area.clone()));
    assert!(kept.keep(b"rules 0\na".to_vec()));
    assert!(!kept.keep(vec![b'x'; 100]));
    let next = KeptOrders::new(Some(area));
    assert_eq!(next.orders().collect::<Vec<_>>(), [b"rules 0\na"]);
    let mut without = KeptOrders::<Lasting>::new(None);
    assert!(!without.has_predecessor() && !without.keep(b"rules 0\na".to_vec()));
}
