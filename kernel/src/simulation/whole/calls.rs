//! The calls that random threads make, most of them with handles and numbers that mean something.

use dragonfly_abi::{Call, FOREVER, Handle, HandleTransfer, MIN_BUDGET_NS, MessageTag, ObjectType, PAGE_SIZE, Rights};

use super::run::Run;
use super::{CPUS, MAPPINGS};
use crate::arch::Arch;
use crate::simulation::Ref;
use crate::simulation::world::{Buffer, DomainRef, ThreadRef};

/// The calls, as often as they are to be made.
pub const CALLS: &[Call] = &[
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Receive,
    Call::Receive,
    Call::Receive,
    Call::Receive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::Reply,
    Call::Reply,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleClose,
    Call::HandleClose,
    Call::HandleRevoke,
    Call::HandleInfo,
    Call::DomainCreate,
    Call::DomainCreate,
    Call::DomainDestroy,
    Call::DomainInfo,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadConfigure,
    Call::ThreadConfigure,
    Call::ThreadStart,
    Call::ThreadStart,
    Call::ThreadStart,
    Call::ThreadDestroy,
    Call::ThreadExit,
    Call::ThreadYield,
    Call::ThreadYield,
    Call::ThreadInfo,
    Call::ThreadMove,
    Call::ThreadMove,
    Call::ThreadMove,
    Call::NotificationCreate,
    Call::NotificationSignal,
    Call::NotificationSignal,
    Call::NotificationSignal,
    Call::NotificationWait,
    Call::NotificationWait,
    Call::NotificationWait,
    Call::NotificationBind,
    Call::TimerArm,
    Call::TimerArm,
    Call::GateCreate,
    Call::MemoryCreate,
    Call::MemoryCommit,
    Call::MemoryCommit,
    Call::MemoryMap,
    Call::MemoryMap,
    Call::MemoryMap,
    Call::MemoryUnmap,
    Call::MemoryInfo,
    Call::MemoryAddress,
    Call::DevicePorts,
    Call::DeviceMemory,
    Call::DeviceInterrupt,
    Call::DeviceMessage,
    Call::PortRead,
    Call::PortWrite,
    Call::InterruptBind,
    Call::InterruptBind,
    Call::InterruptAcknowledge,
    Call::SystemInfo,
    Call::LogWrite,
    Call::ClockNow,
    Call::Nop,
];

