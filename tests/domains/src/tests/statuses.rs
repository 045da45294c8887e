//! Every call against every wrong argument: handles that name nothing, objects of other types, rights that are missing.
//!
//! Each call is described by its arguments. From that come the cases: every handle argument in turn is nothing, stale,
//! garbage, of each other type, and of the right type with all rights but one that is needed. What further statuses a
//! call has is shown by the topics' own tests.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_abi::{Call, Handle, ObjectType, PAGE_SIZE, Rights, Status};
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{
    Commit, Domain, DomainSettings, Gate, Interrupt, Memory, Notification, Object, Owned, Polarity, Ports, System,
    Thread, ThreadPlan, Trigger, Vm,
};

use super::Context;
use crate::check::{Outcome, equal, that};
use crate::light::{Child, PLAYGROUND, usual_settings};
use crate::raw;

super::tests! {
    "every handle argument of every call is checked" => handle_arguments,
    "a call with several wrong arguments changes nothing" => nothing_changes,
    "every call is described here" => complete,
    "each status has a call that gives it" => every_status,
}

/// An argument of a call.
#[derive(Clone, Copy)]
enum Argument {
    /// A handle of this type with these rights; the call succeeds or at least gets past it with it.
    Handle(ObjectType, Rights),
    /// A handle of any type with these rights; a gate is good.
    Any(Rights),
    /// As the first, but zero is allowed and means none.
    Optional(ObjectType, Rights),
    /// A value that is good.
    Value(u64),
}

use Argument::{Any as A, Handle as H, Optional as O, Value as V};

/// A call and its arguments, such that it is harmless when it succeeds.
struct Description {
    call: Call,
    arguments: &'static [Argument],
}

const NONE: Rights = Rights::empty();

const fn d(call: Call, arguments: &'static [Argument]) -> Description {
    Description { call, arguments }
}

