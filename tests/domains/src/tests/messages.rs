//! Message-signalled interrupts, and memory that a device writes: with the AHCI controller of QEMU's machine, to which the
//! CD drive is connected (AHCI 1.3.1; PCI Local Bus 3.0, 6.8).

use alloc::vec::Vec;

use dragonfly_abi::{Call, Rights, StartHandles, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Interrupt, Notification, Object, Owned, System};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::raw;

mod ahci;

super::tests! {
    "a device writes to memory where the kernel says that it is, and its message sets bits on each CPU" => device,
    "a message has an address for each CPU, and data of its own" => words,
    "messages come back when they are closed" => all_messages,
    "what does not fit is refused when binding a message" => bad_bindings,
}

const SYSTEM: u64 = StartHandles::SYSTEM.0 as u64;
const MS: u64 = 1_000_000;

/// What a device writes to the local APIC of some CPU (SDM 3A, "Message Address Register Format").
fn is_message_address(address: u64) -> bool {
    address & !0xf_ffff == 0xfee0_0000
}

fn device(context: &Context) -> Outcome {
    let Some(controller) = ahci::Controller::find()? else {
        context.note(format_args!("the machine has no AHCI controller with a drive: no device writes to memory here"));
        return Ok(());
    };
    let notification = Notification::create()?;
    let interrupt = System::OWN.message_interrupt()?;
    for (round, cpu) in (0..cpus()).chain(0..cpus()).enumerate() {
        let bits = 1 << round;
        controller.signal_by(interrupt.bind_message(*notification, bits, cpu)?)?;
        // No acknowledgement in between.
        for _ in 0..3 {
            controller.identify()?;
            equal(format_args!("bits by CPU {cpu}"), notification.wait_timed(5000 * MS), Ok(bits))?;
            let word = controller.identity()?;
            // A packet device says so in the two upper bits (ATA/ATAPI-7, "IDENTIFY PACKET DEVICE").
            that(word >> 14 == 2, format_args!("the drive's first word is {word:#x}"))?;
            // The end of the command may have been a message more.
            let _ = notification.wait_timed(0);
        }
    }
    interrupt.unbind()?;
    controller.identify()?;
    controller.identity()?;
    refused("bits of a message that is unbound", notification.wait_timed(5 * MS), Status::TimedOut)
}

fn words(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let messages = [System::OWN.message_interrupt()?, System::OWN.message_interrupt()?];
    let mut addresses = Vec::new();
    for cpu in 0..cpus() {
        let [first, second] = [&messages[0], &messages[1]].map(|message| message.bind_message(*notification, 1, cpu));
        let (first, second) = (first?, second?);
        that(is_message_address(first.address), format_args!("an address of {:#x}", first.address))?;
        equal("the other's address", second.address, first.address)?;
        that(first.data != second.data && first.data < 0x100, format_args!("{first:x?} and {second:x?}"))?;
        that(!addresses.contains(&first.address), format_args!("{:#x} is two CPUs' address", first.address))?;
        addresses.push(first.address);
    }
    // A line's are nothing.
    let line = System::OWN.interrupt(3, dragonfly_rt::sys::Trigger::Edge, dragonfly_rt::sys::Polarity::ActiveHigh)?;
    let words = [line.handle().0.into(), notification.handle().0.into(), 1, 0];
    equal("what a line gives", raw::call(Call::InterruptBind, &words)?, [0; 6])
}

fn all_messages(_: &Context) -> Outcome {
    for _ in 0..2 {
        let mut messages: Vec<Owned<Interrupt>> = Vec::new();
        let refusal = loop {
            match System::OWN.message_interrupt() {
                Ok(message) => messages.push(message),
                Err(status) => break status,
            }
        };
        equal("the refusal of one more", refusal, Status::NoHandles)?;
        equal("messages", messages.len(), 64)?;
    }
    Ok(())
}

fn bad_bindings(_: &Context) -> Outcome {
    let weak = System::OWN.copy(Rights::all() - Rights::DMA, 0)?;
    refused("a message without DMA", weak.message_interrupt(), Status::Denied)?;
    let made = raw::call(Call::DeviceMessage, &[SYSTEM])?;
    raw::call(Call::HandleClose, &[made[0]])?;
    let (message, notification) = (System::OWN.message_interrupt()?, Notification::create()?);
    refused("an acknowledgement before it is bound", message.acknowledge(), Status::BadState)?;
    refused("no bits", message.bind(*notification, 0, 0), Status::BadArgument)?;
    for cpu in [cpus(), 64, u32::MAX] {
        refused(format_args!("CPU {cpu}"), message.bind(*notification, 1, cpu), Status::BadCpu)?;
    }
    message.bind(*notification, 1, 0)?;
    message.acknowledge()?;
    message.bind(*notification, 2, cpus() - 1)?;
    message.unbind()?;
    message.unbind()?;
    refused("an acknowledgement when it is unbound", message.acknowledge(), Status::BadState)
}
