//! Starts the domains and deals with what becomes of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, iter};

use dragonfly_abi::{FaultKind, FaultReply, MessageKind, Rights, Status};
use dragonfly_bundle::{Budget, Bundle, DomainPlan, Grants, KEPT_NAME};
use dragonfly_rt::loader::{Child, Grant, Launch, Program, launch};
use dragonfly_rt::supervisor::{CHECK, DONE, FINISH, GATE_NAME, HANGS, REFUSED, RESTART, SHUT_DOWN};
use dragonfly_rt::sys::{
    Commit, Domain, DomainSettings, Gate, Memory, Message, Notification, Object, Owned, Received, System,
    ThreadSettings, reply,
};
use dragonfly_rt::{bundle, cpus, message, start_info};
use log::{debug, error, info, warn};

use crate::grants::{Devices, system_rights};
use crate::ledger::Ledger;
use crate::pci::{self, Assigned};
use crate::problem::{Problem, StartError};
use crate::report::{Fault, Registers};

/// Budget and period of a domain for which `bundle.toml` gives none: all of its CPU, in turn with others.
const WHOLE_CPU: Budget = Budget { budget_ns: 10_000_000, period_ns: 10_000_000 };

/// Exit code when the supervisor itself cannot go on.
const FAILED: u8 = 1;

/// How long a domain has to answer that is said to hang; nobody else is answered meanwhile.
const CHECK_NS: u64 = 2_000_000_000;

/// One byte more than the name of a domain has, so that a longer one is none.
const MAX_NAME: usize = 33;

/// A gate that connects domains.
struct Connection {
    name: String,
    /// Gone once its provider is.
    gate: Option<Owned<Gate>>,
}

/// A domain that was started. Dropping it takes all of it back, devices last: but those that use memory by themselves
/// are stopped before.
struct Running {
    child: Child,
    devices: Devices,
}

/// The supervisor's state.
pub(crate) struct Supervisor {
    bundle: Bundle<'static>,
    /// Receives requests, faults, and the bits of `deaths`. A domain's badge is its index in the plan plus 1.
    gate: Owned<Gate>,
    /// Bit `n`: the last thread of the domain with index `n` has ended.
    deaths: Owned<Notification>,
    connections: Vec<Connection>,
    /// The PCI functions of each domain.
    functions: Vec<Vec<Assigned>>,
    running: Vec<Option<Running>>,
    /// The memory of each domain that outlives it.
    kept: Vec<Option<Owned<Memory>>>,
    ledger: Ledger,
}

impl Supervisor {
    /// Checks the bundle and starts its domains.
    pub(crate) fn start() -> Result<Self, StartError> {
        let bundle = Bundle::open(bundle().ok_or(StartError::NoBundle)?)?;
        let gate = Gate::create()?;
        let deaths = Notification::create()?;
        gate.bind(*deaths)?;
        let connections = bundle
            .plan()
            .gates()
            .map(|name| Gate::create().map(|gate| Connection { name: name.into(), gate: Some(gate) }));
        let connections = connections.collect::<Result<_, _>>()?;
        let ledger = Ledger::new(bundle.plan());
        let functions = pci::assign(&bundle.plan().domains);
        let mut supervisor =
            Self { bundle, gate, deaths, connections, functions, running: Vec::new(), kept: Vec::new(), ledger };
        for (index, plan) in supervisor.bundle.plan().domains.iter().enumerate() {
            let fails = |problem| StartError::Domain { line: plan.line, name: plan.name.clone(), problem };
            supervisor.kept.push(memory_to_keep(plan.keep).map_err(fails)?);
            let started = supervisor.start_domain(index, plan).map_err(fails)?;
            supervisor.running.push(Some(started));
            info!("started {}", plan.name);
        }
        Ok(supervisor)
    }

