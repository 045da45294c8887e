//! The back end of the `log` crate: lines with level and domain on the kernel's log.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::console;
use crate::start::argument;

struct KernelLog;

static KERNEL_LOG: KernelLog = KernelLog;

/// Level of a domain whose arguments have no word `log=LEVEL`.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

/// Lets `log` write to the kernel's log.
pub(crate) fn start() {
    log::set_max_level(argument("log").and_then(|level| level.parse().ok()).unwrap_or(DEFAULT_LEVEL));
    // Fails only if a logger is set; this is called once.
    let _ = log::set_logger(&KERNEL_LOG);
}

/// The name that the domain's arguments give it.
pub(crate) fn domain_name() -> &'static str {
    argument("name").unwrap_or("supervisor")
}

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // As the kernel writes its own lines, with the domain's name added.
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warn ",
                Level::Info => "info ",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            console::print_line(format_args!("{level} {}: {}", domain_name(), record.args()));
        }
    }

    fn flush(&self) {}
}