/// All calls with handles among their arguments. Handles that any type will do for are in the topics' own tests.
#[rustfmt::skip]
const CALLS: &[Description] = &[
    d(Call::Call,                 &[H(ObjectType::Gate, Rights::SEND), V(1 << 16)]),
    d(Call::Receive,              &[H(ObjectType::Gate, Rights::RECEIVE), V(0)]),
    d(Call::ReplyReceive,         &[H(ObjectType::Gate, Rights::RECEIVE), V(1 << 16)]),
    d(Call::HandleCopy,           &[A(Rights::COPY), H(ObjectType::Domain, Rights::GRANT), V(0), V(0)]),
    d(Call::DomainCreate,         &[H(ObjectType::Domain, Rights::MANAGE), V(64 * 1024), V(1), V(1), O(ObjectType::Notification, Rights::SEND), V(1)]),
    d(Call::DomainDestroy,        &[H(ObjectType::Domain, Rights::DESTROY)]),
    d(Call::DomainInfo,           &[H(ObjectType::Domain, Rights::READ)]),
    d(Call::ThreadCreate,         &[H(ObjectType::Domain, Rights::MANAGE), V(1 << 32), V(0x20_0000), V(0), V(PLAYGROUND), V(0)]),
    d(Call::ThreadConfigure,      &[H(ObjectType::Thread, Rights::MANAGE), V(10_000_000), V(10_000_000), O(ObjectType::Gate, Rights::SEND), V(0), V(0)]),
    d(Call::ThreadStart,          &[H(ObjectType::Thread, Rights::MANAGE)]),
    d(Call::ThreadDestroy,        &[H(ObjectType::Thread, Rights::DESTROY)]),
    d(Call::ThreadInfo,           &[H(ObjectType::Thread, Rights::READ)]),
    d(Call::NotificationSignal,   &[H(ObjectType::Notification, Rights::SEND), V(1)]),
    d(Call::NotificationWait,     &[H(ObjectType::Notification, Rights::RECEIVE), V(0)]),
    d(Call::NotificationBind,     &[H(ObjectType::Notification, Rights::RECEIVE), H(ObjectType::Gate, Rights::RECEIVE)]),
    d(Call::TimerArm,             &[H(ObjectType::Notification, Rights::SEND), V(u64::MAX), V(1)]),
    d(Call::MemoryCommit,         &[H(ObjectType::Memory, Rights::WRITE), V(0), V(PAGE_SIZE)]),
    d(Call::MemoryMap,            &[H(ObjectType::Memory, Rights::READ), H(ObjectType::Domain, Rights::MANAGE), V(PLAYGROUND), V(0), V(PAGE_SIZE), V(2)]),
    d(Call::MemoryUnmap,          &[H(ObjectType::Domain, Rights::MANAGE), V(PLAYGROUND)]),
    d(Call::MemoryInfo,           &[H(ObjectType::Memory, Rights::READ)]),
    d(Call::MemoryAddress,        &[H(ObjectType::System, Rights::DMA), H(ObjectType::Memory, Rights::WRITE), V(0)]),
    d(Call::DevicePorts,          &[H(ObjectType::System, Rights::DEVICES), V(0x80), V(1)]),
    d(Call::DeviceMemory,         &[H(ObjectType::System, Rights::DEVICES), V(0xb_8000), V(PAGE_SIZE)]),
    d(Call::DeviceInterrupt,      &[H(ObjectType::System, Rights::DEVICES), V(3), V(0)]),
    d(Call::PortRead,             &[H(ObjectType::Ports, Rights::READ), V(0x80), V(1)]),
    d(Call::PortWrite,            &[H(ObjectType::Ports, Rights::WRITE), V(0x80), V(1), V(0)]),
    d(Call::InterruptBind,        &[H(ObjectType::Interrupt, Rights::MANAGE), O(ObjectType::Notification, Rights::SEND), V(1), V(0)]),
    d(Call::InterruptAcknowledge, &[H(ObjectType::Interrupt, Rights::MANAGE)]),
    d(Call::DeviceMessage,        &[H(ObjectType::System, Rights::DMA)]),
    d(Call::SystemInfo,           &[H(ObjectType::System, Rights::READ), V(1), V(0)]),
    d(Call::LogWrite,             &[H(ObjectType::System, Rights::LOG), V(0)]),
    d(Call::VmDoorbell,           &[H(ObjectType::Vm, Rights::MANAGE), V(1 << 48 | 0x80), V(0), O(ObjectType::Notification, Rights::SEND), V(1)]),
    d(Call::VmInterrupt,          &[H(ObjectType::Vm, Rights::SEND), V(0), V(0)]),
    d(Call::VcpuCreate,           &[H(ObjectType::Vm, Rights::MANAGE), V(64), V(PLAYGROUND)]),
    d(Call::VcpuRun,              &[H(ObjectType::Vcpu, Rights::MANAGE), V(1 << 63)]),
    d(Call::VcpuKick,             &[H(ObjectType::Vcpu, Rights::SEND)]),
    d(Call::VcpuSync,             &[H(ObjectType::Vcpu, Rights::MANAGE), V(0)]),
    d(Call::VcpuCpuid,            &[H(ObjectType::Vcpu, Rights::MANAGE), V(0), V(0), V(0), V(0)]),
    d(Call::VcpuMsr,              &[H(ObjectType::Vcpu, Rights::MANAGE), V(0x1b), V(0), V(0)]),
    d(Call::VcpuApic,             &[H(ObjectType::Vcpu, Rights::MANAGE), V(0x20), V(0), V(0)]),
    d(Call::NotificationRoute,    &[H(ObjectType::Notification, Rights::RECEIVE), O(ObjectType::Vm, Rights::SEND), V(0), V(0)]),
    d(Call::VcpuRecord,           &[H(ObjectType::Vcpu, Rights::MANAGE), O(ObjectType::Memory, Rights::READ.union(Rights::WRITE)), V(8)]),
    d(Call::VmDirtyLog,           &[H(ObjectType::Vm, Rights::MANAGE), V(2)]),
    d(Call::VcpuTscFrequency,     &[H(ObjectType::Vcpu, Rights::MANAGE), V(0)]),
    d(Call::VmDirtyPages,         &[H(ObjectType::Vm, Rights::MANAGE), V(0), V(0)]),
];

/// Calls whose handle may be of any type and needs no right.
const ANY_TYPE: [Call; 3] = [Call::HandleClose, Call::HandleRevoke, Call::HandleInfo];

/// Calls without handles.
const WITHOUT: [Call; 10] = [
    Call::Nop,
    Call::Reply,
    Call::ThreadExit,
    Call::ThreadYield,
    Call::ThreadMove,
    Call::NotificationCreate,
    Call::GateCreate,
    Call::MemoryCreate,
    Call::ClockNow,
    Call::VmCreate,
];

const TYPES: [ObjectType; 10] = [
    ObjectType::Domain,
    ObjectType::Thread,
    ObjectType::Gate,
    ObjectType::Notification,
    ObjectType::Memory,
    ObjectType::Ports,
    ObjectType::Interrupt,
    ObjectType::System,
    ObjectType::Vm,
    ObjectType::Vcpu,
];

/// An object of each type, with all rights.
struct Objects {
    child: Child,
    thread: Owned<Thread>,
    gate: Owned<Gate>,
    notification: Owned<Notification>,
    memory: Owned<Memory>,
    ports: Owned<Ports>,
    interrupt: Owned<Interrupt>,
    vm: Owned<Vm>,
    vcpu: VirtualCpu,
}