impl Run {
    /// The words of a call.
    pub fn arguments(&mut self, thread: &ThreadRef, call: Call, words: [u64; 6]) -> [u64; 6] {
        let fake = self.world.fake;
        let pick = Pick { domain: &thread.domain };
        let buffer = Buffer::of(fake, thread);
        let [a, b, c, d, e, _] = words;
        let timeout = [0, 3_000, 60_000, 2_000_000, FOREVER, FOREVER][b as usize % 6];
        self.messages += 1;
        let serving = self.lives[&Ref::as_ptr(thread)].1.serving;
        let message = |gate: u64| {
            let bytes = if c % 4 == 0 { (d as usize * 7) % 4000 } else { 0 };
            let handles = if c % 5 == 0 { d as usize % 4 } else { 0 };
            let tag = MessageTag::new(d as u32, bytes, handles);
            buffer.set_timeout(timeout);
            buffer.accept(if e % 8 == 0 { 0 } else { 8 });
            for index in 0..handles {
                let rights = if (d >> index) & 1 == 0 { u32::MAX } else { Rights::all().bits() };
                let handle = Handle(pick.any(d.rotate_left(index as u32)) as u32);
                buffer.set_handle(index, HandleTransfer { handle, rights });
            }
            let tag = if b % 3 == 0 { tag.timed() } else { tag };
            [gate, tag.0, self.messages, serving, words[4], words[5]]
        };
        let gate = |word| pick.of(word, ObjectType::Gate);
        let notification = |word| pick.of(word, ObjectType::Notification);
        let domain = |word| pick.of(word, ObjectType::Domain);
        let a_thread = |word| pick.of(word, ObjectType::Thread);
        let memory = |word| pick.of(word, ObjectType::Memory);
        let interrupt = |word| pick.of(word, ObjectType::Interrupt);
        let system = |word| pick.of(word, ObjectType::System);
        let pages = |word: u64| (word % 24) * PAGE_SIZE;
        let place = |word: u64| MAPPINGS + (word % 64) * 4 * PAGE_SIZE;
        match call {
            Call::Call | Call::ReplyReceive => message(gate(a)),
            Call::Reply => message(0),
            Call::Receive => {
                buffer.accept(if e % 8 == 0 { 0 } else { 8 });
                [gate(a), timeout, 0, 0, 0, 0]
            }
            Call::HandleCopy => {
                let rights = if c % 4 == 0 { d & 0xfff } else { u64::from(Rights::all().bits()) };
                [pick.any(a), domain(b), rights, if d % 5 == 0 { e } else { 0 }, 0, 0]
            }
            Call::HandleClose | Call::HandleRevoke | Call::HandleInfo => [pick.any(a), 0, 0, 0, 0, 0],
            Call::DomainCreate => {
                let quota = [1 << 15, 1 << 17, 1 << 19, 1 << 21][b as usize % 4];
                let death = if d % 2 == 0 { notification(d) } else { 0 };
                [domain(a), quota, c % 66, if e % 8 == 0 { e } else { (1 << CPUS) - 1 }, death, d]
            }
            Call::DomainDestroy | Call::DomainInfo => [domain(a), 0, 0, 0, 0, 0],
            Call::ThreadCreate => {
                let place = (b % 4) | ((c % 66) << 32);
                [domain(a), place, 0x1000 * (d % 16), 0x2000, 0x5000_0000 + (e % 32) * PAGE_SIZE, d]
            }
            Call::ThreadConfigure => {
                let budget = MIN_BUDGET_NS * (b % 10);
                let period = budget + MIN_BUDGET_NS * (c % 3) * (c % 50);
                [a_thread(a), budget, period, if d % 4 == 0 { 0 } else { gate(d) }, e, d % 2]
            }
            Call::ThreadStart | Call::ThreadDestroy | Call::ThreadInfo => [a_thread(a), 0, 0, 0, 0, 0],
            Call::ThreadMove => [a % (CPUS as u64 + 1), 0, 0, 0, 0, 0],
            Call::NotificationSignal => [notification(a), 1 << (b % 64), 0, 0, 0, 0],
            Call::NotificationWait => [notification(a), timeout, 0, 0, 0, 0],
            Call::NotificationBind => [notification(a), gate(b), 0, 0, 0, 0],
            Call::TimerArm => {
                let now = fake.now() - self.world.kernel().started();
                let deadline = [now + (c << (d % 8)), FOREVER, 0, now + 1][b as usize % 4];
                [notification(a), deadline, d, 0, 0, 0]
            }
            Call::MemoryCreate => {
                let size = if a % 4 == 0 { 700 * PAGE_SIZE } else { pages(a) };
                [size, b % 2, 0, 0, 0, 0]
            }
            Call::MemoryCommit => {
                let (offset, size) = if b % 4 == 0 { (0, 512 * PAGE_SIZE) } else { (pages(b), pages(c)) };
                [memory(a), offset, size, 0, 0, 0]
            }
            Call::MemoryMap => {
                let rights =
                    [Rights::READ, Rights::READ | Rights::WRITE, Rights::READ | Rights::EXECUTE][e as usize % 3];
                let rights = if e % 16 == 0 { e } else { u64::from(rights.bits()) };
                let (at, offset, size) =
                    if c % 4 == 0 { (MAPPINGS, 0, 512 * PAGE_SIZE) } else { (place(c), pages(d), pages(d / 24)) };
                [memory(a), domain(b), at, offset, size, rights]
            }
            Call::MemoryUnmap => {
                let mappings = thread.domain.space.mappings();
                let range = mappings.get(b as usize % mappings.len().max(1)).and_then(|mapping| mapping.range);
                let at = if c % 4 == 0 { place(c) } else { range.map_or(0, |range| range.start.as_u64()) };
                [domain(a), at, 0, 0, 0, 0]
            }
            Call::MemoryInfo => [memory(a), 0, 0, 0, 0, 0],
            Call::MemoryAddress => [system(a), memory(b), pages(c), 0, 0, 0],
            Call::DevicePorts => [system(a), b, c, 0, 0, 0],
            Call::DeviceMemory => [system(a), (1 << 32) + pages(b), pages(c), 0, 0, 0],
            Call::DeviceInterrupt => [system(a), b % 26, c % 5, 0, 0, 0],
            Call::DeviceMessage => [system(a), 0, 0, 0, 0, 0],
            Call::PortRead | Call::PortWrite => [pick.of(a, ObjectType::Ports), b, c % 5, d, 0, 0],
            Call::InterruptBind => [interrupt(a), if b % 4 == 0 { 0 } else { notification(b) }, c, d % 4, 0, 0],
            Call::InterruptAcknowledge => [interrupt(a), 0, 0, 0, 0, 0],
            Call::SystemInfo => [system(a), b % 10, c, 0, 0, 0],
            Call::LogWrite => [system(a), b % 300, 0, 0, 0, 0],
            Call::Nop
            | Call::ThreadExit
            | Call::ThreadYield
            | Call::NotificationCreate
            | Call::GateCreate
            | Call::ClockNow
            | Call::VmCreate
            | Call::VmDoorbell
            | Call::VmInterrupt
            | Call::VcpuCreate
            | Call::VcpuRun
            | Call::VcpuKick
            | Call::VcpuSync
            | Call::VcpuCpuid
            | Call::VcpuMsr
            | Call::VcpuApic
            | Call::NotificationRoute
            | Call::VcpuRecord
            | Call::VmDirtyLog
            | Call::VmDirtyPages
            | Call::VcpuTscFrequency => words,
        }
    }
}

/// Picks handles of a domain.
struct Pick<'a> {
    domain: &'a DomainRef,
}

impl Pick<'_> {
    /// Any handle, now and then none.
    fn any(&self, word: u64) -> u64 {
        let handles = self.domain.table.lock().handles();
        match handles.get(word as usize % (handles.len() + 1)) {
            Some((handle, _)) => u64::from(handle.0),
            None => word,
        }
    }

    /// A handle of a type, now and then another.
    fn of(&self, word: u64, wanted: ObjectType) -> u64 {
        if word % 32 == 31 {
            return self.any(word);
        }
        let mut handles = self.domain.table.lock().handles();
        handles.retain(|(_, capability)| capability.object.object_type() == wanted);
        handles.get(word as usize % handles.len().max(1)).map_or(0, |(handle, _)| u64::from(handle.0))
    }
}
