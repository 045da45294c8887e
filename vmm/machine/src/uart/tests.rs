//! The port register by register, as a driver uses it.

use proptest::prelude::*;

use super::*;

const DATA: u8 = 0;
const IER: u8 = 1;
const IIR: u8 = 2;
const FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;
const MSR: u8 = 6;
const SCR: u8 = 7;

const RECEIVE: u8 = 1 << 0;
const TRANSMIT: u8 = 1 << 1;
const ERRORS: u8 = 1 << 2;
const MODEM: u8 = 1 << 3;

const FIFOS: u8 = 0x01;
const FIFOS_LEVEL_14: u8 = 0xc1;

fn after(writes: &[(u8, u8)]) -> Uart {
    let mut uart = Uart::new();
    for (offset, value) in writes {
        uart.write(*offset, *value);
    }
    uart
}

#[test]
fn after_reset_the_transmitter_is_empty_and_no_interrupt_is_pending() {
    let mut uart = Uart::new();
    assert_eq!(uart.read(LSR), 0x60);
    assert_eq!(uart.read(IIR), 0x01);
    assert!(!uart.interrupt());
}

#[test]
fn what_is_written_goes_to_the_owner_in_order() {
    let mut uart = after(&[(DATA, b'a'), (DATA, b'b'), (DATA, b'c')]);
    assert_eq!(uart.output(), b"abc");
    uart.output_taken(2);
    assert_eq!(uart.output(), b"c");
}

#[test]
fn the_owner_may_say_that_it_took_more_than_there_was() {
    let mut uart = after(&[(DATA, b'a')]);
    uart.output_taken(100);
    assert_eq!(uart.output(), b"");
}

#[test]
fn the_divisor_is_behind_dlab_and_is_no_output() {
    let mut uart = after(&[(LCR, 0x83), (DATA, 0x12), (IER, 0x34)]);
    assert_eq!((uart.read(DATA), uart.read(IER)), (0x12, 0x34));
    uart.write(LCR, 0x03);
    assert_eq!((uart.read(DATA), uart.read(IER)), (0, 0));
    assert_eq!(uart.output(), b"");
}

#[test]
fn only_the_four_interrupts_that_there_are_can_be_enabled() {
    assert_eq!(after(&[(IER, 0xff)]).read(IER), 0x0f);
}

#[test]
fn scratch_and_line_control_keep_what_is_written() {
    let mut uart = after(&[(SCR, 0xa5), (LCR, 0x1b)]);
    assert_eq!((uart.read(SCR), uart.read(LCR)), (0xa5, 0x1b));
}

#[test]
fn the_identification_tells_that_the_fifos_are_on() {
    let mut uart = after(&[(FCR, FIFOS)]);
    assert_eq!(uart.read(IIR), 0xc1);
    uart.write(FCR, 0);
    assert_eq!(uart.read(IIR), 0x01);
}

#[test]
fn enabling_the_transmitters_interrupt_raises_it_each_time_when_the_transmitter_is_empty() {
    // What Linux's driver tests when it starts a port.
    let mut uart = Uart::new();
    for _ in 0..2 {
        uart.write(IER, TRANSMIT);
        assert!(uart.interrupt());
        assert_eq!(uart.read(IIR), 0x02);
        uart.write(IER, 0);
        assert!(!uart.interrupt());
    }
}

#[test]
fn reading_the_identification_ends_the_transmitters_interrupt() {
    let mut uart = after(&[(IER, TRANSMIT)]);
    assert_eq!(uart.read(IIR), 0x02);
    assert_eq!(uart.read(IIR), 0x01);
    assert!(!uart.interrupt());
}

#[test]
fn writing_data_raises_the_transmitters_interrupt_again() {
    let mut uart = after(&[(IER, TRANSMIT)]);
    uart.read(IIR);
    uart.write(DATA, b'x');
    assert!(uart.interrupt());
}

#[test]
fn enabling_another_interrupt_does_not_raise_the_transmitters_again() {
    let mut uart = after(&[(IER, TRANSMIT)]);
    uart.read(IIR);
    uart.write(IER, TRANSMIT | RECEIVE);
    assert!(!uart.interrupt());
}

