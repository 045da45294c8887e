use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use crate::{Budget, MAX_VCPUS, MIN_MEMORY, MachineFile, OnReboot};

fn parse(text: &str) -> Result<MachineFile, String> {
    MachineFile::parse("guest.toml", text).map_err(|error| error.to_string())
}

#[test]
fn a_guest_needs_only_a_name_and_a_kernel() {
    let guest = parse("name = \"a\"\nkernel = \"vmlinuz\"\n").unwrap();
    assert_eq!((guest.name.as_str(), guest.kernel.as_str()), ("a", "vmlinuz"));
    assert_eq!((guest.vcpus, guest.memory, guest.priority), (1, 256 << 20, 16));
    assert_eq!((guest.initrd, guest.cmdline.as_str(), guest.cpus.as_slice()), (None, "", &[][..]));
    assert_eq!((guest.budget, guest.on_reboot), (None, OnReboot::Reboot));
}

#[test]
fn every_key_is_read() {
    let text = r#"
name = "debian_12-a"
vcpus = 4
memory = "6GiB"
kernel = "../boot/vmlinuz"
initrd = "initrd.img"
cmdline = "console=ttyS0 quiet"
cpus = [0, 3]
priority = 20
budget_us = 5000
tsc_khz = 2500000
period_us = 10_000
on_reboot = "power-off"
"#;
    let guest = parse(text).unwrap();
    assert_eq!((guest.name.as_str(), guest.vcpus, guest.memory), ("debian_12-a", 4, 6 << 30));
    assert_eq!((guest.kernel.as_str(), guest.initrd.as_deref()), ("../boot/vmlinuz", Some("initrd.img")));
    assert_eq!((guest.cmdline.as_str(), guest.cpus.as_slice()), ("console=ttyS0 quiet", &[0, 3][..]));
    assert_eq!(guest.tsc_khz, Some(2_500_000));
    assert_eq!(guest.budget, Some(Budget { budget_ns: 5_000_000, period_ns: 10_000_000 }));
    assert_eq!((guest.priority, guest.on_reboot), (20, OnReboot::PowerOff));
}

#[test]
fn devices_are_counted_and_their_keys_are_the_cards() {
    let text = "name = \"a\"\nkernel = \"k\"\n\n[[disk]]\nsize = \"1GiB\"\n\n[[net]]\n[[disk]]\nanything = 1\n[[rule]]\n[[rng]]\n[[vsock]]\n[[console]]\n";
    let guest = parse(text).unwrap();
    assert_eq!((guest.disks, guest.nets, guest.rngs, guest.vsocks, guest.consoles), (2, 1, 1, 1, 1));
    assert_eq!(guest.card_devices(), Some(("disk", 6)));
    assert_eq!(guest.error("disk", "is lost").to_string(), "guest.toml:4: `disk` is lost");
    assert_eq!(guest.error("net", "is lost").to_string(), "guest.toml:7: `net` is lost");
}

#[test]
fn there_are_as_many_devices_as_places_on_the_bus() {
    let devices = |disks: usize, nets: usize| {
        parse(&format!("name = \"a\"\nkernel = \"k\"\n{}{}", "[[disk]]\n".repeat(disks), "[[net]]\n".repeat(nets)))
    };
    let guest = devices(30, 1).unwrap();
    assert_eq!((guest.disks, guest.nets), (30, 1));
    let message =
        |key, line| format!("guest.toml:{line}: `{key}` makes 32 devices with those before: give 31 devices at most");
    assert_eq!(devices(32, 0).map(drop), Err(message("disk", 3)));
    assert_eq!(devices(30, 2).map(drop), Err(message("net", 33)));
}