impl Objects {
    fn new() -> Outcome<Self> {
        let child = Child::with(&DomainSettings { quota: 2 << 20, ..usual_settings() })?;
        let plan = ThreadPlan {
            cpu: 0,
            priority: 1,
            entry: 0x20_0000,
            stack: 0,
            message_buffer: PLAYGROUND + (1 << 30),
            argument: 0,
        };
        // A stopped thread, so that calls that would start one find one that only lacks a right. It is never run:
        // each call below that would succeed is left out.
        let thread = crate::light::stopped_thread(child.domain(), &plan)?;
        let vm = Vm::create()?;
        let vcpu = VirtualCpu::create(*vm, 0)?;
        Ok(Self {
            child,
            thread,
            gate: Gate::create()?,
            notification: Notification::create()?,
            memory: Memory::create(PAGE_SIZE, Commit::Explicit)?,
            ports: System::OWN.ports(0x80, 1)?,
            interrupt: System::OWN.interrupt(3, Trigger::Edge, Polarity::ActiveHigh)?,
            vm,
            vcpu,
        })
    }

    fn of(&self, object: ObjectType) -> Handle {
        match object {
            ObjectType::Domain => self.child.domain().handle(),
            ObjectType::Thread => self.thread.handle(),
            ObjectType::Gate => self.gate.handle(),
            ObjectType::Notification => self.notification.handle(),
            ObjectType::Memory => self.memory.handle(),
            ObjectType::Ports => self.ports.handle(),
            ObjectType::Interrupt => self.interrupt.handle(),
            ObjectType::System => System::OWN.handle(),
            ObjectType::Vm => self.vm.handle(),
            ObjectType::Vcpu => self.vcpu.handle(),
        }
    }

    /// The words of a call with good arguments.
    fn words(&self, description: &Description) -> Vec<u64> {
        let word = |argument: &Argument| match argument {
            H(object, _) | O(object, _) => self.of(*object).0.into(),
            A(_) => self.of(ObjectType::Gate).0.into(),
            V(value) => *value,
        };
        description.arguments.iter().map(word).collect()
    }

    /// Another handle to an object of a type, with some rights.
    fn copy(&self, object: ObjectType, rights: Rights) -> Outcome<u64> {
        let own = u64::from(Domain::OWN.handle().0);
        Ok(raw::call(Call::HandleCopy, &[self.of(object).0.into(), own, rights.bits().into()])?[0])
    }
}

fn status_of(call: Call, words: &[u64]) -> Status {
    raw::call(call, words).err().unwrap_or(Status::Ok)
}

fn check(call: Call, words: &[u64], position: usize, what: &str, wanted: Status) -> Outcome {
    let case: String = format!("{call:?} with {what} as argument {position}");
    equal(case, status_of(call, words), wanted)
}

fn handle_arguments(_: &Context) -> Outcome {
    let objects = Objects::new()?;
    let mut cases = 0_u64;
    for description in CALLS {
        let good = objects.words(description);
        for (position, argument) in description.arguments.iter().enumerate() {
            let (object, rights, others) = match argument {
                H(object, rights) | O(object, rights) => (*object, *rights, &TYPES[..]),
                A(rights) => (ObjectType::Gate, *rights, &[][..]),
                V(_) => continue,
            };
            let mut words = good.clone();
            let mut with = |word: u64, what: &str, wanted: Status| {
                if let Some(place) = words.get_mut(position) {
                    *place = word;
                }
                cases += 1;
                check(description.call, &words, position, what, wanted)
            };
            if !matches!(argument, O(..)) {
                with(0, "no handle", Status::BadHandle)?;
            }
            let stale = Notification::create()?.keep();
            stale.close()?;
            with(stale.handle().0.into(), "a stale handle", Status::BadHandle)?;
            for garbage in [0xffff_ffff, 1 << 32 | u64::from(objects.of(object).0), u64::MAX] {
                with(garbage, "garbage", Status::BadHandle)?;
            }
            // Memory is mapped in domains and in virtual machines.
            let is_mapping = matches!(description.call, Call::MemoryMap | Call::MemoryUnmap);
            let fits =
                |other| other == object || (is_mapping && (object, other) == (ObjectType::Domain, ObjectType::Vm));
            for other in others.iter().copied().filter(|other| !fits(*other)) {
                with(objects.of(other).0.into(), &format!("a {other:?}"), Status::BadType)?;
                // The type is looked at before the rights.
                let weak = objects.copy(other, NONE)?;
                with(weak, &format!("a {other:?} without rights"), Status::BadType)?;
                raw::call_until_done(Call::HandleClose, &[weak])?;
            }
            for missing in rights.iter() {
                let weak = objects.copy(object, Rights::all() - missing)?;
                with(weak, &format!("a handle without {missing:?}"), Status::Denied)?;
                raw::call_until_done(Call::HandleClose, &[weak])?;
            }
        }
    }
    for call in ANY_TYPE {
        let stale = Notification::create()?.keep();
        stale.close()?;
        for word in [0, stale.handle().0.into(), 0xffff_ffff, u64::MAX] {
            check(call, &[word], 0, "a bad handle", Status::BadHandle)?;
        }
        // All types will do.
        for object in TYPES {
            let copy = objects.copy(object, NONE)?;
            equal(format!("{call:?} of a {object:?}"), raw::call_until_done(call, &[copy]).map(drop), Ok(()))?;
            if call != Call::HandleClose {
                raw::call_until_done(Call::HandleClose, &[copy])?;
            }
        }
    }
    that(cases > 500, format_args!("{cases} cases"))
}