#[test]
fn input_raises_an_interrupt_until_it_is_read() {
    let mut uart = after(&[(FCR, FIFOS), (IER, RECEIVE)]);
    assert_eq!(uart.offer_input(b"hi"), 2);
    assert!(uart.interrupt());
    assert_eq!(uart.read(IIR), 0xc4);
    assert_eq!((uart.read(DATA), uart.read(LSR) & 1, uart.read(DATA)), (b'h', 1, b'i'));
    assert!(!uart.interrupt());
    assert_eq!(uart.read(LSR) & 1, 0);
}

#[test]
fn input_below_the_trigger_level_is_told_as_a_timeout() {
    let mut uart = after(&[(FCR, FIFOS_LEVEL_14), (IER, RECEIVE)]);
    uart.offer_input(&[b'x'; 13]);
    assert_eq!(uart.read(IIR), 0xcc);
    uart.offer_input(b"x");
    assert_eq!(uart.read(IIR), 0xc4);
}

#[test]
fn input_that_is_not_enabled_raises_no_interrupt() {
    let mut uart = Uart::new();
    uart.offer_input(b"x");
    assert!(!uart.interrupt());
}

#[test]
fn input_beyond_the_fifo_waits_and_is_not_lost() {
    let mut uart = after(&[(FCR, FIFOS)]);
    let sent: Vec<u8> = (0..100).collect();
    assert_eq!(uart.offer_input(&sent), 100);
    let received: Vec<u8> = sent.iter().map(|_| uart.read(DATA)).collect();
    assert_eq!(received, sent);
    assert_eq!(uart.read(LSR), 0x60);
}

#[test]
fn input_is_taken_only_as_far_as_there_is_room() {
    let mut uart = after(&[(FCR, FIFOS)]);
    assert_eq!(uart.offer_input(&[0; 10_000]), INPUT_CAPACITY);
    assert_eq!(uart.offer_input(&[0; 10_000]), FIFO_SIZE);
    assert_eq!(uart.offer_input(&[0; 10_000]), 0);
    uart.read(DATA);
    assert_eq!(uart.offer_input(&[0; 10_000]), 1);
}

#[test]
fn clearing_the_receiver_drops_what_is_in_the_fifo() {
    let mut uart = after(&[(FCR, FIFOS)]);
    uart.offer_input(b"x");
    uart.write(FCR, FIFOS | 0x02);
    assert_eq!(uart.read(LSR) & 1, 0);
}

#[test]
fn loop_back_gives_data_to_the_receiver_and_none_to_the_owner() {
    let mut uart = after(&[(FCR, FIFOS), (MCR, 0x10), (DATA, b'x')]);
    assert_eq!(uart.read(DATA), b'x');
    assert_eq!(uart.output(), b"");
}

#[test]
fn loop_back_connects_modem_outputs_to_modem_inputs() {
    for (outputs, inputs) in [(0x0a, 0x90), (0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80), (0x00, 0x00)] {
        let mut uart = after(&[(MCR, 0x10 | outputs)]);
        assert_eq!(uart.read(MSR) & 0xf0, inputs, "{outputs:#x}");
    }
}

#[test]
fn an_overrun_in_loop_back_is_told_once_and_interrupts() {
    let mut uart = after(&[(MCR, 0x10), (IER, ERRORS), (DATA, b'1'), (DATA, b'2')]);
    assert_eq!(uart.read(IIR), 0x06);
    assert_eq!(uart.read(LSR), 0x63);
    assert_eq!(uart.read(LSR), 0x61);
    assert!(!uart.interrupt());
    assert_eq!(uart.read(DATA), b'1');
}

#[test]
fn input_waits_while_the_port_is_connected_to_itself() {
    let mut uart = after(&[(FCR, FIFOS), (MCR, 0x10)]);
    assert_eq!(uart.offer_input(b"x"), 1);
    assert_eq!(uart.read(LSR) & 1, 0);
    uart.write(MCR, 0);
    assert_eq!(uart.read(DATA), b'x');
}

#[test]
fn a_terminal_is_connected_and_changes_are_told_once() {
    let mut uart = after(&[(IER, MODEM)]);
    assert_eq!(uart.read(MSR), 0xb0);
    // All inputs fall in loop-back with no outputs.
    uart.write(MCR, 0x10);
    assert!(uart.interrupt());
    assert_eq!(uart.read(IIR), 0x00);
    assert_eq!(uart.read(MSR), 0x0b);
    assert_eq!(uart.read(MSR), 0x00);
    assert!(!uart.interrupt());
}

