//! Threads with their scheduling contexts.

use dragonfly_abi::{Call, Handle, StartHandles, Status};

use super::handle::define_object;
use super::{Gate, Object, call, call_until_done};
use crate::arch;

define_object! {
    /// A thread of some domain.
    Thread
}

/// Where and how a new thread starts.
#[derive(Clone, Copy, Debug)]
pub struct ThreadPlan {
    /// The CPU that it runs on, until it moves.
    pub cpu: u32,
    /// Its priority.
    pub priority: u8,
    /// Address of its first instruction.
    pub entry: u64,
    /// Its first stack pointer.
    pub stack: u64,
    /// Where the kernel maps its message buffer: a page that is not mapped.
    pub message_buffer: u64,
    /// What it finds in the argument register.
    pub argument: u64,
}

/// How much a thread may run, and who handles its faults.
#[derive(Clone, Copy, Debug)]
pub struct ThreadSettings {
    /// How long it may run in a period, in nanoseconds.
    pub budget_ns: u64,
    /// Length of a period in nanoseconds.
    pub period_ns: u64,
    /// Who gets its faults, with which badge; without one a fault ends the thread.
    pub fault_gate: Option<(Gate, u64)>,
    /// Whether running out of budget is a fault too.
    pub report_exhaustion: bool,
}

/// What the kernel tells of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// What it does, as `docs/abi.md` numbers it.
    pub state: u64,
    /// How long it has run, in nanoseconds.
    pub consumed_ns: u64,
    /// The CPU that it runs on.
    pub cpu: u64,
    /// Its priority.
    pub priority: u64,
}

impl Thread {
    /// The domain's first thread.
    pub const FIRST: Self = Self(StartHandles::THREAD);

    /// Sets budget and fault gate; only before the thread is started.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`],
    /// [`Status::BadState`].
    pub fn configure(self, settings: &ThreadSettings) -> Result<(), Status> {
        let (gate, badge) = settings.fault_gate.map_or((Handle::NULL, 0), |(gate, badge)| (gate.handle(), badge));
        let flags = u64::from(settings.report_exhaustion);
        let arguments = [self.word(), settings.budget_ns, settings.period_ns, gate.0.into(), badge, flags];
        call(Call::ThreadConfigure, arguments).map(drop)
    }

    /// Lets the thread run for the first time.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadState`].
    pub fn start(self) -> Result<(), Status> {
        call(Call::ThreadStart, [self.word()]).map(drop)
    }

    /// Ends the thread; it has left its CPU when this returns.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without DESTROY, [`Status::BadState`] for the
    /// calling thread.
    pub fn destroy(self) -> Result<(), Status> {
        call_until_done(Call::ThreadDestroy, [self.word()]).map(drop)
    }

    /// State, time used and place.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without READ.
    pub fn info(self) -> Result<ThreadInfo, Status> {
        let [state, consumed_ns, cpu, priority, ..] = call(Call::ThreadInfo, [self.word()])?;
        Ok(ThreadInfo { state, consumed_ns, cpu, priority })
    }
}

/// Ends the calling thread. What its stack holds is not dropped.
pub fn exit_thread() -> ! {
    // The call does not return; should a kernel refuse it, a fault ends the thread as well.
    let _ = call(Call::ThreadExit, []);
    arch::stop()
}

/// The calling thread goes on on another CPU, with its budget and its timer.
///
/// # Errors
/// [`Status::BadCpu`] if there is no such CPU or the domain may not use it, [`Status::BadState`] as long as the thread has a
/// caller to answer.
pub fn move_thread(cpu: u32) -> Result<(), Status> {
    call(Call::ThreadMove, [cpu.into()]).map(drop)
}

/// Lets other threads of the same priority run.
pub fn yield_thread() {
    // Without arguments nothing can be wrong with the call.
    let _ = call(Call::ThreadYield, []);
}
