//! How often a vCPU left its guest, and why, for the log.

use core::fmt;

use dragonfly_abi::arch::guest::{EXIT_COUNTERS, ExitCounter};

/// The kernel's counters of a vCPU, shown as `all 7 to-vmm 2 port 2`: those that are not 0, each after its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exits<'c>(pub(crate) &'c [u64; EXIT_COUNTERS]);

impl fmt::Display for Exits<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = COUNTERS.iter().filter_map(|(counter, name)| Some((name, self.0.get(*counter as usize)?)));
        let mut separator = "";
        for (name, count) in counted.filter(|(_, count)| **count > 0) {
            write!(formatter, "{separator}{name} {count}")?;
            separator = " ";
        }
        Ok(())
    }
}

const COUNTERS: [(ExitCounter, &str); 16] = [
    (ExitCounter::Total, "all"),
    (ExitCounter::ToVmm, "to-vmm"),
    (ExitCounter::Interrupt, "interrupt"),
    (ExitCounter::Cpuid, "cpuid"),
    (ExitCounter::MsrRead, "rdmsr"),
    (ExitCounter::MsrWrite, "wrmsr"),
    (ExitCounter::Port, "port"),
    (ExitCounter::PageFault, "page-fault"),
    (ExitCounter::Mmio, "mmio"),
    (ExitCounter::Halt, "halt"),
    (ExitCounter::Hypercall, "hypercall"),
    (ExitCounter::Window, "window"),
    (ExitCounter::Doorbell, "doorbell"),
    (ExitCounter::Pause, "pause"),
    (ExitCounter::Other, "other"),
    (ExitCounter::Injected, "injected"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_not_0_follow_their_names() {
        let mut counters = [0; EXIT_COUNTERS];
        assert_eq!(Exits(&counters).to_string(), "");
        (counters[0], counters[1], counters[6]) = (7, 2, 2);
        assert_eq!(Exits(&counters).to_string(), "all 7 to-vmm 2 port 2");
    }
}