#[test]
fn an_error_names_file_line_key_and_remedy() {
    let cases = [
        ("vcpus = 0", "3: `vcpus` is 0: give a number from 1 to 32"),
        ("vcpus = 33", "3: `vcpus` is 33: give a number from 1 to 32"),
        ("vcpus = \"2\"", "3: `vcpus` is a string: give a number"),
        ("vcpu = 2", "3: `vcpu` is not a known key: did you mean `vcpus`?"),
        (
            "tablet = \"x\"",
            "3: `tablet` is not a known key: use name, vcpus, memory, kernel, initrd, cmdline, cpus, priority, budget_us, period_us, tsc_khz, on_reboot, console, disk, net, pool, rng, rule, vsock",
        ),
        ("disk = \"x\"", "3: `disk` is a string: give a list of tables"),
        ("[net]", "3: `net` is a table: give a list of tables"),
        ("rule = [1]", "3: `rule` is a number: give a table"),
        ("memory = 256", "3: `memory` is a number: give a string"),
        ("memory = \"256M\"", "3: `memory` is \"256M\": give a size like \"64KiB\", \"4MiB\" or \"1GiB\""),
        ("memory = \"63MiB\"", "3: `memory` is out of range: give 64MiB to 2097152GiB"),
        ("memory = \"9999999GiB\"", "3: `memory` is out of range: give 64MiB to 2097152GiB"),
        ("memory = \"65537KiB\"", "3: `memory` is no multiple of 4KiB: round it up"),
        ("initrd = \"\"", "3: `initrd` is no path: give that of a file"),
        ("initrd = [\"x\"]", "3: `initrd` is a list: give a string"),
        ("cmdline = \"a\\nb\"", "3: `cmdline` has control characters: separate words by blanks"),
        ("cpus = [64]", "3: `cpus` is 64: give a number from 0 to 63"),
        ("cpus = 1", "3: `cpus` is a number: give a list of numbers"),
        ("priority = 64", "3: `priority` is 64: give a number from 0 to 63"),
        ("tsc_khz = 99999", "3: `tsc_khz` is 99999: give a number from 100000 to 20000000"),
        ("budget_us = 500", "1: `period_us` is missing: `budget_us` is the time in each period"),
        ("period_us = 500", "1: `budget_us` is missing: say how much of `period_us` it may run"),
        ("\nbudget_us = 500\nperiod_us = 400", "4: `budget_us` is more than `period_us`, 400: give no more than that"),
        ("on_reboot = \"halt\"", "3: `on_reboot` has \"halt\": use \"reboot\", \"power-off\""),
        (
            "[guest]",
            "3: `guest` is not a known key: use name, vcpus, memory, kernel, initrd, cmdline, cpus, priority, budget_us, period_us, tsc_khz, on_reboot, console, disk, net, pool, rng, rule, vsock",
        ),
    ];
    for (lines, message) in cases {
        let text = format!("name = \"a\"\nkernel = \"k\"\n{lines}\n");
        assert_eq!(parse(&text).map(drop), Err(format!("guest.toml:{message}")), "{lines}");
    }
}

#[test]
fn a_name_and_a_kernel_must_be_there() {
    let cases = [
        ("kernel = \"k\"", "1: `name` is missing: add it to this table"),
        ("name = \"a\"", "1: `kernel` is missing: add it to this table"),
        ("name = \"a b\"\nkernel = \"k\"", "1: `name` has \"a b\": a name has 1 to 32 letters, digits, `-` and `_`"),
        ("name = \"a\"\nkernel = \"\"", "2: `kernel` is no path: give that of a file"),
    ];
    for (text, message) in cases {
        assert_eq!(parse(text).map(drop), Err(format!("guest.toml:{message}")), "{text}");
    }
}

#[test]
fn what_is_no_toml_is_an_error_with_its_line() {
    let message = parse("name = \"a\"\nkernel = \"k").map(drop).expect_err("an open string");
    assert!(message.starts_with("guest.toml:2: is not valid TOML: "), "{message}");
}

#[test]
fn a_fault_of_a_file_that_is_named_is_told_at_its_line() {
    let guest = parse("name = \"a\"\n\nkernel = \"k\"\n").unwrap();
    let told = |key| guest.error(key, "is no kernel: give a bzImage").to_string();
    assert_eq!(told("kernel"), "guest.toml:3: `kernel` is no kernel: give a bzImage");
    assert_eq!(told("memory"), "guest.toml:1: `memory` is no kernel: give a bzImage");
}

/// Lines that a file may consist of, good and bad.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("name"),
        Just("vcpus"),
        Just("memory"),
        Just("kernel"),
        Just("cpus"),
        Just("priority"),
        Just("budget_us"),
        Just("period_us"),
        Just("on_reboot")
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0_u32..70).prop_map(|number| number.to_string()),
        "\"[a-z]{0,4}\"",
        Just("[1, 2]".to_owned()),
        (0_u64..300).prop_map(|size| format!("\"{size}MiB\"")),
    ];
    (key, value).prop_map(|(key, value)| format!("{key} = {value}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_gives_a_machine_within_its_limits_or_an_error_within_its_lines(
        lines in prop::collection::vec(line(), 0..8)
    ) {
        let text = format!("name = \"a\"\nkernel = \"k\"\n{}", lines.join("\n"));
        match MachineFile::parse("x", &text) {
            Ok(guest) => {
                prop_assert!((1..=MAX_VCPUS).contains(&guest.vcpus) && guest.memory >= MIN_MEMORY);
                prop_assert!(guest.cpus.iter().all(|cpu| *cpu < 64));
            }
            Err(error) => prop_assert!((1..=lines.len() + 2).contains(&error.line), "{error}\n{text}"),
        }
    }
}
