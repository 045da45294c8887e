use dragonfly_archive::ArchiveError;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::{
    Budget, Bundle, BundleError, DeviceMemory, DomainPlan, Grants, Interrupt, MAX_DOMAINS, OnFinish, PciFunctions,
    Plan, Ports,
};

/// A domain of which nothing but name and program is said.
fn default_domain(line: usize) -> DomainPlan {
    DomainPlan {
        line,
        name: "a".into(),
        program: "p".into(),
        arguments: String::new(),
        command_line: false,
        memory: 4 << 20,
        priority: 16,
        max_priority: 16,
        budget: None,
        cpu: 0,
        cpus: u64::MAX,
        grants: Grants::empty(),
        provide: vec![],
        use_gates: vec![],
        ports: vec![],
        device_memory: vec![],
        interrupts: vec![],
        pci: vec![],
        essential: true,
        restarts: 0,
        restart: vec![],
        keep: 0,
    }
}

#[test]
fn a_domain_needs_only_a_name_and_a_program() {
    let plan = Plan::parse("[[domain]]\nname = \"a\"\nprogram = \"p\"\n");
    assert_eq!(plan, Ok(Plan { on_finish: OnFinish::PowerOff, domains: vec![default_domain(1)] }));
}

#[test]
fn every_key_is_read() {
    let text = r#"
[system]
on_finish = "wait"

[[domain]]
name = "a"
program = "p"
arguments = "role=driver verbose"
command_line = true
memory = "64KiB"
priority = 20
max_priority = 30
budget_us = 500
period_us = 1_000
cpu = 2
cpus = [1, 2, 63]
grants = ["log", "figures", "devices", "bundle", "shutdown", "dma"]
provide = ["disk"]
use = ["net"]
ports = [{ name = "com2", first = 0x2f8, count = 8 }]
device_memory = [{ name = "hpet", address = 0xfed0_0000, size = "4KiB" }]
interrupts = [{ name = "irq3", number = 3, trigger = "level", polarity = "low" }, { name = "irq4", number = 4 }]
pci = [{ name = "ssd", vendor = 0x1af4, device = 0x1042 }]
essential = false
restarts = 3
restart = ["b"]
keep = "8KiB"

[[domain]]
name = "b"
program = "p"
provide = ["net"]
cpus = [5]
"#;
    let first = DomainPlan {
        line: 5,
        arguments: "role=driver verbose".into(),
        command_line: true,
        memory: 64 << 10,
        priority: 20,
        max_priority: 30,
        budget: Some(Budget { budget_ns: 500_000, period_ns: 1_000_000 }),
        cpu: 2,
        cpus: 1 << 63 | 0b110,
        grants: Grants::all(),
        provide: vec!["disk".into()],
        use_gates: vec!["net".into()],
        ports: vec![Ports { name: "com2".into(), first: 0x2f8, count: 8 }],
        device_memory: vec![DeviceMemory { name: "hpet".into(), address: 0xfed0_0000, size: 4096 }],
        interrupts: vec![
            Interrupt { name: "irq3".into(), number: 3, level: true, active_low: true },
            Interrupt { name: "irq4".into(), number: 4, level: false, active_low: false },
        ],
        pci: vec![PciFunctions { name: "ssd".into(), vendor: 0x1af4, device: 0x1042 }],
        essential: false,
        restarts: 3,
        restart: vec!["b".into()],
        keep: 8 << 10,
        ..default_domain(0)
    };
    let second = DomainPlan {
        line: 29,
        name: "b".into(),
        provide: vec!["net".into()],
        cpu: 5,
        cpus: 1 << 5,
        ..default_domain(0)
    };
    assert_eq!(Plan::parse(text), Ok(Plan { on_finish: OnFinish::Wait, domains: vec![first, second] }));
}

/// What is said of a file with a good domain to which these lines are added.
fn error_with(lines: &str) -> String {
    let text = format!("[[domain]]\nname = \"a\"\nprogram = \"p\"\n{lines}\n");
    Plan::parse(&text).map_or_else(|error| error.to_string(), |_| "accepted".into())
}

