//! The stages that boot guests without an operating system: one that checks its machine from inside, and one that attacks.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use dragonfly_machine_file::MachineFile;

use super::{
    console::{Console, Consoles},
    host::GuestHost,
};
use crate::{
    build::cargo::{self, Profile, Program},
    cli::Emulator,
    emulator::Machine,
    guest::{description::Guest, devices, stream::GuestEnd},
    test::report::{Outcome, StageResult},
};

/// One boot of an emulator with such guests in it.
#[derive(Clone, Copy, Debug)]
pub struct BareScenario {
    /// Emulator.
    pub emulator: Emulator,
    /// Number of the host's CPUs.
    pub cpus: u32,
    /// One instruction is one nanosecond, so that what is measured in the guests does not depend on the host.
    pub is_exact: bool,
    /// What of the processor the hypervisor is told not to use.
    pub without: &'static [Feature],
    /// More words for its command line.
    pub options: &'static [&'static str],
    /// The guests.
    pub guests: &'static [BareGuest],
    /// Seconds of wall time after which it is given up.
    pub at_most_s: u64,
}

/// Something that the hypervisor can do without.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The word of the kernel's command line that switches it off.
    option: &'static str,
    /// What the kernel's log calls it.
    name: &'static str,
}

/// A guest of our own.
#[derive(Clone, Copy, Debug)]
pub struct BareGuest {
    /// Its machine file's name in `tests/guests/machines`, without `.toml`.
    pub machine: &'static str,
    /// Its program, which the machine file calls by the name of the binary.
    pub program: Program<'static>,
    /// Its last line begins so.
    pub last_line: &'static str,
    /// How it comes to its end.
    pub end: GuestEnd,
}

const CONFORMANCE: Program<'_> =
    Program { package: "dragonfly-guest-conformance", bin: "guest-conformance", features: &[] };
const HOSTILE: Program<'_> = Program { package: "dragonfly-guest-hostile", bin: "guest-hostile", features: &[] };

const fn conformance(machine: &'static str) -> BareGuest {
    BareGuest { machine, program: CONFORMANCE, last_line: "[check] end ", end: GuestEnd::PoweredOff }
}

/// All the steps that the machine file asks for have to be made.
const fn hostile(machine: &'static str, last_line: &'static str) -> BareGuest {
    BareGuest { machine, program: HOSTILE, last_line, end: GuestEnd::Crashed }
}

const fn qemu(guests: &'static [BareGuest]) -> BareScenario {
    BareScenario {
        emulator: Emulator::Qemu,
        cpus: 2,
        is_exact: false,
        without: &[],
        options: &[],
        guests,
        at_most_s: 1200,
    }
}

const fn bochs(guests: &'static [BareGuest]) -> BareScenario {
    BareScenario {
        emulator: Emulator::Bochs,
        cpus: 1,
        is_exact: true,
        without: &[],
        options: &[],
        guests,
        at_most_s: 1800,
    }
}

/// Lies to the card as the driver of a disk and a network; both work afterwards.
pub const HOSTILE_DRIVER: BareGuest = BareGuest {
    machine: "hostile-driver",
    program: HOSTILE,
    last_line: "[hostile] end: disk true, network true",
    end: GuestEnd::PoweredOff,
};

/// The machine from inside.
pub const CONFORMANCE_1: BareScenario = qemu(&[conformance("conformance-1")]);
/// With another CPU.
pub const CONFORMANCE_2: BareScenario = qemu(&[conformance("conformance-2")]);
/// With more than the host has.
pub const CONFORMANCE_4: BareScenario = qemu(&[conformance("conformance-4")]);
/// A reset that the machine file takes for power-off.
pub const RESET: BareScenario = qemu(&[conformance("reset")]);
/// Attackers beside a guest whose checks go on: one breaks its tables, the other sends NMIs.
pub const HOSTILITY: BareScenario = BareScenario { is_exact: true, ..qemu(&HOSTILE_50K) };
/// Ten times as long.
pub const HOSTILITY_LONG: BareScenario = BareScenario {
    is_exact: true,
    at_most_s: 7200,
    ..qemu(&[
        hostile("hostile-tables-500k", "[hostile] end: 500000 steps,"),
        hostile("hostile-nmi-500k", "[hostile] end: 500000 steps,"),
        conformance("neighbour"),
    ])
};
const HOSTILE_50K: [BareGuest; 3] = [
    hostile("hostile-tables-50k", "[hostile] end: 50000 steps,"),
    hostile("hostile-nmi-50k", "[hostile] end: 50000 steps,"),
    conformance("neighbour"),
];
/// The machine from inside, on VT-x, with a time-stamp counter of another frequency than the host's.
pub const BOCHS_CONFORMANCE_1: BareScenario = bochs(&[conformance("conformance-tsc")]);
/// With another CPU.
pub const BOCHS_CONFORMANCE_2: BareScenario = bochs(&[conformance("conformance-2")]);
/// The features of VT-x that can be switched off.
const VMX_FEATURES: [Feature; 11] = [
    Feature { option: "vmx.vpid=off", name: "vpid" },
    Feature { option: "vmx.ept-ad=off", name: "accessed and dirty flags" },
    Feature { option: "vmx.ept-1g=off", name: "1G pages" },
    Feature { option: "vmx.ept-2m=off", name: "2M pages" },
    Feature { option: "vmx.ple=off", name: "pause-loop exiting" },
    Feature { option: "vmx.preemption-timer=off", name: "preemption timer" },
    Feature { option: "vmx.vid=off", name: "virtual-interrupt delivery" },
    Feature { option: "vmx.apic-registers=off", name: "APIC-register virtualisation" },
    Feature { option: "vmx.posted-interrupts=off", name: "posted interrupts" },
    Feature { option: "vmx.pml=off", name: "page-modification log" },
    Feature { option: "vmx.tsc-scaling=off", name: "scaling of time-stamp counters" },
];

