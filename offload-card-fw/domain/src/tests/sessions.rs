//! Whose devices are whose, and how sessions end.

use std::vec::Vec;

use dragonfly_card_gate::{Answer, Devices};
use dragonfly_rt::sync::Mutex;
use dragonfly_vhost_user::{FrontEndError, Transport};
use dragonfly_virtqueue::host::Buffer;

use super::{FakeCard, Lent, MAX_MESSAGE, begin, card, front_end, read_sector};

const ONE: u64 = 11;
const OTHER: u64 = 12;

const FILES: [(&str, &str); 2] = [
    (
        "machines/0.toml",
        "name = \"one\"\n[[disk]]\nname = \"a\"\nsize = \"64KiB\"\n[[disk]]\nname = \"b\"\nsize = \"64KiB\"\n\
         [[net]]\nname = \"n\"\n",
    ),
    ("machines/1.toml", "name = \"other\"\n[[disk]]\nname = \"a\"\nsize = \"64KiB\"\n"),
];

/// Two machines, attached by one VMM each.
fn attached() -> Mutex<FakeCard> {
    let mut card = card(&FILES, Vec::new());
    assert_eq!(card.attach(0, ONE), Ok(Devices { disks: 2, nets: 1, ..Devices::default() }));
    assert_eq!(card.attach(1, OTHER), Ok(Devices { disks: 1, ..Devices::default() }));
    Mutex::new(card)
}

fn answer<T>(result: Result<T, FrontEndError<Answer>>) -> Option<Answer> {
    match result {
        Err(FrontEndError::Transport { error, .. }) => Some(error),
        _ => None,
    }
}

#[test]
fn a_machine_belongs_to_the_vmm_that_attaches_first() {
    let card = attached();
    let mut card = card.lock();
    for (machine, badge) in [(0, OTHER), (1, ONE), (0, 13), (2, 13), (u32::MAX, ONE)] {
        assert_eq!(card.attach(machine, badge), Err(Answer::Refused), "{machine} {badge}");
    }
    assert!(card.attach(0, ONE).is_ok());
}

#[test]
fn nobody_reaches_a_device_that_is_not_its_own() {
    let card = attached();
    for (badge, device) in [(13, 0), (ONE, 3), (OTHER, 1), (OTHER, u32::MAX)] {
        assert_eq!(answer(front_end(&card, badge, device).set_owner()), Some(Answer::Refused), "{badge} {device}");
    }
}

#[test]
fn a_disk_serves_its_ring_and_calls_the_guest() {
    let (card, lent) = (attached(), Lent::new());
    let mut driver = begin(&mut front_end(&card, ONE, 1), &lent, 0);
    let before = lent.calls.get();
    assert_eq!(read_sector(&card, &lent, &mut *driver), Some(0));
    assert_eq!(lent.calls.get(), before + 1);
    assert!(!card.lock().enable_kicks());
}

#[test]
fn a_wrong_message_ends_its_session_and_no_other() {
    let card = attached();
    let (first, second) = (Lent::new(), Lent::new());
    let mut front = front_end(&card, ONE, 0);
    let mut lost = begin(&mut front, &first, 0);
    let mut kept = begin(&mut front_end(&card, ONE, 1), &second, 0);
    assert_eq!(front.transport().exchange(&[0xff; 12], &[], &mut [0; MAX_MESSAGE]), Err(Answer::Closed));
    assert_eq!(read_sector(&card, &first, &mut *lost), None);
    assert_eq!(read_sector(&card, &second, &mut *kept), Some(0));
    let mut driver = begin(&mut front, &first, 0);
    assert_eq!(read_sector(&card, &first, &mut *driver), Some(0));
}

#[test]
fn a_vmm_that_attaches_again_begins_anew() {
    let (card, lent) = (attached(), Lent::new());
    let mut driver = begin(&mut front_end(&card, ONE, 0), &lent, 0);
    assert!(card.lock().attach(0, ONE).is_ok());
    assert_eq!(read_sector(&card, &lent, &mut *driver), None);
    let mut driver = begin(&mut front_end(&card, ONE, 0), &lent, 0);
    assert_eq!(read_sector(&card, &lent, &mut *driver), Some(0));
}

#[test]
fn when_a_guest_is_gone_all_of_its_sessions_end_and_no_others() {
    let card = attached();
    let (gone, beside, other) = (Lent::new(), Lent::new(), Lent::new());
    let mut of_gone = begin(&mut front_end(&card, ONE, 0), &gone, 0);
    let mut of_beside = begin(&mut front_end(&card, ONE, 1), &beside, 0);
    let mut of_other = begin(&mut front_end(&card, OTHER, 0), &other, 0);
    gone.is_gone.set(true);
    card.lock().serve(0);
    assert_eq!(read_sector(&card, &gone, &mut *of_gone), None);
    assert_eq!(read_sector(&card, &beside, &mut *of_beside), None);
    assert_eq!(read_sector(&card, &other, &mut *of_other), Some(0));
}

#[test]
fn bytes_that_are_no_message_are_told_from_messages() {
    let card = attached();
    let mut front = front_end(&card, ONE, 0);
    for bytes in [&b""[..], &[1; 11], &[0; MAX_MESSAGE], &[1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0]] {
        assert_eq!(front.transport().exchange(bytes, &[], &mut [0; MAX_MESSAGE]), Err(Answer::Closed), "{bytes:?}");
    }
}

#[test]
fn a_source_of_random_numbers_comes_behind_the_other_devices() {
    let file = "name = \"one\"\n[[rng]]\nname = \"r\"\n[[disk]]\nname = \"a\"\nsize = \"64KiB\"\n";
    let mut card = card(&[("machines/0.toml", file)], Vec::new());
    assert_eq!(card.attach(0, ONE), Ok(Devices { disks: 1, rngs: 1, ..Devices::default() }));
    let (card, lent) = (Mutex::new(card), Lent::new());
    let mut driver = begin(&mut front_end(&card, ONE, 1), &lent, 0);
    driver.add(&lent.ram, &[Buffer::writable(0, 64)], 1, None).unwrap();
    driver.publish(&lent.ram);
    card.lock().serve(0);
    assert_eq!(driver.take_used(&lent.ram), Some((0, 64)));
}
