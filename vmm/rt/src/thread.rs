//! Threads of the own domain.
#![expect(unsafe_code, reason = "lays out the new thread's stack and starts it there")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ptr;

use dragonfly_abi::{PAGE_SIZE, Rights, Status};

use crate::stack::{ControlBlock, STACK_SIZE, first_block};
use crate::start::named;
use crate::sync::Mutex;
use crate::sys::{
    Commit, Domain, Gate, Memory, Notification, Object, Owned, Thread, ThreadPlan, ThreadSettings, exit_thread,
};
use crate::{address_space, arch, supervisor};

/// Budget and period of a thread for which nothing is set: all of its CPU, in turn with others of its priority.
const DEFAULT_TURN_NS: u64 = 10_000_000;

/// How a new thread is to run.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    cpu: u32,
    priority: u8,
    settings: ThreadSettings,
}

impl Builder {
    /// A thread on this CPU with this priority. Its faults go where the domain's first thread's go: to the supervisor.
    #[must_use]
    pub fn new(cpu: u32, priority: u8) -> Self {
        let settings = ThreadSettings {
            budget_ns: DEFAULT_TURN_NS,
            period_ns: DEFAULT_TURN_NS,
            fault_gate: supervisor_gate(),
            report_exhaustion: false,
        };
        Self { cpu, priority, settings }
    }

    /// Lets it run for `budget_ns` in every `period_ns` nanoseconds.
    #[must_use]
    pub const fn budget(mut self, budget_ns: u64, period_ns: u64) -> Self {
        self.settings.budget_ns = budget_ns;
        self.settings.period_ns = period_ns;
        self
    }

    /// Sends its faults to a gate, with this badge.
    #[must_use]
    pub const fn fault_gate(mut self, gate: Gate, badge: u64) -> Self {
        self.settings.fault_gate = Some((gate, badge));
        self
    }

    /// Makes running out of budget a fault.
    #[must_use]
    pub const fn report_exhaustion(mut self) -> Self {
        self.settings.report_exhaustion = true;
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`Status::BadCpu`], [`Status::BadArgument`] for a priority or budget out of range, [`Status::NoHandles`],
    /// [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn spawn<T, F>(self, run: F) -> Result<JoinHandle<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let result = Arc::new(Mutex::new(None));
        let finished = Notification::create()?;
        let own_notification = Notification::create()?;
        let stack = Stack::new()?;

        let body = {
            let (result, finished) = (result.clone(), *finished);
            move || {
                *result.lock() = Some(run());
                // Gone before the join wakes, so that the result is the joiner's alone.
                drop(result);
                finished
            }
        };
        // The thread gets one word, so the fat pointer goes into a box of its own.
        let body: Box<Body> = Box::new(Box::new(body));
        let block = ControlBlock { notification: *own_notification, ..first_block(stack.message_buffer) };
        // SAFETY: the stack was just mapped, aligned, and no thread runs on it.
        unsafe { block.place(stack.bottom) };

        let body = Box::into_raw(body);
        let plan = ThreadPlan {
            cpu: self.cpu,
            priority: self.priority,
            entry: arch::thread_entry(),
            stack: stack.bottom + STACK_SIZE,
            message_buffer: stack.message_buffer,
            argument: body.expose_provenance() as u64,
        };
        // SAFETY: the entry takes the body from its argument and runs it on a stack of its own; the body may be sent.
        let started = unsafe { Domain::OWN.create_thread(&plan) }.and_then(|thread| {
            thread.configure(&self.settings)?;
            thread.start()?;
            Ok(thread)
        });
        match started {
            Ok(thread) => {
                let parts =
                    ManuallyDrop::new(Parts { thread, finished, _stack: stack, _own_notification: own_notification });
                Ok(JoinHandle { parts, result })
            }
            Err(status) => {
                // SAFETY: made above; the thread has not started, so nobody else has it.
                drop(unsafe { Box::from_raw(body) });
                Err(status)
            }
        }
    }
}

/// The supervisor's gate, with the badge that tells it which domain this is.
fn supervisor_gate() -> Option<(Gate, u64)> {
    let gate: Gate = named(supervisor::GATE_NAME)?;
    gate.handle_info().ok().map(|info| (gate, info.badge))
}

/// What a new thread runs; gives what to signal when it has nothing left to do.
type Body = Box<dyn FnOnce() -> Notification + Send>;

/// Where a thread comes to from its entry point.
///
/// # Safety
/// Only the entry point calls it, with the pointer that [`Builder::spawn`] made, once.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "only the entry point calls it"))]
pub(crate) unsafe extern "C" fn run(body: u64) -> ! {
    // SAFETY: `spawn` made the pointer from a box for this thread.
    let body: Box<Body> = unsafe { Box::from_raw(ptr::with_exposed_provenance_mut(body as usize)) };
    let finished = body();
    // Only now that the body's memory is given back: whoever joins ends this thread wherever it is, and must not find it with
    // the heap's lock.
    let _ = finished.signal(1);
    exit_thread()
}

/// A thread that was started. Dropping it lets the thread run on; what it occupies is then kept until the domain ends.
#[must_use = "a thread that is not joined keeps its stack"]
pub struct JoinHandle<T> {
    parts: ManuallyDrop<Parts>,
    result: Arc<Mutex<Option<T>>>,
}

/// What a thread needs for as long as it runs.
struct Parts {
    thread: Owned<Thread>,
    finished: Owned<Notification>,
    _stack: Stack,
    _own_notification: Owned<Notification>,
}

impl<T> JoinHandle<T> {
    /// The thread.
    #[must_use]
    pub fn thread(&self) -> Thread {
        *self.parts.thread
    }

    /// Waits until the thread has finished; gives what its function returned.
    ///
    /// # Errors
    /// What [`Thread::destroy`] gives; then the thread keeps its stack.
    pub fn join(self) -> Result<T, Status> {
        while self.parts.finished.wait()? == 0 {}
        let result = self.result.lock().take();
        // Not before: it may not have left its stack yet.
        self.parts.thread.destroy()?;
        drop(ManuallyDrop::into_inner(self.parts));
        result.ok_or(Status::Aborted)
    }
}

/// A stack and an address for a message buffer.
struct Stack {
    bottom: u64,
    message_buffer: u64,
    _memory: Owned<Memory>,
}

impl Stack {
    /// Maps a stack with all its frames: running out of memory must not end a thread in the middle of its work.
    fn new() -> Result<Self, Status> {
        let memory = Memory::create(STACK_SIZE, Commit::Explicit)?;
        memory.commit(0, STACK_SIZE)?;
        let bottom = address_space::take(STACK_SIZE, STACK_SIZE).ok_or(Status::OutOfMemory)?;
        let Some(message_buffer) = address_space::take(PAGE_SIZE, PAGE_SIZE) else {
            address_space::give(bottom, STACK_SIZE);
            return Err(Status::OutOfMemory);
        };
        if let Err(status) = memory.map(Domain::OWN, bottom, 0, STACK_SIZE, Rights::READ | Rights::WRITE) {
            address_space::give(bottom, STACK_SIZE);
            address_space::give(message_buffer, PAGE_SIZE);
            return Err(status);
        }
        Ok(Self { bottom, message_buffer, _memory: memory })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the thread has ended or was never started, so nobody uses the stack.
        if unsafe { Domain::OWN.unmap(self.bottom) }.is_ok() {
            address_space::give(self.bottom, STACK_SIZE);
        }
        // The kernel unmapped the message buffer when the thread ended.
        address_space::give(self.message_buffer, PAGE_SIZE);
    }
}