const fn bochs_without(without: &'static [Feature]) -> BareScenario {
    const GUESTS: [BareGuest; 1] = [conformance("conformance-1")];
    BareScenario { without, ..bochs(&GUESTS) }
}

/// The machine from inside, on VT-x with as little as there may be.
pub const BOCHS_BARE: BareScenario = bochs_without(&VMX_FEATURES);
/// Without one feature each.
pub const BOCHS_WITHOUT_VPID: BareScenario = bochs_without(&[VMX_FEATURES[0]]);
/// Without the second stage's accessed and dirty flags.
pub const BOCHS_WITHOUT_AD: BareScenario = bochs_without(&[VMX_FEATURES[1]]);
/// Without pages of 1 GiB.
pub const BOCHS_WITHOUT_1G: BareScenario = bochs_without(&[VMX_FEATURES[2]]);
/// With pages of 4 KiB only.
pub const BOCHS_WITHOUT_2M: BareScenario = bochs_without(&[VMX_FEATURES[2], VMX_FEATURES[3]]);
/// Without exits of loops that wait.
pub const BOCHS_WITHOUT_PLE: BareScenario = bochs_without(&[VMX_FEATURES[4]]);
/// Without the timer that ends long stays in a guest.
pub const BOCHS_WITHOUT_TIMER: BareScenario = bochs_without(&[VMX_FEATURES[5]]);
/// With interrupts that the processor delivers.
pub const BOCHS_VID: BareScenario = BareScenario { options: &["vmx.vid=on"], ..BOCHS_CONFORMANCE_2 };
/// With reads of the local APIC's registers left to the hypervisor.
pub const BOCHS_WITHOUT_APIC_REGISTERS: BareScenario = BareScenario { without: &[VMX_FEATURES[7]], ..BOCHS_VID };
/// With interrupts from elsewhere that the processor does not take out of memory.
pub const BOCHS_WITHOUT_POSTED: BareScenario = BareScenario { without: &[VMX_FEATURES[8]], ..BOCHS_VID };
/// Attackers beside a guest whose checks go on, on VT-x.
pub const BOCHS_HOSTILITY: BareScenario = bochs(&[
    hostile("hostile-tables-5k", "[hostile] end: 5000 steps,"),
    hostile("hostile-nmi-5k", "[hostile] end: 5000 steps,"),
    conformance("neighbour"),
]);
/// Ten times as long.
pub const BOCHS_HOSTILITY_LONG: BareScenario = BareScenario { at_most_s: 7200, ..bochs(&HOSTILE_50K) };

/// Everything that such a stage needs to know.
#[derive(Debug)]
pub struct BareStage<'a> {
    /// Boots them.
    pub host: GuestHost<'a>,
    /// The guests.
    pub scenario: &'a BareScenario,
}

impl BareStage<'_> {
    /// Boots and judges.
    ///
    /// # Errors
    /// Fails when something cannot be had or built, or an emulator does not start.
    pub fn run(&self) -> Result<StageResult> {
        let BareScenario { emulator, cpus, is_exact: deterministic, without, options: more, guests: plans, at_most_s } =
            *self.scenario;
        let guests = plans.iter().map(|plan| guest(&self.host, plan)).collect::<Result<Vec<_>>>()?;
        let machine = Machine { deterministic, ..Machine::new(emulator, cpus) };
        let options = without.iter().map(|feature| feature.option).chain(more.iter().copied());
        let booted =
            self.host.boot(machine, options, at_most_s, &guests, Consoles::new(plans.iter().map(|_| 1)), |_| false)?;
        let all_end_well = plans.iter().all(|plan| plan.end == GuestEnd::PoweredOff);
        let mut outcomes = vec![booted.judge_host(all_end_well)];
        outcomes.extend(without.iter().map(|feature| judge_absence(feature, &booted.boot.log)));
        let mut printed = Vec::new();
        for (plan, console) in plans.iter().zip(&booted.consoles.guests) {
            outcomes.extend(judge(plan, console));
            printed.extend(console.texts().map(|line| format!("{}: {line}", plan.machine)));
        }
        self.host.finish(&booted, outcomes, Vec::new(), printed)
    }
}

