//! Log lines on standard error: for the journal with its severity in front, for people with the time.

use std::{
    env,
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

#[derive(Debug)]
struct Journal {
    /// Whether standard error is the journal's (sd-daemon(3), systemd.exec(5)).
    is_journal: bool,
}

/// Sends log lines of this level and above to standard error.
///
/// # Errors
/// Something else in this process logs already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    log::set_boxed_logger(Box::new(Journal { is_journal: env::var_os("JOURNAL_STREAM").is_some() }))?;
    log::set_max_level(level);
    Ok(())
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.is_journal, SystemTime::now(), record.level(), &record.args().to_string());
            // One write for a line, so that those of several threads do not mix. Nobody could be told of a failure.
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(is_journal: bool, now: SystemTime, level: Level, message: &str) -> String {
    let (severity, name) = match level {
        Level::Error => (3, "error"),
        Level::Warn => (4, "warn "),
        Level::Info => (6, "info "),
        Level::Debug | Level::Trace => (7, "debug"),
    };
    if is_journal {
        return format!("<{severity}>{message}\n");
    }
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs() % 86400;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03} {name} {message}\n", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_journal_gets_the_severity_and_people_get_the_time() {
        let now = UNIX_EPOCH + Duration::from_millis(86_400_000 + 3_723_004);
        assert_eq!(line(true, now, Level::Warn, "x"), "<4>x\n");
        assert_eq!(line(false, now, Level::Warn, "x"), "01:02:03.004 warn  x\n");
    }
}
