//! Orders of the machine's operator.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use dragonfly_card_devices::kept::Area;

use super::card;
use crate::kept::KeptOrders;
use crate::operator::{Changed, END, Orders, obey};

const MACHINE: &str = "name = \"one\"\n[[net]]\nname = \"n\"\ngroups = [\"g\"]\n";
const RULE: &str = "[[rule]]\ngroup = \"g\"\ndirection = \"in\"\naction = \"allow\"\n";

fn machine(rules: usize) -> String {
    MACHINE.to_string() + &RULE.repeat(rules)
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
        let answer = obey(order.as_bytes(), |number, devices| card.change_rules(number, devices)).unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
    let order = format!("rules 0\n{}", "name = \"one\"\n[[net]]\nname = \"n\"\nmtu = 1400\n");
    let answer = Cell::new(None);
    obey(order.as_bytes(), |number, devices| {
        answer.set(card.change_rules(number, devices));
        answer.get()
    })
    .unwrap();
    assert_eq!(answer.get(), Some(Changed { rules: 0, groups: 1, differs_in_more: true }));
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
        (&long, "longer than 61440 bytes"),
        (wrong.as_bytes(), "machines/0.toml:7: `direction`"),
    ] {
        let answer = obey(order, |_, _| panic!("it is changed")).unwrap_err();
        assert!(answer.contains(why), "{answer}");
    }
    let answer = obey(b"rules 7\nname = \"m\"\n", |_, _| None);
    assert_eq!(answer.unwrap_err(), "there is no machine 7: nothing has changed");
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
    let mut kept = KeptOrders::new(Some(area.clone()));
    assert_eq!(kept.orders().count(), 0);
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
    assert!(!KeptOrders::<Lasting>::new(None).keep(b"rules 0\na".to_vec()));
}
