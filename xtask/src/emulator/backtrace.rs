//! Turns addresses, of a kernel panic's back-trace or of a hung machine's CPUs, into functions and source lines.

use std::path::Path;

use addr2line::{Loader, demangle_auto};

use super::{Boot, qmp::LATER, serial::is_panic};

/// Addresses from here on are the kernel's; below are user domains, loader and firmware.
const KERNEL_SPACE: u64 = 0xffff_8000_0000_0000;

/// Says where `boot` ended: the back-trace of a panic, or the places of the CPUs of a machine that was cut off.
#[must_use]
pub fn explain(boot: &Boot, kernel: &Path) -> Vec<String> {
    let mut lines = resolve(&boot.log, kernel);
    if !boot.cpu_states.text.is_empty() {
        lines.extend(places(&boot.cpu_states.instruction_pointers, kernel));
        lines.push(format!("{} s later:", LATER.as_secs()));
        lines.extend(places(&boot.cpu_states.later, kernel));
        lines.extend(boot.cpu_states.text.lines().map(str::to_string));
    }
    lines
}

/// Where each CPU is.
fn places(instruction_pointers: &[u64], kernel: &Path) -> Vec<String> {
    let loader = Loader::new(kernel).ok();
    let mut lines = Vec::new();
    for (cpu, &address) in instruction_pointers.iter().enumerate() {
        match &loader {
            Some(loader) if address >= KERNEL_SPACE => {
                lines.push(format!("CPU {cpu} was at {address:#018x}, in the kernel:"));
                lines.extend(Frame { number: 0, address }.resolve(loader));
            }
            _ => lines.push(format!("CPU {cpu} was at {address:#018x}")),
        }
    }
    lines
}

/// Resolves the back-trace of the first panic in `log` with the debug information of `kernel`.
///
/// Empty when there was no panic or it had no back-trace. An address that is in no known function is shown as it is.
fn resolve(log: &[String], kernel: &Path) -> Vec<String> {
    let frames: Vec<_> = log.iter().skip_while(|line| !is_panic(line)).filter_map(|line| frame(line)).collect();
    if frames.is_empty() {
        return Vec::new();
    }
    match Loader::new(kernel) {
        Ok(loader) => frames.into_iter().flat_map(|frame| frame.resolve(&loader)).collect(),
        Err(error) => {
            vec![format!("no back-trace: cannot read the debug information of {}: {error}", kernel.display())]
        }
    }
}

/// One line `  #N 0xADDRESS` of a back-trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    number: u32,
    address: u64,
}

fn frame(line: &str) -> Option<Frame> {
    let (number, rest) = line.trim_start().strip_prefix('#')?.split_once(' ')?;
    let address = rest.trim_start().strip_prefix("0x")?.split_whitespace().next()?;
    Some(Frame { number: number.parse().ok()?, address: u64::from_str_radix(&address.replace('_', ""), 16).ok()? })
}

impl Frame {
    /// The frame's function and, before it, those that were inlined into it.
    fn resolve(self, loader: &Loader) -> Vec<String> {
        // All but the first are return addresses: the call is the instruction before, maybe the last of its line.
        let probe = if self.number == 0 { self.address } else { self.address.saturating_sub(1) };
        let mut lines = Vec::new();
        if let Ok(mut frames) = loader.find_frames(probe) {
            while let Ok(Some(found)) = frames.next() {
                let function = found.function.as_ref().and_then(|function| function.demangle().ok());
                let place = found.location.as_ref().and_then(|location| Some((location.file?, location.line?)));
                if function.is_none() && place.is_none() {
                    continue;
                }
                let function = function.as_deref().unwrap_or("(no name)");
                lines.push(format!("  #{:<3} {function}", self.number));
                lines.extend(place.map(|(file, line)| format!("         at {file}:{line}")));
            }
        }
        if lines.is_empty() {
            let symbol = loader.find_symbol(probe).map(|name| demangle_auto(name.into(), None));
            lines.push(format!("  #{:<3} {:#018x} {}", self.number, self.address, symbol.unwrap_or_default()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_trace_lines_are_read() {
        for (line, expected) in [
            ("  #0 0xffffffff80001234", Some((0, 0xffff_ffff_8000_1234))),
            ("#12 0x10", Some((12, 0x10))),
            ("  #1 0xffff_ffff_8000_0000 extra", Some((1, 0xffff_ffff_8000_0000))),
            ("  #1 ffffffff80001234", None),
            ("  #x 0x10", None),
            ("  #1 0x11112222333344445", None),
            ("rip 0xffffffff80001234", None),
        ] {
            assert_eq!(frame(line).map(|frame| (frame.number, frame.address)), expected, "{line}");
        }
    }

    #[test]
    fn without_a_panic_there_is_nothing_to_resolve() {
        let log = vec!["  #0 0xffffffff80001234".to_string()];
        assert!(resolve(&log, Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_cpu_outside_the_kernel_is_shown_by_its_address() {
        assert_eq!(places(&[0x40_1000], Path::new("/nonexistent")), ["CPU 0 was at 0x0000000000401000"]);
    }

    #[test]
    fn a_kernel_that_cannot_be_read_is_said_and_not_hidden() {
        let log = vec!["panic: no".to_string(), "  #0 0xffffffff80001234".to_string()];
        let lines = resolve(&log, Path::new("/nonexistent"));
        assert!(lines[0].contains("/nonexistent"), "{lines:?}");
    }

    #[test]
    fn an_address_of_this_very_program_is_named() {
        let program = std::env::current_exe().unwrap();
        let loader = Loader::new(&program).unwrap();
        // Relative to the program's own image: the linker's symbol for the entry is always there.
        let object = std::fs::read(&program).unwrap();
        let entry = u64::from_le_bytes(object[24..32].try_into().unwrap());
        let lines = Frame { number: 0, address: entry }.resolve(&loader);
        assert!(lines[0].contains("_start"), "{lines:?}");
    }
}
