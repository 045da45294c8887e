//! KVM's hypercalls (Linux, `Documentation/virt/kvm/x86/hypercalls.rst`).

use dragonfly_abi::arch::guest::General;

/// Sends an interrupt to several vCPUs.
const SEND_IPI: u64 = 10;

/// There is no such hypercall.
const NO_CALL: i64 = -1000;
/// Only the guest's kernel may.
const NOT_PERMITTED: i64 = -1;

/// Bits of the interrupt command that are the vector and the delivery mode (SDM 3A 11.6.1).
const VECTOR: u64 = 0xff;
const MODE: u64 = 7 << 8;
const MODE_FIXED: u64 = 0;
const MODE_NMI: u64 = 4 << 8;

/// Numbers of local APICs that a message can name.
const MAX_APIC: u64 = 255;

/// Answers a hypercall with these registers of a 64-bit guest; gives what RAX gets. `send` sends the interrupt with an
/// address and data of a message.
pub(crate) fn answer(general: impl Fn(General) -> u64, privilege: u8, mut send: impl FnMut(u64, u32)) -> u64 {
    if privilege != 0 {
        return NOT_PERMITTED.cast_unsigned();
    }
    if general(General::Rax) != SEND_IPI {
        return NO_CALL.cast_unsigned();
    }
    let command = general(General::Rsi);
    if !matches!(command & MODE, MODE_FIXED | MODE_NMI) {
        return NO_CALL.cast_unsigned();
    }
    let targets = u128::from(general(General::Rbx)) | u128::from(general(General::Rcx)) << 64;
    let first = general(General::Rdx);
    let mut sent = 0;
    for bit in (0..u128::BITS).filter(|bit| targets >> bit & 1 != 0) {
        let Some(apic) = first.checked_add(bit.into()).filter(|apic| *apic < MAX_APIC) else { continue };
        send(0xfee0_0000 | apic << 12, (command & (VECTOR | MODE)) as u32);
        sent += 1;
    }
    sent
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::arch::guest::General;

    use super::{MODE_NMI, NO_CALL, NOT_PERMITTED, SEND_IPI, answer};

    fn call(registers: &[(General, u64)], privilege: u8) -> (i64, Vec<(u64, u32)>) {
        let mut sent = Vec::new();
        let general = |wanted| registers.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, value)| *value);
        let result = answer(general, privilege, |address, data| sent.push((address, data)));
        (result.cast_signed(), sent)
    }

    #[test]
    fn an_unknown_call_is_none() {
        assert_eq!(call(&[(General::Rax, 99)], 0), (NO_CALL, vec![]));
    }

    #[test]
    fn a_program_of_the_guest_may_not() {
        assert_eq!(call(&[(General::Rax, SEND_IPI), (General::Rbx, 1)], 3), (NOT_PERMITTED, vec![]));
    }

    #[test]
    fn an_interrupt_goes_to_each_bit_counted_from_the_first_number() {
        let registers = [
            (General::Rax, SEND_IPI),
            (General::Rbx, 0b101),
            (General::Rcx, 1),
            (General::Rdx, 2),
            (General::Rsi, 0xfd),
        ];
        let messages = vec![(0xfee0_2000, 0xfd), (0xfee0_4000, 0xfd), (0xfee4_2000, 0xfd)];
        assert_eq!(call(&registers, 0), (3, messages));
    }

    #[test]
    fn numbers_that_no_message_can_name_get_none() {
        let registers =
            [(General::Rax, SEND_IPI), (General::Rbx, 3), (General::Rdx, 254), (General::Rsi, MODE_NMI | 2)];
        assert_eq!(call(&registers, 0), (1, vec![(0xfeef_e000, 0x402)]));
        let registers = [(General::Rax, SEND_IPI), (General::Rbx, 1), (General::Rdx, u64::MAX)];
        assert_eq!(call(&registers, 0), (0, vec![]));
    }
}
