//! I/O ports, device memory and interrupts, with the interval timer and the clock chip that every PC has.

use dragonfly_abi::{Call, PAGE_SIZE, Rights, StartHandles, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{
    Domain, Interrupt, Notification, Object, Owned, Polarity, Ports, System, Trigger, clock_now_ns,
};

use super::Context;
use crate::check::{Failure, Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND};
use crate::probe;
use crate::raw;

super::tests! {
    "ports can be read and written in their range alone" => ports,
    "a range of ports must be one" => bad_port_ranges,
    "device memory is mapped where no RAM is" => device_memory,
    "RAM is no device memory" => ram_is_refused,
    "the interrupt controllers are the kernel's alone" => controllers_are_refused,
    "device memory cannot be committed" => device_memory_is_fixed,
    "an interrupt line must be one, with known flags" => bad_lines,
    "an interrupt of the interval timer sets its bits, once until it is acknowledged" => timer_interrupt,
    "an interrupt of the clock chip comes again after each acknowledgement" => clock_interrupt,
    "an interrupt reaches each CPU" => interrupts_on_each_cpu,
    "an interrupt through a badged handle sets its badge" => badged_interrupt,
    "an interrupt that is unbound comes no more" => unbinding,
    "a line has one binding at a time" => one_binding,
    "an interrupt goes with its domain, and the line can be bound again" => line_comes_back,
    "what does not fit is refused when binding" => bad_bindings,
}

const SYSTEM: u64 = StartHandles::SYSTEM.0 as u64;
const MS: u64 = 1_000_000;

fn ports(_: &Context) -> Outcome {
    // The clock chip's index and data: seconds never exceed 0x59 in BCD.
    let ports = System::OWN.ports(0x70, 2)?;
    ports.write(0x70, 1, 0)?;
    let seconds = ports.read(0x71, 1)?;
    that(seconds <= 0x59, format_args!("the clock chip's seconds are {seconds:#x}"))?;
    for (port, width) in
        [(0x6f, 1), (0x72, 1), (0x71, 2), (0x70, 4), (0xffff, 1), (0, 1), (0x70, 3), (0x70, 0), (0x70, 8)]
    {
        refused(format_args!("{width} bytes at {port:#x}"), ports.read(port, width), Status::BadArgument)?;
        refused(format_args!("writing {width} bytes at {port:#x}"), ports.write(port, width, 0), Status::BadArgument)?;
    }
    let word = u64::from(ports.handle().0);
    for (port, width) in [(1 << 16 | 0x70, 1), (u64::MAX, 1), (0x70, u64::MAX), (0x70, 1 << 32 | 1)] {
        refused(
            format_args!("{width:#x} bytes at {port:#x}"),
            raw::call(Call::PortRead, &[word, port, width]),
            Status::BadArgument,
        )?;
    }
    refused("a value of 33 bits", raw::call(Call::PortWrite, &[word, 0x70, 1, 1 << 32]), Status::BadArgument)?;
    let (read_only, write_only) = (ports.copy(Rights::READ, 0)?, ports.copy(Rights::WRITE, 0)?);
    refused("writing without WRITE", read_only.write(0x70, 1, 0), Status::Denied)?;
    refused("reading without READ", write_only.read(0x71, 1), Status::Denied)?;
    read_only.read(0x71, 1)?;
    write_only.write(0x70, 1, 0)?;
    Ok(())
}

fn bad_port_ranges(_: &Context) -> Outcome {
    for (first, count) in [
        (0, 0),
        (0x1_0000, 1),
        (0xffff, 2),
        (0, 0x1_0001),
        (1, 0x1_0000),
        (u64::MAX, 1),
        (0x80, u64::MAX),
        (1 << 32, 1),
    ] {
        let made = raw::call(Call::DevicePorts, &[SYSTEM, first, count]);
        refused(format_args!("{count:#x} ports from {first:#x}"), made, Status::BadArgument)?;
    }
    let last = System::OWN.ports(0xffff, 1)?;
    last.read(0xffff, 1)?;
    refused("past the last", last.read(0xffff, 2), Status::BadArgument)
}

/// Memory of the display adapter: every PC has it there.
const DISPLAY: u64 = 0xb_8000;

fn device_memory(_: &Context) -> Outcome {
    let memory = System::OWN.device_memory(DISPLAY, PAGE_SIZE)?;
    let info = memory.info()?;
    equal("size and committed", (info.size, info.committed), (PAGE_SIZE, PAGE_SIZE))?;
    that(!memory.handle_info()?.rights.contains(Rights::EXECUTE), "device memory can be executed")?;
    let child = Child::new()?;
    for cpu in 0..cpus() {
        memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
        for value in [0x0720_0720_0720_0720, 0x0721_0722_0723_0724] {
            let written = probe::write(child.domain(), cpu, PLAYGROUND + 8, value)?;
            equal("a write", written, Ok(value))?;
            equal("a read", probe::read(child.domain(), cpu, PLAYGROUND + 8)?, Ok(value))?;
        }
        raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
    }
    for (address, size) in
        [(DISPLAY, 0), (DISPLAY + 1, PAGE_SIZE), (DISPLAY, 100), (u64::MAX - 4095, 8192), (DISPLAY, u64::MAX)]
    {
        let made = raw::call(Call::DeviceMemory, &[SYSTEM, address, size]);
        refused(format_args!("{size:#x} bytes at {address:#x}"), made, Status::BadArgument)?;
    }
    Ok(())
}

fn ram_is_refused(_: &Context) -> Outcome {
    // RAM begins at 1 MiB; the kernel, the bundle and page tables are somewhere in it.
    for address in (0x10_0000..0x400_0000).step_by(0x1_0000) {
        let made = raw::call(Call::DeviceMemory, &[SYSTEM, address, PAGE_SIZE]);
        refused(format_args!("RAM at {address:#x}"), made, Status::Denied)?;
    }
    for (address, size) in [(0, 1 << 32), (0x8_0000, 1 << 20), (0, 1 << 46)] {
        let made = raw::call(Call::DeviceMemory, &[SYSTEM, address, size]);
        refused(format_args!("{size:#x} bytes at {address:#x}"), made, Status::Denied)?;
    }
    // Beyond what the processor can address.
    let made = raw::call(Call::DeviceMemory, &[SYSTEM, 1 << 60, PAGE_SIZE]);
    that(made.is_err(), "memory beyond the physical addresses was given out")
}

fn controllers_are_refused(_: &Context) -> Outcome {
    // The usual places of the I/O APIC and of the processors' own.
    for address in [0xfec0_0000, 0xfee0_0000] {
        let made = raw::call(Call::DeviceMemory, &[SYSTEM, address, PAGE_SIZE]);
        refused(format_args!("the controller at {address:#x}"), made, Status::Denied)?;
    }
    Ok(())
}

fn device_memory_is_fixed(_: &Context) -> Outcome {
    let memory = System::OWN.device_memory(DISPLAY, PAGE_SIZE)?;
    refused("committing it", memory.commit(0, PAGE_SIZE), Status::BadArgument)
}

fn bad_lines(_: &Context) -> Outcome {
    for line in [256, 10_000, 1 << 32, u64::MAX] {
        let made = raw::call(Call::DeviceInterrupt, &[SYSTEM, line, 0]);
        refused(format_args!("line {line}"), made, Status::BadArgument)?;
    }
    for flags in [4, 5, 8, 1 << 32, u64::MAX] {
        let made = raw::call(Call::DeviceInterrupt, &[SYSTEM, 3, flags]);
        refused(format_args!("flags {flags:#x}"), made, Status::BadArgument)?;
    }
    for flags in 0..4 {
        let made = raw::call(Call::DeviceInterrupt, &[SYSTEM, 3, flags])?;
        raw::call(Call::HandleClose, &[made[0]])?;
    }
    Ok(())
}

/// The interval timer, channel 0: an interrupt each millisecond.
struct IntervalTimer {
    ports: Owned<Ports>,
}

impl IntervalTimer {
    fn start() -> Outcome<Self> {
        let ports = System::OWN.ports(0x40, 4)?;
        // Channel 0, both bytes, mode 2 (rate generator), binary; 1,193 ticks of 1.193182 MHz.
        ports.write(0x43, 1, 0x34)?;
        ports.write(0x40, 1, 1193 & 0xff)?;
        ports.write(0x40, 1, 1193 >> 8)?;
        Ok(Self { ports })
    }
}

impl Drop for IntervalTimer {
    fn drop(&mut self) {
        // Mode 0 without a count: it stands still.
        let _ = self.ports.write(0x43, 1, 0x30);
    }
}

/// The line of the interval timer: ISA's line 0 comes as 2 where the firmware says so, and it mostly does.
fn timer_line(notification: Notification, cpu: u32) -> Outcome<Owned<Interrupt>> {
    for number in [2, 0] {
        let line = System::OWN.interrupt(number, Trigger::Edge, Polarity::ActiveHigh)?;
        line.bind(notification, 0x100, cpu)?;
        line.acknowledge()?;
        if notification.wait_timed(100 * MS).is_ok() {
            return Ok(line);
        }
    }
    Err(Failure::new("the interval timer interrupts on neither line 2 nor line 0"))
}

fn timer_interrupt(_: &Context) -> Outcome {
    let _timer = IntervalTimer::start()?;
    let notification = Notification::create()?;
    let line = timer_line(*notification, 0)?;
    for round in 0..20 {
        refused("a second interrupt", notification.wait_timed(3 * MS), Status::TimedOut)?;
        line.acknowledge()?;
        let bits = notification.wait_timed(1000 * MS);
        equal(format_args!("the bits of interrupt {round}"), bits, Ok(0x100))?;
    }
    Ok(())
}

/// The clock chip's periodic interrupt, 1,024 a second.
struct ClockChip {
    ports: Owned<Ports>,
    register_b: u32,
}

impl ClockChip {
    fn start() -> Outcome<Self> {
        let ports = System::OWN.ports(0x70, 2)?;
        ports.write(0x70, 1, 0x8b)?;
        let register_b = ports.read(0x71, 1)?;
        ports.write(0x70, 1, 0x8b)?;
        ports.write(0x71, 1, register_b | 0x40)?;
        Ok(Self { ports, register_b })
    }

    /// Reads what interrupts, which lets the chip interrupt again.
    fn reason(&self) -> Outcome<u32> {
        self.ports.write(0x70, 1, 0x8c)?;
        Ok(self.ports.read(0x71, 1)?)
    }
}

impl Drop for ClockChip {
    fn drop(&mut self) {
        let _ = self.ports.write(0x70, 1, 0x8b);
        let _ = self.ports.write(0x71, 1, self.register_b & !0x40);
        let _ = self.reason();
    }
}

fn clock_interrupt(context: &Context) -> Outcome {
    let notification = Notification::create()?;
    let line = System::OWN.interrupt(8, Trigger::Edge, Polarity::ActiveHigh)?;
    line.bind(*notification, 2, 0)?;
    let chip = ClockChip::start()?;
    line.acknowledge()?;
    chip.reason()?;
    let start = clock_now_ns();
    let count = context.repeat(50, 200, 2000);
    let mut without_reason = 0;
    for round in 0..count {
        // Busily: the chip runs by the host's clock even where an emulator skips idle time.
        let end = clock_now_ns() + 1000 * MS;
        let mut bits = notification.wait_timed(0);
        while bits == Err(Status::WouldBlock) && clock_now_ns() < end {
            bits = notification.wait_timed(0);
        }
        equal(format_args!("the bits of interrupt {round}"), bits, Ok(2))?;
        line.acknowledge()?;
        // The chip lives by the host's clock: when that is late it may interrupt twice for one reason.
        without_reason += u64::from(chip.reason()? & 0x40 == 0);
    }
    that(without_reason * 10 <= count, format_args!("{without_reason} of {count} interrupts have no reason"))?;
    context.note(format_args!("{count} interrupts in {} us", (clock_now_ns() - start) / 1000));
    Ok(())
}

fn interrupts_on_each_cpu(_: &Context) -> Outcome {
    let _timer = IntervalTimer::start()?;
    for cpu in 0..cpus() {
        let notification = Notification::create()?;
        let line = timer_line(*notification, cpu)?;
        for _ in 0..5 {
            line.acknowledge()?;
            equal(format_args!("bits by CPU {cpu}"), notification.wait_timed(1000 * MS), Ok(0x100))?;
        }
    }
    Ok(())
}

fn badged_interrupt(_: &Context) -> Outcome {
    let _timer = IntervalTimer::start()?;
    let notification = Notification::create()?;
    let line = timer_line(*notification, 0)?;
    let badged = notification.copy(Rights::SEND, 0x30)?;
    line.bind(*badged, 0xff, 0)?;
    line.acknowledge()?;
    equal("bits", notification.wait_timed(1000 * MS), Ok(0x30))
}

fn unbinding(_: &Context) -> Outcome {
    let _timer = IntervalTimer::start()?;
    let notification = Notification::create()?;
    let line = timer_line(*notification, 0)?;
    line.acknowledge()?;
    line.unbind()?;
    let _ = notification.wait_timed(0);
    refused("an interrupt", notification.wait_timed(5 * MS), Status::TimedOut)?;
    refused("an acknowledgement", line.acknowledge(), Status::BadState)?;
    line.unbind()?;
    // Bound anew, also to another notification, it comes again.
    let other = Notification::create()?;
    line.bind(*other, 4, 0)?;
    line.acknowledge()?;
    equal("bits", other.wait_timed(1000 * MS), Ok(4))?;
    refused("an interrupt at the first", notification.wait_timed(0), Status::WouldBlock)
}

fn one_binding(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let edge = |number| System::OWN.interrupt(number, Trigger::Edge, Polarity::ActiveHigh);
    let (first, second) = (edge(3)?, edge(3)?);
    first.bind(*notification, 1, 0)?;
    refused("a second object", second.bind(*notification, 1, 0), Status::Busy)?;
    // The first may be bound again, to something else.
    first.bind(*notification, 2, cpus() - 1)?;
    second.unbind()?;
    refused("unbinding what is not bound does not free it", second.bind(*notification, 1, 0), Status::Busy)?;
    first.unbind()?;
    second.bind(*notification, 1, 0)?;
    second.close()?;
    first.bind(*notification, 1, 0)?;
    Ok(first.close()?)
}

fn line_comes_back(_: &Context) -> Outcome {
    for _ in 0..3 {
        // The child has the only handle: the line goes with it.
        let child = Child::new()?;
        let notification = Notification::create()?;
        let line = System::OWN.interrupt(3, Trigger::Edge, Polarity::ActiveHigh)?;
        line.bind(*notification, 1, 0)?;
        child.give(*line, Rights::MANAGE)?;
        line.close()?;
        let again = System::OWN.interrupt(3, Trigger::Edge, Polarity::ActiveHigh)?;
        refused("a binding while the child has the line", again.bind(*notification, 1, 0), Status::Busy)?;
        child.destroy()?;
        again.bind(*notification, 1, 0)?;
    }
    // A notification that goes takes no harm with it.
    let _timer = IntervalTimer::start()?;
    let notification = Notification::create()?;
    let line = timer_line(*notification, 0)?;
    line.acknowledge()?;
    notification.close()?;
    let other = Notification::create()?;
    refused("a wait elsewhere", other.wait_timed(5 * MS), Status::TimedOut)?;
    line.bind(*other, 1, 0)?;
    line.acknowledge()?;
    equal("bits", other.wait_timed(1000 * MS), Ok(1))?;
    Domain::OWN.info().map(drop).map_err(Into::into)
}

fn bad_bindings(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let line = System::OWN.interrupt(3, Trigger::Edge, Polarity::ActiveHigh)?;
    refused("no bits", line.bind(*notification, 0, 0), Status::BadArgument)?;
    for cpu in [cpus(), 64, u32::MAX] {
        refused(format_args!("CPU {cpu}"), line.bind(*notification, 1, cpu), Status::BadCpu)?;
    }
    refused("an acknowledgement before it is bound", line.acknowledge(), Status::BadState)?;
    let receive_only = notification.copy(Rights::RECEIVE, 0)?;
    refused("a notification without SEND", line.bind(*receive_only, 1, 0), Status::Denied)?;
    let weak = line.copy(Rights::COPY, 0)?;
    refused("a line without MANAGE", weak.bind(*notification, 1, 0), Status::Denied)?;
    refused("acknowledging without MANAGE", weak.acknowledge(), Status::Denied)?;
    refused("unbinding without MANAGE", weak.unbind(), Status::Denied)
}
