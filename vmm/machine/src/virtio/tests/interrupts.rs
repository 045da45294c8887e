//! Interrupts of queues and of the configuration: what is sent, what waits.

use super::*;

/// What the back end was told to interrupt by: queues 0 and 1.
fn told(guest: &Guest) -> Vec<(u16, Option<u32>)> {
    let calls = guest.model.take_calls();
    calls
        .into_iter()
        .filter_map(|call| match call {
            Call::Message(queue, message) => Some((queue, message)),
            _ => None,
        })
        .collect()
}

fn pending(guest: &mut Guest) -> u32 {
    guest.get32(PENDING)
}

#[test]
fn the_back_end_interrupts_by_the_message_of_each_queues_vector() {
    let mut guest = Guest::new();
    guest.drive();
    assert_eq!(guest.model.interrupt(0), Some(0x4041));
    assert_eq!(guest.model.interrupt(1), Some(0x4042));
    assert_eq!((guest.messages(), pending(&mut guest)), (Vec::new(), 0));
}

#[test]
fn linux_moves_an_interrupt_to_another_cpu() {
    // The steps of `pci_msix_write_vector_ctrl` and `pci_write_msg_msix`.
    let mut guest = Guest::new();
    guest.drive();
    guest.set32(TABLE + 16 + 12, 1);
    assert_eq!(told(&guest), [(0, None)]);
    guest.set32(TABLE + 16, 0xfee0_1000);
    guest.set32(TABLE + 16 + 4, 0);
    guest.set32(TABLE + 16 + 8, 0x4051);
    assert_eq!(told(&guest), []);
    assert_eq!(guest.model.interrupt(0), None);
    guest.set32(TABLE + 16 + 12, 0);
    assert_eq!(told(&guest), [(0, Some(0x4051))]);
    assert_eq!((guest.messages(), guest.messages()), (vec![0x4051], Vec::new()));
}

#[test]
fn what_a_masked_queue_wanted_is_pending_and_sent_once() {
    for (address, is_config, mask, unmask) in
        [(TABLE + 16 + 12, false, 1, 0), (0x40, true, 0xc000_0000, 0x8000_0000), (4, true, 3, 7)]
    {
        let mut guest = Guest::new();
        guest.drive();
        let set = |guest: &mut Guest, value| {
            if is_config { guest.set_config(address, value) } else { guest.set32(address, value) }
        };
        set(&mut guest, mask);
        assert_eq!(guest.model.interrupt(0), None, "{address:#x}");
        assert_eq!((pending(&mut guest), pending(&mut guest)), (2, 2), "{address:#x}");
        assert_eq!(guest.messages(), [], "{address:#x}");
        set(&mut guest, unmask);
        assert_eq!((guest.messages(), guest.messages()), (vec![0x4041], Vec::new()), "{address:#x}");
        assert_eq!(pending(&mut guest), 0, "{address:#x}");
    }
}

#[test]
fn queues_may_share_a_vector() {
    let mut guest = Guest::new();
    guest.drive();
    for queue in 0..2 {
        guest.set16(QUEUE_SELECT, queue);
        guest.set16(QUEUE_VECTOR, 2);
    }
    guest.set32(TABLE + 32 + 12, 1);
    assert_eq!((guest.model.interrupt(0), guest.model.interrupt(1)), (None, None));
    guest.set32(TABLE + 32 + 12, 0);
    assert_eq!(guest.messages(), [0x4042]);
}

#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    let mut guest = Guest::new();
    guest.drive();
    for offset in [CONFIG_VECTOR, QUEUE_VECTOR] {
        for (written, expected) in [(3, 0xffff), (2, 2), (0xfffe, 0xffff), (0, 0), (0xffff, 0xffff)] {
            guest.set16(offset, written);
            assert_eq!(guest.get16(offset), expected, "{offset:#x} {written:#x}");
        }
    }
    assert_eq!(guest.model.interrupt(1), None);
}

#[test]
fn a_change_of_the_configuration_is_told_by_generation_and_vector() {
    let mut guest = Guest::new();
    guest.drive();
    let generation = guest.get8(GENERATION);
    guest.machine.virtio_config_changed(guest.at);
    assert_eq!(guest.messages(), [0x4040]);
    assert_eq!(guest.get8(GENERATION), generation + 1);
}

#[test]
fn a_change_of_the_configuration_waits_while_its_vector_is_masked() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set32(TABLE + 12, 1);
    guest.machine.virtio_config_changed(guest.at);
    assert_eq!((guest.messages(), pending(&mut guest)), (Vec::new(), 1));
    guest.set32(TABLE + 12, 0);
    assert_eq!(guest.messages(), [0x4040]);
}

#[test]
fn a_driver_without_msix_looks_at_the_isr_status_which_is_zero_then() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set_config(0x40, 0);
    assert_eq!((guest.model.interrupt(0), guest.get8(ISR), guest.get8(ISR)), (None, 1, 0));
    guest.machine.virtio_config_changed(guest.at);
    guest.model.interrupt(1);
    assert_eq!((guest.get32(ISR), guest.get32(ISR)), (3, 0));
    guest.set_config(0x40, 0x8000_0000);
    assert_eq!(guest.messages(), [], "what was seen, and what came while MSI-X was off, is not sent");
}

#[test]
fn a_reset_forgets_what_is_pending() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set_config(0x40, 0xc000_0000);
    guest.machine.virtio_config_changed(guest.at);
    guest.model.interrupt(0);
    guest.set8(STATUS, 0);
    guest.set_config(0x40, 0x8000_0000);
    assert_eq!((guest.messages(), pending(&mut guest)), (Vec::new(), 0));
}