#[test]
fn an_error_names_file_line_key_and_remedy() {
    let cases = [
        (
            "colour = 1",
            "4: `colour` is not a known key: use name, program, arguments, command_line, memory, priority, max_priority, budget_us, period_us, cpu, cpus, grants, provide, use, ports, device_memory, interrupts, pci, essential, restarts, restart, keep",
        ),
        ("\nprioirty = 1", "5: `prioirty` is not a known key: did you mean `priority`?"),
        ("priority = 64", "4: `priority` is 64: give a number from 0 to 63"),
        ("priority = -1", "4: `priority` is -1: give a number from 0 to 63"),
        ("priority = 99999999999999999999", "4: `priority` is 99999999999999999999: give a number from 0 to 63"),
        ("priority = 1.5", "4: `priority` is a fraction: give a number"),
        ("priority = \"high\"", "4: `priority` is a string: give a number"),
        ("priority = 20\nmax_priority = 19", "5: `max_priority` is 19: give a number from 20 to 63"),
        ("restart = [\"b\"]", "4: `restart` has \"b\", which is no other domain: name one"),
        ("restart = [\"a\"]", "4: `restart` has \"a\", which is no other domain: name one"),
        ("arguments = 7", "4: `arguments` is a number: give a string"),
        ("arguments = \"a\\nb\"", "4: `arguments` has control characters: separate words by blanks"),
        ("essential = \"no\"", "4: `essential` is a string: give true or false"),
        (
            "essential = false",
            "1: `domain` has no essential one, so that the system would finish at once: remove an `essential = false`",
        ),
        ("memory = 4096", "4: `memory` is a number: give a string"),
        ("memory = \"4 MB\"", "4: `memory` is \"4 MB\": give a size like \"64KiB\", \"4MiB\" or \"1GiB\""),
        ("memory = \"6KiB\"", "4: `memory` is no multiple of 4KiB: round it up"),
        ("budget_us = 500", "1: `period_us` is missing: `budget_us` is the time in each period"),
        ("period_us = 500", "1: `budget_us` is missing: say how much of `period_us` it may run"),
        ("budget_us = 500\nperiod_us = 400", "4: `budget_us` is more than `period_us`, 400: give no more than that"),
        ("budget_us = 9\nperiod_us = 400", "4: `budget_us` is 9: give a number from 10 to 3600000000"),
        ("cpus = [0, 64]", "4: `cpus` is 64: give a number from 0 to 63"),
        ("cpus = 3", "4: `cpus` is a number: give a list of numbers"),
        ("cpus = [1]\ncpu = 0", "5: `cpu` is 0, which is not in `cpus`: add it there"),
        (
            "grants = [\"root\"]",
            "4: `grants` has \"root\": use \"log\", \"figures\", \"devices\", \"bundle\", \"shutdown\", \"dma\"",
        ),
        ("provide = [\"a b\"]", "4: `provide` has \"a b\": a name has 1 to 32 letters, digits, `-` and `_`"),
        ("keep = \"5000\"", "4: `keep` is \"5000\": give a size like \"64KiB\", \"4MiB\" or \"1GiB\""),
        ("use = [\"kept\"]", "4: `use` has \"kept\", which is taken: choose another name"),
        ("provide = [\"supervisor\"]", "4: `provide` has \"supervisor\", which is taken: choose another name"),
        ("provide = [\"x\", \"x\"]", "4: `provide` has \"x\", which this domain has already: choose another name"),
        (
            "provide = [\"x\"]\nuse = [\"x\"]",
            "5: `use` has \"x\", which the domain itself provides: it would wait for itself",
        ),
        ("use = [\"x\"]", "4: `use` has \"x\", which no domain provides: add it to the `provide` of one"),
        ("ports = [{ name = \"x\", first = 0xffff, count = 2 }]", "4: `count` is 2: give a number from 1 to 1"),
        ("ports = [{ name = \"x\", count = 2 }]", "4: `first` is missing: add it to this table"),
        ("ports = [0x3f8]", "4: `ports` is a number: give a table"),
        (
            "device_memory = [{ name = \"x\", address = 0x800, size = \"4KiB\" }]",
            "4: `address` is no multiple of 0x1000: give the address of a page",
        ),
        (
            "interrupts = [{ name = \"x\", number = 1, trigger = \"both\" }]",
            "4: `trigger` has \"both\": use \"edge\", \"level\"",
        ),
        (
            "pci = [{ name = \"x\", vendor = 0x1_0000, device = 1 }]",
            "4: `vendor` is 0x10000: give a number from 0 to 65534",
        ),
        ("pci = [{ name = \"x\", vendor = 1 }]", "4: `device` is missing: add it to this table"),
        (
            "use = []\nprovide = [\"x12\"]\npci = [{ name = \"x\", vendor = 1, device = 1 }]",
            "6: `pci` has \"x\", which with a number could be \"x12\": choose another name",
        ),
        (
            "pci = [{ name = \"x\", vendor = 1, device = 1 }, { name = \"x1\", vendor = 1, device = 2 }]",
            "4: `pci` has \"x\", which with a number could be \"x1\": choose another name",
        ),
        (
            "provide = [\"x\"]\npci = [{ name = \"x\", vendor = 1, device = 1 }]",
            "5: `pci` has \"x\", which this domain has already: choose another name",
        ),
        ("[system]\non_finish = \"reboot\"", "5: `on_finish` has \"reboot\": use \"power-off\", \"wait\""),
        ("[system]\non_finnish = \"wait\"", "5: `on_finnish` is not a known key: did you mean `on_finish`?"),
        ("[sytem]", "4: `sytem` is not a known key: did you mean `system`?"),
        ("[[domain]]\nname = \"a\"\nprogram = \"p\"", "5: `name` is \"a\", as in line 1: choose another name"),
        ("[[domain]]\nprogram = \"p\"", "4: `name` is missing: add it to this table"),
        ("[[domain]]\nname = \"b\"", "4: `program` is missing: add it to this table"),
        (
            "provide = [\"x\"]\n[[domain]]\nname = \"b\"\nprogram = \"p\"\nprovide = [\"x\"]",
            "8: `provide` has \"x\", which \"a\" provides too: one domain can",
        ),
    ];
    for (lines, message) in cases {
        assert_eq!(error_with(lines), format!("bundle.toml:{message}"), "{lines}");
    }
}