#[test]
fn the_ring_indicator_tells_of_its_end_only() {
    let mut uart = after(&[(MCR, 0x1f)]);
    uart.read(MSR);
    uart.write(MCR, 0x1b);
    assert_eq!(uart.read(MSR), 0xb4);
    uart.write(MCR, 0x1f);
    assert_eq!(uart.read(MSR), 0xf0);
}

#[test]
fn interrupts_are_told_in_the_order_of_their_priority() {
    let mut uart = after(&[(FCR, FIFOS), (MCR, 0x10), (IER, 0x0f)]);
    (0..17).for_each(|_| uart.write(DATA, b'x'));
    assert_eq!(uart.read(IIR), 0xc6);
    uart.read(LSR);
    assert_eq!(uart.read(IIR), 0xc4);
    (0..16).for_each(|_| assert_eq!(uart.read(DATA), b'x'));
    assert_eq!(uart.read(IIR), 0xc2);
    assert_eq!(uart.read(IIR), 0xc0);
    uart.read(MSR);
    assert_eq!(uart.read(IIR), 0xc1);
}

#[test]
fn a_full_console_stops_the_transmitter_until_the_owner_takes_output() {
    let mut uart = after(&[(IER, TRANSMIT)]);
    let mut written = 0;
    while uart.read(LSR) & 0x20 != 0 {
        uart.write(DATA, b'x');
        written += 1;
    }
    assert!(written <= OUTPUT_CAPACITY && !uart.interrupt());
    uart.output_taken(FIFO_SIZE);
    assert_eq!(uart.read(LSR), 0x60);
    assert!(uart.interrupt());
}

#[test]
fn a_guest_that_does_not_look_loses_output_but_takes_no_memory() {
    let mut uart = Uart::new();
    (0..100_000).for_each(|_| uart.write(DATA, b'x'));
    assert_eq!(uart.output().len(), OUTPUT_CAPACITY);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u8),
    Write(u8, u8),
    Input(Vec<u8>),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(Step::Read),
        (0u8..8, any::<u8>()).prop_map(|(offset, value)| Step::Write(offset, value)),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Input),
        (0usize..5000).prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn a_driver_that_serves_each_interrupt_gets_all_input_and_sends_all_output(
        chunks in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), 0usize..40), 1..50),
        level in 0u8..4,
    ) {
        let mut uart = after(&[(FCR, FIFOS | level << 6), (IER, RECEIVE | TRANSMIT)]);
        let (mut sent, mut received, mut outgoing, mut output) = (Vec::new(), Vec::new(), 0u8, Vec::new());
        for (input, writes) in &chunks {
            prop_assert_eq!(uart.offer_input(input), input.len());
            sent.extend(input);
            let mut left = *writes;
            while uart.interrupt() {
                match uart.read(IIR) & 0x0f {
                    0x04 | 0x0c => while uart.read(LSR) & 1 != 0 { received.push(uart.read(DATA)) },
                    0x02 => for _ in 0..left.min(FIFO_SIZE) {
                        uart.write(DATA, outgoing);
                        outgoing = outgoing.wrapping_add(1);
                        left -= 1;
                    },
                    other => prop_assert!(false, "interrupt {other:#x}"),
                }
            }
            // The transmitter stays quiet when there was nothing to send: the driver begins again.
            for _ in 0..left {
                uart.write(DATA, outgoing);
                outgoing = outgoing.wrapping_add(1);
            }
            output.extend_from_slice(uart.output());
            uart.output_taken(usize::MAX);
        }
        while uart.read(LSR) & 1 != 0 {
            received.push(uart.read(DATA));
        }
        prop_assert_eq!(received, sent);
        let expected: Vec<u8> = (0..output.len()).map(|number| number as u8).collect();
        prop_assert_eq!(output, expected);
    }

    #[test]
    fn line_and_identification_always_agree(steps in proptest::collection::vec(step(), 0..200)) {
        let mut uart = Uart::new();
        for step in steps {
            match step {
                Step::Read(offset) => _ = uart.read(offset),
                Step::Write(offset, value) => uart.write(offset, value),
                Step::Input(bytes) => _ = uart.offer_input(&bytes),
                Step::Take(count) => uart.output_taken(count),
            }
            let is_asserted = uart.interrupt();
            prop_assert_eq!(is_asserted, uart.clone().read(IIR) & 1 == 0);
            prop_assert!(uart.output().len() <= OUTPUT_CAPACITY);
        }
    }
}
