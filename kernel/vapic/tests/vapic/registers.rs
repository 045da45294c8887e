use dragonfly_hw::x86::apic::{self, x2apic_msr};
use dragonfly_hw::x86::msr::ApicBase;
use dragonfly_vapic::{DeliveryMode, Effect, Fault, LocalApic, Message, Shorthand, Trigger};

use crate::{at, deliver, deliver_all, enabled, enabled_xapic, read, write};

const MASKED: u64 = 1 << 16;

/// Registers that can be read and written, and the bits that are not reserved.
const WRITABLE: [(u32, u64); 10] = [
    (apic::TPR, 0xff),
    (apic::SVR, 0x3ff),
    (apic::LVT_TIMER, 0x7_10ff),
    (apic::LVT_THERMAL, 0x1_17ff),
    (apic::LVT_PERFORMANCE, 0x1_17ff),
    (apic::LVT_LINT0, 0x1_f7ff),
    (apic::LVT_LINT1, 0x1_f7ff),
    (apic::LVT_ERROR, 0x1_10ff),
    (apic::TIMER_INITIAL_COUNT, 0xffff_ffff),
    (apic::TIMER_DIVIDE, 0b1011),
];

const READ_ONLY: [u32; 5] = [apic::ID, apic::VERSION, apic::PPR, apic::LDR, apic::TIMER_CURRENT_COUNT];
const WRITE_ONLY: [u32; 2] = [apic::EOI, apic::SELF_IPI];

fn is_vector_set(offset: u32) -> bool {
    (apic::ISR..apic::ESR).contains(&offset)
}

