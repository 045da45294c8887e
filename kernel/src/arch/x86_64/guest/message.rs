//! Interrupt messages between virtual CPUs, and from devices.

use dragonfly_vapic::{BROADCAST, DeliveryMode, Effect, Message, Shorthand};

use super::super::apic::notify_guest;
use super::super::{KERNEL, X86};
use super::Interrupts;
use crate::cpu::Cpu;
use crate::vcpu::Vcpu;
use crate::vm::Vm;

/// Delivers a message-signalled interrupt. One that means nothing is dropped, as on a machine.
pub fn send(cpu: &mut Cpu<X86>, vm: &Vm<X86>, address: u64, data: u32) {
    if let Some(message) = Message::from_msi(address, data) {
        deliver(cpu, vm, &message, None);
    }
}

/// Sends the interrupt of a command to the virtual CPUs of a set, where bit n is the one with the APIC ID `first + n`. Gives
/// how many there are, or none if it is a command that is not for single ones.
pub fn send_to_set(cpu: &mut Cpu<X86>, vm: &Vm<X86>, set: u128, first: u64, command: u64) -> Option<u64> {
    let mut message = Message::to_one(u32::try_from(command).ok()?, 0)?;
    let (mut rest, mut count) = (set, 0);
    while rest != 0 {
        let id = first.checked_add(rest.trailing_zeros().into()).and_then(|id| u32::try_from(id).ok());
        rest &= rest - 1;
        if let Some(id) = id
            && let Some(vcpu) = vm.vcpu(id)
        {
            message.destination = id;
            post(cpu, &vcpu, &message);
            count += 1;
        }
    }
    Some(count)
}

/// Does what an access to the APIC of a virtual CPU comes to, beyond that APIC. An end of a level-triggered interrupt is
/// for the VMM: its vector.
pub fn perform(cpu: &mut Cpu<X86>, vcpu: &Vcpu<X86>, effect: Effect) -> Option<u8> {
    match effect {
        Effect::Send(message) => {
            deliver(cpu, &vcpu.vm, &message, Some(vcpu.number));
            None
        }
        Effect::Eoi { vector, is_level: true } => Some(vector),
        Effect::None | Effect::Eoi { .. } | Effect::TimerChanged => None,
    }
}

/// Delivers a message from a virtual CPU, or from outside.
fn deliver(cpu: &mut Cpu<X86>, vm: &Vm<X86>, message: &Message, sender: Option<u32>) {
    // A de-assertion of INIT does nothing (SDM 3A, "Interrupt Command Register").
    if message.mode == DeliveryMode::Init && !message.is_assert {
        return;
    }
    // An APIC's ID is its virtual CPU's number.
    if message.shorthand == Shorthand::None
        && !message.is_logical
        && message.destination != BROADCAST
        && let Some(vcpu) = vm.vcpu(message.destination)
        && vcpu.interrupts.apic.destined(message.destination, false)
    {
        post(cpu, &vcpu, message);
        return;
    }
    for vcpu in vm.vcpus() {
        let is_sender = sender == Some(vcpu.number);
        let is_destined = match message.shorthand {
            Shorthand::None => vcpu.interrupts.apic.destined(message.destination, message.is_logical),
            Shorthand::ToSelf => is_sender,
            Shorthand::All => true,
            Shorthand::AllButSelf => !is_sender,
        };
        if is_destined {
            post(cpu, &vcpu, message);
            // All have the same priority as far as anybody can tell: the first one gets it.
            if message.mode == DeliveryMode::LowestPriority {
                return;
            }
        }
    }
}

fn post(cpu: &mut Cpu<X86>, vcpu: &Vcpu<X86>, message: &Message) {
    let Interrupts { apic, posted, .. } = &vcpu.interrupts;
    if matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
        && let Some(posted) = posted
        && apic.can_bypass(message.vector, message.trigger)
    {
        if posted.post(message.vector) {
            vcpu.notify_by(&KERNEL, cpu, notify_guest);
        }
        return;
    }
    let is_news = match message.mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => apic.post(message.vector, message.trigger),
        DeliveryMode::Nmi => apic.post_nmi(),
        DeliveryMode::Init => apic.post_init(),
        DeliveryMode::Startup => apic.post_startup(message.vector),
        // There is no system management mode in a guest, and no 8259 that would know a vector.
        DeliveryMode::Smi | DeliveryMode::ExtInt => false,
    };
    if is_news {
        vcpu.notify(&KERNEL, cpu);
    }
}