/// The guest that a plan describes.
///
/// # Errors
/// Fails when its program cannot be built, or its machine file cannot be read.
pub fn guest(host: &GuestHost<'_>, plan: &BareGuest) -> Result<Guest> {
    let path = host.project.root.join("tests/guests/machines").join(format!("{}.toml", plan.machine));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let machine = MachineFile::parse(plan.machine, &text)?;
    let program = cargo::build_bin(host.project, host.tools.is_offline(), &plan.program, Profile::Release)?;
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut files = vec![(plan.program.bin.into(), bytes)];
    let devices = devices::read(plan.machine, &text, Path::new(""), &mut files)?;
    Ok(Guest { machine, text, files, source: None, devices })
}

/// The hypervisor says that it does without.
fn judge_absence(feature: &Feature, log: &[String]) -> Outcome {
    let outcome = format!("without {}", feature.name);
    let is_off = log
        .iter()
        .filter_map(|line| line.split_once("missing or off: "))
        .any(|(_, names)| names.split(", ").any(|name| name == feature.name));
    if is_off { Outcome::passed(&outcome) } else { Outcome::failed(&outcome, "the hypervisor does not say so") }
}

/// What a guest said of its checks, and how it came to its end.
#[must_use]
pub fn judge(plan: &BareGuest, console: &Console) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut started = None;
    for line in console.texts() {
        let Some((word, rest)) = line.strip_prefix("[check] ").and_then(|rest| rest.split_once(' ')) else { continue };
        match word {
            "start" => started = Some(rest),
            "ok" => {
                outcomes.push(Outcome::passed(rest));
                started = None;
            }
            "fail" => {
                let (name, why) = rest.split_once(": ").unwrap_or((rest, "it is not so"));
                outcomes.push(Outcome::failed(name, why));
                started = None;
            }
            _ => {}
        }
    }
    outcomes.extend(started.map(|name| Outcome::failed(name, "it did not come to its end")));
    outcomes.push(if console.ends != [plan.end] {
        Outcome::failed("end", &format!("{:?}, not {:?}", console.ends, plan.end))
    } else if !console.texts().any(|line| line.starts_with(plan.last_line)) {
        Outcome::failed("end", &format!("no line `{}`", plan.last_line))
    } else {
        Outcome::passed("end")
    });
    for outcome in &mut outcomes {
        outcome.name = format!("{}: {}", plan.machine, outcome.name);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Watcher;

    fn judged(printed: &[u8]) -> Vec<(String, Option<String>)> {
        let mut consoles = Consoles::new([1]);
        consoles.guests(printed);
        let outcomes = judge(&conformance("guest"), &consoles.guests[0]);
        outcomes.into_iter().map(|outcome| (outcome.name, outcome.failure)).collect()
    }

    #[test]
    fn each_check_of_a_guest_is_a_test() {
        let printed = b"[check] start a\n[check] ok a\n[check] start b\n[check] fail b: x: 0x1 instead of 0x2\n\
                        [check] end 1 ok 1 failed\n\x10x0000";
        let failure = Some("x: 0x1 instead of 0x2".to_string());
        let wanted = [("guest: a".into(), None), ("guest: b".into(), failure), ("guest: end".into(), None)];
        assert_eq!(judged(printed), wanted);
    }

    #[test]
    fn a_feature_is_off_if_the_hypervisor_says_so() {
        let log = ["VT-x ...; used: 2M pages".into(), "VT-x features that are missing or off: vpid, 1G pages".into()];
        let is_off = VMX_FEATURES.map(|feature| judge_absence(&feature, &log).failure.is_none());
        assert_eq!(is_off, [true, false, true, false, false, false, false, false, false, false, false]);
    }

    #[test]
    fn a_check_that_does_not_come_to_its_end_has_failed_and_so_has_its_guest() {
        let outcomes = judged(b"[check] start a\n\x10x0001");
        assert!(outcomes.len() == 2 && outcomes.iter().all(|(_, failure)| failure.is_some()), "{outcomes:?}");
    }

    #[test]
    fn a_guest_that_never_says_that_it_is_done_is_not() {
        let outcomes = judged(b"[check] ok a\n\x10x0000");
        assert_eq!(outcomes[1].1.as_deref(), Some("no line `[check] end `"));
    }
}