    fn start_domain(&self, index: usize, plan: &DomainPlan) -> Result<Running, Problem> {
        let cpus = cpus();
        let machine = if cpus < u64::BITS { (1 << cpus) - 1 } else { u64::MAX };
        if plan.cpu >= cpus {
            return Err(Problem::NoCpu { cpu: plan.cpu, cpus });
        }
        let own = Domain::OWN.info();
        if let Some(left) = own.ok().map(|own| own.quota.saturating_sub(own.used)).filter(|left| *left < plan.memory) {
            return Err(Problem::NoMemory { memory_kib: plan.memory >> 10, left_kib: left >> 10 });
        }
        let program = Program::parse(self.bundle.file(&plan.program).unwrap_or_default())?;
        let devices = Devices::make(plan, self.functions.get(index).map_or(&[], Vec::as_slice))?;
        let badge = index as u64 + 1;
        let kept = self.kept.get(index).and_then(Option::as_ref).map(|memory| {
            let rights = Rights::READ | Rights::WRITE;
            Grant { name: KEPT_NAME, handle: memory.handle(), rights, badge: 0 }
        });
        let grants: Vec<Grant<'_>> = self.gate_grants(plan, badge).chain(devices.grants(plan)).chain(kept).collect();
        let time = plan.budget.unwrap_or(WHOLE_CPU);
        // The last of several values rules: the command line may change what the bundle says, but no name.
        let command_line = if plan.command_line { dragonfly_rt::arguments() } else { "" };
        let arguments = format!("{} {command_line} name={}", plan.arguments, plan.name);
        let child = launch(&Launch {
            program: &program,
            settings: DomainSettings {
                quota: plan.memory,
                max_priority: plan.max_priority,
                cpus: plan.cpus & machine,
                death: Some((*self.deaths, 1 << index)),
            },
            cpu: plan.cpu,
            priority: plan.priority,
            thread: ThreadSettings {
                budget_ns: time.budget_ns,
                period_ns: time.period_ns,
                fault_gate: Some((*self.gate, badge)),
                report_exhaustion: false,
            },
            system: system_rights(plan.grants),
            bundle: plan.grants.contains(Grants::BUNDLE).then(|| start_info().map_or(0, |info| info.bundle_size)),
            grants: &grants,
            arguments: arguments.trim_ascii_start(),
        })?;
        Ok(Running { child, devices })
    }

    /// The supervisor's gate, and those that the domain provides and uses.
    fn gate_grants<'a>(&'a self, plan: &'a DomainPlan, badge: u64) -> impl Iterator<Item = Grant<'a>> {
        let connections = self.connections.iter().filter_map(move |connection| {
            let gate = connection.gate.as_ref()?;
            let (rights, badge) = if plan.provide.contains(&connection.name) {
                (Rights::RECEIVE, 0)
            } else if plan.use_gates.contains(&connection.name) {
                (Rights::SEND, badge)
            } else {
                return None;
            };
            Some(Grant { name: &connection.name, handle: gate.handle(), rights, badge })
        });
        iter::once(Grant { name: GATE_NAME, handle: self.gate.handle(), rights: Rights::SEND, badge })
            .chain(connections)
    }

    /// Receives requests, faults and deaths until the system has finished; gives its exit code.
    pub(crate) fn serve(&mut self) -> u8 {
        loop {
            if let Some(exit_code) = self.ledger.exit_code() {
                return exit_code;
            }
            let received = match self.gate.receive() {
                Ok(received) => received,
                Err(status) => {
                    error!("the supervisor cannot receive: {status}");
                    return FAILED;
                }
            };
            match received.message.tag.kind() {
                MessageKind::Notification => self.threads_ended(received.message.words[0]),
                MessageKind::Fault => self.fault(&received),
                MessageKind::Call => {
                    if let Some(exit_code) = self.request(&received) {
                        return exit_code;
                    }
                }
            }
        }
    }

    /// Domains whose last thread has ended: those that are destroyed already are passed over.
    fn threads_ended(&mut self, bits: u64) {
        for index in (0..self.running.len()).filter(|index| bits >> index & 1 != 0) {
            let Some(Some(running)) = self.running.get(index) else { continue };
            // The bit may be that of an earlier start of the same domain.
            if running.child.domain().info().is_ok_and(|info| info.threads > 0) {
                continue;
            }
            if let Some(exit_code) = self.ledger.finished(index) {
                info!("{} has finished with exit code {exit_code}", self.name(index));
            }
            self.take_back(index);
            self.close_connections(index);
        }
    }

    fn fault(&mut self, received: &Received) {
        // First of all: what comes next may use the message buffer.
        let registers = Registers(message::buffer().thread_state());
        let fault = Fault { label: received.message.tag.label(), words: received.message.words };
        let Some(index) = self.index_of(received.badge) else {
            warn!("a thread of no domain of this supervisor: {fault}");
            return answer(FaultReply::End as u32);
        };
        if fault.kind() == Some(FaultKind::BudgetExhausted) {
            debug!("{}: {fault}", self.name(index));
            return answer(FaultReply::Resume as u32);
        }
        error!("{} has died: {fault}\n{registers}", self.name(index));
        answer(FaultReply::End as u32);
        self.take_back(index);
        match self.ledger.died(index) {
            Some(left) => self.start_again(index, format_args!("{left} restarts left")),
            None => self.close_connections(index),
        }
    }

    fn start_again(&mut self, index: usize, note: fmt::Arguments<'_>) {
        let Some(plan) = self.bundle.plan().domains.get(index) else { return };
        match self.start_domain(index, plan) {
            Ok(started) => {
                info!("started {} again, {note}", plan.name);
                if let Some(place) = self.running.get_mut(index) {
                    *place = Some(started);
                }
            }
            Err(problem) => {
                error!("{} cannot be started again: it {problem}", plan.name);
                self.ledger.gave_up(index);
                self.close_connections(index);
            }
        }
    }