#[test]
fn what_is_no_toml_is_an_error_with_its_line() {
    let error = Plan::parse("[[domain]]\nname = \"a\nprogram = 1").map_err(|error| error.to_string());
    let message = error.expect_err("an open string");
    assert!(message.starts_with("bundle.toml:2: is not valid TOML: "), "{message}");
    assert!(message.ends_with(": see https://toml.io"), "{message}");
}

#[test]
fn a_file_without_domains_or_with_too_many_is_refused() {
    assert_eq!(
        Plan::parse("").map_err(|error| error.to_string()),
        Err("bundle.toml:1: `domain` is missing: add a [[domain]] table".into())
    );
    let many = |count| -> String {
        (0..count).map(|index| format!("[[domain]]\nname = \"d{index}\"\nprogram = \"p\"\n")).collect()
    };
    assert!(Plan::parse(&many(MAX_DOMAINS)).is_ok());
    assert!(Plan::parse(&many(MAX_DOMAINS + 1)).is_err());
}

/// An archive as `cpio -H newc` writes it.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in files.iter().copied().chain([("TRAILER!!!", &[][..])]) {
        let fields = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend_from_slice(b"070701");
        fields.iter().for_each(|value| bytes.extend_from_slice(format!("{value:08X}").as_bytes()));
        for part in [name.as_bytes(), &[0], data] {
            bytes.extend_from_slice(part);
            if part != name.as_bytes() {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
    }
    bytes
}

#[test]
fn a_bundle_gives_its_plan_and_files() {
    let bytes = archive(&[("bundle.toml", b"[[domain]]\nname = \"a\"\nprogram = \"p\"\n"), ("p", b"ELF")]);
    let bundle = Bundle::open(&bytes).unwrap();
    assert_eq!(bundle.plan().domains.len(), 1);
    assert_eq!(bundle.file("p"), Some(&b"ELF"[..]));
    assert_eq!(bundle.file("q"), None);
}

#[test]
fn a_bundle_that_lacks_something_is_refused() {
    let error = |files: &[(&str, &[u8])]| Bundle::open(&archive(files)).map(drop).unwrap_err().to_string();
    assert_eq!(error(&[("p", b"ELF")]), "the archive has no bundle.toml: add one");
    assert_eq!(error(&[("bundle.toml", b"a = 1\n\xff")]), "bundle.toml:2: is not UTF-8: save it as such");
    assert_eq!(
        error(&[("bundle.toml", b"\n[[domain]]\nname = \"a\"\nprogram = \"p\"\n"), ("demo", b""), ("bench", b"")]),
        "bundle.toml:2: `program` is \"p\", which is not in the archive: it has demo bench"
    );
    let whole = archive(&[("bundle.toml", b"")]);
    let cut = Bundle::open(&whole[..whole.len() - 4]).map(drop);
    assert_eq!(cut, Err(BundleError::Archive(ArchiveError::Truncated { offset: 124 })));
}

/// Lines that a file may consist of, good and bad.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("name"),
        Just("program"),
        Just("memory"),
        Just("priority"),
        Just("cpus"),
        Just("cpu"),
        Just("grants"),
        Just("use"),
        Just("provide"),
        Just("ports"),
        Just("budget_us"),
        Just("period_us"),
        Just("on_finish")
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0_u32..70).prop_map(|number| number.to_string()),
        "\"[a-z]{0,4}\"",
        "\\[(\"[a-z]{1,2}\")?\\]",
        Just("\"4MiB\"".to_owned()),
        Just("{ name = \"x\", first = 1, count = 1 }".to_owned()),
    ];
    prop_oneof![
        2 => Just("[[domain]]".to_owned()),
        1 => Just("[system]".to_owned()),
        8 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_gives_a_plan_or_an_error_within_its_lines(lines in prop::collection::vec(line(), 0..20)) {
        let text = lines.join("\n");
        match Plan::parse(&text) {
            Ok(plan) => prop_assert!(plan.domains.iter().any(|domain| domain.essential)),
            Err(error) => prop_assert!((1..=lines.len() + 1).contains(&error.line), "{error}\n{text}"),
        }
    }

    #[test]
    fn numbers_are_accepted_exactly_in_their_range(number in 0_u64..200) {
        let accepted = error_with(&format!("priority = {number}")) == "accepted";
        prop_assert_eq!(accepted, number < 64);
    }
}