fn nothing_changes(_: &Context) -> Outcome {
    let objects = Objects::new()?;
    let before = (Domain::OWN.info()?, objects.child.domain().info()?, objects.memory.info()?, objects.thread.info()?);
    for description in CALLS {
        let mut words = objects.words(description);
        // The first handle lacks every right: whatever else is asked for, nothing is done.
        let object = match description.arguments.first() {
            Some(H(object, _)) => *object,
            _ => ObjectType::Gate,
        };
        let weak = objects.copy(object, NONE)?;
        if let Some(first) = words.first_mut() {
            *first = weak;
        }
        equal(format!("{:?}", description.call), status_of(description.call, &words), Status::Denied)?;
        raw::call_until_done(Call::HandleClose, &[weak])?;
    }
    let after = (Domain::OWN.info()?, objects.child.domain().info()?, objects.memory.info()?, objects.thread.info()?);
    equal("this domain, the child, the memory, the thread", after, before)
}

fn complete(_: &Context) -> Outcome {
    for call in Call::ALL {
        let times = CALLS.iter().filter(|description| description.call == call).count()
            + ANY_TYPE.iter().chain(&WITHOUT).filter(|other| **other == call).count();
        equal(format!("descriptions of {call:?}"), times, 1)?;
    }
    Ok(())
}

/// One way to each status that can be had without another thread, so that none is forgotten; the others' tests are named.
fn every_status(_: &Context) -> Outcome {
    let objects = Objects::new()?;
    let word = |object| u64::from(objects.of(object).0);
    let (gate, memory) = (word(ObjectType::Gate), word(ObjectType::Memory));
    let (notification, domain, own) =
        (word(ObjectType::Notification), word(ObjectType::Domain), u64::from(Domain::OWN.handle().0));
    for status in Status::ALL {
        let found = match status {
            Status::Ok => status_of(Call::Nop, &[]),
            Status::BadCall => Status::from_raw(raw::number(7, [0; 6]).0).unwrap_or(Status::Ok),
            Status::BadHandle => status_of(Call::HandleInfo, &[0]),
            Status::BadType => status_of(Call::Receive, &[memory, 0]),
            Status::Denied => {
                let weak = objects.copy(ObjectType::Gate, NONE)?;
                let found = status_of(Call::Receive, &[weak, 0]);
                raw::call_until_done(Call::HandleClose, &[weak])?;
                found
            }
            Status::BadArgument => status_of(Call::MemoryCreate, &[1, 0]),
            Status::QuotaExceeded => status_of(Call::DomainCreate, &[domain, 1 << 40, 1, 1]),
            Status::TimedOut => status_of(Call::NotificationWait, &[notification, 1]),
            Status::WouldBlock => status_of(Call::Receive, &[gate, 0]),
            Status::Again => {
                let large = Memory::create(4 << 20, Commit::Explicit)?;
                status_of(Call::MemoryCommit, &[large.handle().0.into(), 0, 4 << 20])
            }
            Status::Busy => {
                let (bound, to) = (Notification::create()?, Gate::create()?);
                to.bind(*bound)?;
                status_of(Call::NotificationBind, &[bound.handle().0.into(), gate])
            }
            Status::Overlap => status_of(Call::MemoryMap, &[memory, own, 0x20_0000, 0, PAGE_SIZE, 2]),
            Status::NotMapped => status_of(Call::MemoryUnmap, &[domain, PLAYGROUND]),
            Status::BadCpu => status_of(Call::DomainCreate, &[domain, 4096, 1, 0]),
            Status::NoCaller => status_of(Call::Reply, &[]),
            Status::BadState => status_of(Call::InterruptAcknowledge, &[word(ObjectType::Interrupt)]),
            // `handles/a handle table holds …`, `ipc_ends/a server that ends …`, `ipc_handles/a receiver that accepts …`;
            // the last only when the machine has less memory than its accounts, see `exhaustion`.
            Status::NoHandles | Status::Aborted | Status::Refused | Status::OutOfMemory | Status::NotSupported => {
                status
            }
        };
        equal(format!("the way to {status:?}"), found, status)?;
    }
    Ok(())
}