    /// Carries out a domain's request; gives the exit code if the machine is to stop.
    fn request(&mut self, received: &Received) -> Option<u8> {
        // First of all: what comes next may use the message buffer.
        let mut name = [0; MAX_NAME];
        let size = received.message.read(&mut name);
        let [code, ..] = received.message.words;
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        let Some(index) = self.index_of(received.badge) else {
            answer(REFUSED);
            return None;
        };
        match received.message.tag.label() {
            FINISH => {
                self.ledger.announce(index, code);
                answer(DONE);
                None
            }
            RESTART => {
                let target = self.may_restart(index, name.get(..size).unwrap_or_default());
                answer(if target.is_some_and(|target| self.replace(target, index)) { DONE } else { REFUSED });
                None
            }
            HANGS => {
                let target = self.hanging(index, name.get(..size).unwrap_or_default());
                answer(if target.is_some_and(|target| self.replace(target, index)) { DONE } else { REFUSED });
                None
            }
            SHUT_DOWN if self.may_shut_down(index) => {
                info!("{} stops the machine with exit code {code}", self.name(index));
                Some(code)
            }
            label => {
                warn!("{} made request {label}, which it may not", self.name(index));
                answer(REFUSED);
                None
            }
        }
    }

    /// Destroys a domain and everything that it had.
    fn take_back(&mut self, index: usize) {
        let Some(running) = self.running.get_mut(index).and_then(Option::take) else { return };
        let before = System::OWN.free_pages();
        running.devices.stop();
        if let Err(status) = running.child.destroy() {
            error!("{} cannot be destroyed: {status}", self.name(index));
        }
        if let (Ok((before, _)), Ok((after, _))) = (before, System::OWN.free_pages()) {
            info!("{} KiB of {} are free again", after.saturating_sub(before) * 4, self.name(index));
        }
    }

    /// Closes the gates that a domain provided, so that nobody waits for it for ever.
    fn close_connections(&mut self, index: usize) {
        let Some(plan) = self.bundle.plan().domains.get(index) else { return };
        for connection in self.connections.iter_mut().filter(|connection| plan.provide.contains(&connection.name)) {
            if let Some(gate) = connection.gate.take() {
                // A handle that others' handles were derived from: theirs go first.
                let _ = gate.revoke();
            }
        }
    }

    /// Ends a domain and starts it anew, as another has asked; false if it cannot be started.
    fn replace(&mut self, target: usize, asker: usize) -> bool {
        let asker = String::from(self.name(asker));
        self.take_back(target);
        self.ledger.replaced(target);
        self.start_again(target, format_args!("as {asker} asked"));
        self.ledger.is_running(target)
    }

    /// The running domain of this name, if the domain may have it started anew.
    fn may_restart(&self, index: usize, name: &[u8]) -> Option<usize> {
        let domains = &self.bundle.plan().domains;
        let name = domains.get(index)?.restart.iter().find(|allowed| allowed.as_bytes() == name)?;
        let target = domains.iter().position(|domain| domain.name == *name)?;
        self.ledger.is_running(target).then_some(target)
    }

    /// The running domain that provides the gate of this name, if the domain uses that and it does not answer.
    fn hanging(&self, index: usize, name: &[u8]) -> Option<usize> {
        let domains = &self.bundle.plan().domains;
        let name = domains.get(index)?.use_gates.iter().find(|used| used.as_bytes() == name)?;
        let target = domains.iter().position(|domain| domain.provide.contains(name))?;
        let connection = self.connections.iter().find(|connection| connection.name == *name)?;
        let checked = connection.gate.as_ref()?.call_timed(Message::new(CHECK, [0; 4]), CHECK_NS);
        if checked.err() != Some(Status::TimedOut) || !self.ledger.is_running(target) {
            return None;
        }
        error!("{} does not answer", self.name(target));
        Some(target)
    }

    fn may_shut_down(&self, index: usize) -> bool {
        self.bundle.plan().domains.get(index).is_some_and(|plan| plan.grants.contains(Grants::SHUTDOWN))
    }

    fn name(&self, index: usize) -> &str {
        self.bundle.plan().domains.get(index).map_or("?", |plan| &plan.name)
    }

    /// The domain with this badge, if it runs.
    fn index_of(&self, badge: u64) -> Option<usize> {
        let index = usize::try_from(badge.checked_sub(1)?).ok()?;
        self.ledger.is_running(index).then_some(index)
    }
}

/// Memory of so many bytes, all of it there from now on; none for no bytes.
fn memory_to_keep(bytes: u64) -> Result<Option<Owned<Memory>>, Problem> {
    if bytes == 0 {
        return Ok(None);
    }
    let made = Memory::create(bytes, Commit::Explicit).and_then(|memory| {
        memory.commit(0, bytes)?;
        Ok(memory)
    });
    made.map(Some).map_err(|status| Problem::Keep { keep_kib: bytes >> 10, status })
}

/// Replies with a label; a caller that is gone meanwhile needs none.
fn answer(label: u32) {
    let _ = reply(Message::new(label, [0; 4]));
}
