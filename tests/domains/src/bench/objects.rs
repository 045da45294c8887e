//! Making and taking away domains and threads.

use dragonfly_rt::sys::{Domain, DomainSettings, ThreadPlan};

use super::least;
use crate::check::Outcome;
use crate::light::{Child, PLAYGROUND, PRIORITY, stopped_thread, usual_settings};

/// An empty domain, made and destroyed.
pub(super) fn domain() -> Outcome<u64> {
    let settings = DomainSettings { quota: 128 * 1024, ..usual_settings() };
    least(|| Ok(Domain::create(Domain::OWN, &settings)?.destroy()?))
}

/// A thread in another domain, made, destroyed and its handle closed.
pub(super) fn thread() -> Outcome<u64> {
    let child = Child::new()?;
    let plan =
        ThreadPlan { cpu: 0, priority: PRIORITY, entry: 0x20_0000, stack: 0, message_buffer: PLAYGROUND, argument: 0 };
    least(|| Ok(stopped_thread(child.domain(), &plan)?.destroy()?))
}