#[test]
fn registers_have_their_values_of_power_up() {
    let apic = LocalApic::new(0x25);
    let expected = [
        (apic::ID, 0x25),
        (apic::VERSION, 0x5_0014),
        (apic::LDR, 0x2_0020),
        (apic::TPR, 0),
        (apic::PPR, 0),
        (apic::SVR, 0xff),
        (apic::ESR, 0),
        (apic::ICR_LOW, 0),
        (apic::LVT_TIMER, MASKED),
        (apic::LVT_THERMAL, MASKED),
        (apic::LVT_PERFORMANCE, MASKED),
        (apic::LVT_LINT0, MASKED),
        (apic::LVT_LINT1, MASKED),
        (apic::LVT_ERROR, MASKED),
        (apic::TIMER_INITIAL_COUNT, 0),
        (apic::TIMER_CURRENT_COUNT, 0),
        (apic::TIMER_DIVIDE, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(read(&apic, offset), value, "register {offset:#x}");
    }
}

#[test]
fn exactly_the_registers_of_x2apic_mode_can_be_read() {
    let apic = enabled(0);
    for register in 0x7f0..0x910 {
        let offset = u32::wrapping_sub(register, 0x800) << 4;
        let is_readable = (0x800..0x840).contains(&register)
            && (READ_ONLY.contains(&offset)
                || is_vector_set(offset)
                || [apic::ESR, apic::ICR_LOW].contains(&offset)
                || WRITABLE.iter().any(|&(writable, _)| writable == offset));
        assert_eq!(apic.read_msr(register, at(0)).is_ok(), is_readable, "MSR {register:#x}");
    }
}

#[test]
fn exactly_the_registers_of_x2apic_mode_can_be_written() {
    for register in 0x7f0..0x910 {
        let apic = enabled(0);
        let offset = u32::wrapping_sub(register, 0x800) << 4;
        let is_writable = (0x800..0x840).contains(&register)
            && (WRITE_ONLY.contains(&offset)
                || [apic::ESR, apic::ICR_LOW].contains(&offset)
                || WRITABLE.iter().any(|&(writable, _)| writable == offset));
        assert_eq!(apic.write_msr(register, 0, at(0)).is_ok(), is_writable, "MSR {register:#x}");
    }
}

#[test]
fn a_reserved_bit_faults_and_changes_nothing() {
    let zero_only = [(apic::EOI, 0), (apic::ESR, 0), (apic::SELF_IPI, 0xff)];
    for (offset, writable) in WRITABLE.into_iter().chain(zero_only) {
        let apic = enabled(0);
        let before = apic.save(at(0));
        for bit in (0..64).filter(|bit| writable >> bit & 1 == 0) {
            let result = apic.write_msr(x2apic_msr(offset), 1 << bit, at(0));
            assert_eq!(result, Err(Fault), "register {offset:#x}, bit {bit}");
        }
        assert_eq!(apic.save(at(0)), before);
    }
}

#[test]
fn the_timer_mode_that_does_not_exist_faults() {
    let apic = enabled(0);
    assert_eq!(apic.write_msr(x2apic_msr(apic::LVT_TIMER), 0x6_0040, at(0)), Err(Fault));
    assert_eq!(read(&apic, apic::LVT_TIMER), MASKED);
}

#[test]
fn what_is_written_is_read_but_for_status_bits() {
    const STATUS: u64 = 1 << 12 | 1 << 14;
    let apic = enabled(0);
    for (offset, writable) in WRITABLE {
        let value = if offset == apic::LVT_TIMER { writable & !0x4_0000 } else { writable };
        write(&apic, offset, value);
        let is_entry = (apic::LVT_TIMER..=apic::LVT_ERROR).contains(&offset);
        assert_eq!(read(&apic, offset), if is_entry { value & !STATUS } else { value }, "register {offset:#x}");
    }
}

#[test]
fn no_msr_is_there_out_of_x2apic_mode() {
    let apic = enabled_xapic(0);
    let off = LocalApic::new(0);
    off.set_apic_base(off.apic_base() & !(ApicBase::EN | ApicBase::EXTD).bits()).expect("it may be switched off");
    for register in 0x800..0x900 {
        for apic in [&apic, &off] {
            assert_eq!(apic.read_msr(register, at(0)), Err(Fault));
            assert_eq!(apic.write_msr(register, 0, at(0)), Err(Fault));
        }
    }
}

#[test]
fn sets_of_vectors_are_read_32_at_a_time() {
    let apic = enabled(0);
    for (vector, trigger) in [(0x1f, Trigger::Edge), (0x20, Trigger::Level), (0xff, Trigger::Level)] {
        apic.post(vector, trigger);
    }
    let words = |set| core::array::from_fn::<u64, 8, _>(|word| read(&apic, set + word as u32 * 16));
    assert_eq!(words(apic::IRR), [1 << 31, 1, 0, 0, 0, 0, 0, 1 << 31]);
    assert_eq!(words(apic::TMR), [0, 1, 0, 0, 0, 0, 0, 1 << 31]);
    deliver(&apic, 0xff);
    assert_eq!(words(apic::IRR), [1 << 31, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(words(apic::ISR), [0, 0, 0, 0, 0, 0, 0, 1 << 31]);
}

#[test]
fn a_write_to_eoi_ends_the_highest_interrupt() {
    let apic = enabled(0);
    apic.post(0x61, Trigger::Level);
    deliver(&apic, 0x61);
    assert_eq!(write(&apic, apic::EOI, 0), Effect::Eoi { vector: 0x61, is_level: true });
    assert_eq!(write(&apic, apic::EOI, 0), Effect::None);
}

#[test]
fn a_self_ipi_is_pending_at_once() {
    let apic = enabled(0);
    assert_eq!(write(&apic, apic::SELF_IPI, 0xf6), Effect::None);
    assert_eq!(deliver_all(&apic), [0xf6]);
    let to_self = apic::icr_fixed(0xf5) | apic::ICR_SELF;
    assert_eq!(write(&apic, apic::ICR_LOW, to_self.into()), Effect::None);
    assert_eq!(deliver_all(&apic), [0xf5]);
}

#[test]
fn a_command_is_sent_and_can_be_read() {
    let apic = enabled(0);
    let command = apic::x2apic_icr(apic::icr_fixed(0x41), 0x1_2345);
    let message = Message {
        destination: 0x1_2345,
        shorthand: Shorthand::None,
        is_logical: false,
        mode: DeliveryMode::Fixed,
        vector: 0x41,
        trigger: Trigger::Edge,
        is_assert: true,
    };
    assert_eq!(write(&apic, apic::ICR_LOW, command), Effect::Send(message));
    assert_eq!(read(&apic, apic::ICR_LOW), command);
}

#[test]
fn a_command_with_a_reserved_bit_faults_and_is_not_stored() {
    let apic = enabled(0);
    for bit in [13, 16, 17].into_iter().chain(20..32) {
        let command = u64::from(apic::icr_fixed(0x41)) | 1 << bit;
        assert_eq!(apic.write_msr(x2apic_msr(apic::ICR_LOW), command, at(0)), Err(Fault), "bit {bit}");
    }
    assert_eq!(read(&apic, apic::ICR_LOW), 0);
}

#[test]
fn delivery_status_in_a_command_is_ignored() {
    let apic = enabled(0);
    write(&apic, apic::ICR_LOW, (apic::icr_fixed(0x41) | apic::ICR_PENDING).into());
    assert_eq!(read(&apic, apic::ICR_LOW), apic::icr_fixed(0x41).into());
}

#[test]
fn errors_are_shown_by_the_write_after_them() {
    let apic = enabled(0);
    write(&apic, apic::SELF_IPI, 15);
    apic.post(3, Trigger::Edge);
    assert_eq!(read(&apic, apic::ESR), 0);
    write(&apic, apic::ESR, 0);
    assert_eq!(read(&apic, apic::ESR), 0x60);
    write(&apic, apic::ESR, 0);
    assert_eq!(read(&apic, apic::ESR), 0);
}

#[test]
fn an_ipi_of_an_exceptions_vector_is_an_error_and_is_not_sent() {
    let apic = enabled(0);
    for mode in [apic::DELIVERY_FIXED, apic::DELIVERY_LOWEST] {
        assert_eq!(write(&apic, apic::ICR_LOW, (apic::ICR_ASSERT | mode | 15).into()), Effect::None);
        write(&apic, apic::ESR, 0);
        assert_eq!(read(&apic, apic::ESR), 0x20);
    }
}

#[test]
fn an_interrupt_of_an_exceptions_vector_is_never_pending() {
    let apic = enabled(0);
    for vector in 0..16 {
        assert!(!apic.post(vector, Trigger::Level));
    }
    assert_eq!(apic.pending(), None);
    assert_eq!(read(&apic, apic::IRR), 0);
    assert_eq!(read(&apic, apic::TMR), 0);
}

#[test]
fn a_new_error_interrupts_if_the_guest_wants_it() {
    let apic = enabled(0);
    write(&apic, apic::SELF_IPI, 1);
    assert_eq!(apic.pending(), None);
    write(&apic, apic::ESR, 0);
    write(&apic, apic::LVT_ERROR, 0xfe);
    assert!(apic.post(1, Trigger::Edge), "the owner has to be told");
    assert_eq!(deliver_all(&apic), [0xfe]);
    assert!(!apic.post(1, Trigger::Edge));
    assert_eq!(apic.pending(), None);
    write(&apic, apic::LVT_ERROR, 1);
    write(&apic, apic::SELF_IPI, 1);
    assert_eq!(apic.pending(), None);
}

#[test]
fn entries_stay_masked_while_it_is_off_by_svr() {
    let apic = enabled(0);
    write(&apic, apic::LVT_LINT0, 0x700);
    write(&apic, apic::SVR, 0xff);
    assert_eq!(read(&apic, apic::LVT_LINT0), MASKED | 0x700);
    write(&apic, apic::LVT_LINT0, 0x400);
    assert_eq!(read(&apic, apic::LVT_LINT0), MASKED | 0x400);
    write(&apic, apic::SVR, 0x1ff);
    assert_eq!(read(&apic, apic::LVT_LINT0), MASKED | 0x400);
    write(&apic, apic::LVT_LINT0, 0x400);
    assert_eq!(read(&apic, apic::LVT_LINT0), 0x400);
}

#[test]
fn commands_are_sent_while_it_is_off_by_svr() {
    let apic = LocalApic::new(0);
    assert!(matches!(write(&apic, apic::ICR_LOW, apic::x2apic_icr(apic::ICR_INIT, 1)), Effect::Send(_)));
}

#[test]
fn the_result_of_a_write_fits_two_registers() {
    assert!(size_of::<Result<Effect, Fault>>() <= 16);
}
