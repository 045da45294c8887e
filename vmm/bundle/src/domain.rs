//! One `[[domain]]` table.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_abi::{MAX_CPUS, PAGE_SIZE, PRIORITIES};
use dragonfly_settings::{Section, SettingsError};

use crate::plan::{DeviceMemory, DomainPlan, Grants, Interrupt, PciFunctions, Ports};

const KEYS: [&str; 22] = [
    "name",
    "program",
    "arguments",
    "command_line",
    "memory",
    "priority",
    "max_priority",
    "budget_us",
    "period_us",
    "cpu",
    "cpus",
    "grants",
    "provide",
    "use",
    "ports",
    "device_memory",
    "interrupts",
    "pci",
    "essential",
    "restarts",
    "restart",
    "keep",
];

const GRANTS: [(&str, Grants); 6] = [
    ("log", Grants::LOG),
    ("figures", Grants::FIGURES),
    ("devices", Grants::DEVICES),
    ("bundle", Grants::BUNDLE),
    ("shutdown", Grants::SHUTDOWN),
    ("dma", Grants::DMA),
];

/// Name of the handle of the memory that outlives a domain (`keep`).
pub const KEPT_NAME: &str = "kept";

const DEFAULT_MEMORY: u64 = 4 << 20;
const DEFAULT_PRIORITY: u64 = 16;

pub(crate) fn decode(section: &Section<'_>) -> Result<DomainPlan, SettingsError> {
    section.only_keys(&KEYS)?;
    let name = name(section, "name")?;
    let program = section.string("program")?;
    let program = section.required("program", program)?;
    let priority = section.integer("priority", 0..=u64::from(PRIORITIES) - 1)?.unwrap_or(DEFAULT_PRIORITY);
    let max_priority = section.integer("max_priority", priority..=u64::from(PRIORITIES) - 1)?.unwrap_or(priority);
    let (cpu, cpus) = cpus(section)?;
    Ok(DomainPlan {
        line: section.line(),
        name,
        program,
        arguments: arguments(section)?,
        command_line: section.boolean("command_line")?.unwrap_or(false),
        memory: memory(section, "memory")?.unwrap_or(DEFAULT_MEMORY),
        priority: priority as u8,
        max_priority: max_priority as u8,
        budget: section.budget()?,
        cpu,
        cpus,
        grants: grants(section)?,
        provide: names(section, "provide")?,
        use_gates: names(section, "use")?,
        ports: section.tables("ports")?.iter().map(ports).collect::<Result<_, _>>()?,
        device_memory: section.tables("device_memory")?.iter().map(device_memory).collect::<Result<_, _>>()?,
        interrupts: section.tables("interrupts")?.iter().map(interrupt).collect::<Result<_, _>>()?,
        pci: section.tables("pci")?.iter().map(pci).collect::<Result<_, _>>()?,
        essential: section.boolean("essential")?.unwrap_or(true),
        restart: names(section, "restart")?,
        keep: memory(section, "keep")?.unwrap_or(0),
        restarts: section.integer("restarts", 0..=u64::from(u32::MAX))?.unwrap_or(0) as u32,
    })
}

fn name(section: &Section<'_>, key: &str) -> Result<String, SettingsError> {
    let name = section.name(key)?;
    check_name(section, key, &name)?;
    Ok(name)
}

fn names(section: &Section<'_>, key: &str) -> Result<Vec<String>, SettingsError> {
    let names = section.names(key)?;
    names.iter().try_for_each(|name| check_name(section, key, name))?;
    Ok(names)
}

/// The supervisor's own gate, and its name in the log; and the memory that outlives a domain.
fn check_name(section: &Section<'_>, key: &str, name: &str) -> Result<(), SettingsError> {
    if name == "supervisor" || name == KEPT_NAME {
        return Err(section.error(key, format!("has \"{name}\", which is taken: choose another name")));
    }
    Ok(())
}

fn arguments(section: &Section<'_>) -> Result<String, SettingsError> {
    let arguments = section.string("arguments")?.unwrap_or_default();
    if arguments.chars().any(char::is_control) {
        return Err(section.error("arguments", "has control characters: separate words by blanks".into()));
    }
    Ok(arguments)
}

fn memory(section: &Section<'_>, key: &str) -> Result<Option<u64>, SettingsError> {
    let size = section.size(key)?;
    if size.is_some_and(|size| !size.is_multiple_of(PAGE_SIZE)) {
        return Err(section.error(key, "is no multiple of 4KiB: round it up".into()));
    }
    Ok(size)
}

/// The first thread's CPU, and the mask of all CPUs.
fn cpus(section: &Section<'_>) -> Result<(u32, u64), SettingsError> {
    let last = MAX_CPUS as u64 - 1;
    let listed = section.integers("cpus", 0..=last)?;
    let mask = listed.iter().fold(0, |mask, cpu| mask | 1_u64 << cpu);
    let cpus = if mask == 0 { u64::MAX } else { mask };
    let cpu = match section.integer("cpu", 0..=last)? {
        Some(cpu) => cpu,
        None => listed.first().copied().unwrap_or(0),
    };
    if cpus & 1 << cpu == 0 {
        return Err(section.error("cpu", format!("is {cpu}, which is not in `cpus`: add it there")));
    }
    Ok((cpu as u32, cpus))
}

fn grants(section: &Section<'_>) -> Result<Grants, SettingsError> {
    let names = section.strings("grants")?;
    names.iter().try_fold(Grants::empty(), |grants, name| Ok(grants | section.chosen("grants", name, &GRANTS)?))
}

fn ports(section: &Section<'_>) -> Result<Ports, SettingsError> {
    section.only_keys(&["name", "first", "count"])?;
    let first = section.integer("first", 0..=0xffff)?;
    let first = section.required("first", first)?;
    let count = section.integer("count", 1..=0x1_0000 - first)?;
    let count = section.required("count", count)?;
    Ok(Ports { name: name(section, "name")?, first: first as u16, count: count as u32 })
}

fn device_memory(section: &Section<'_>) -> Result<DeviceMemory, SettingsError> {
    section.only_keys(&["name", "address", "size"])?;
    // TOML's numbers end there, as do the physical addresses of every processor.
    let address = section.integer("address", 0..=1 << 52)?;
    let address = section.required("address", address)?;
    if !address.is_multiple_of(PAGE_SIZE) {
        return Err(section.error("address", "is no multiple of 0x1000: give the address of a page".into()));
    }
    let size = memory(section, "size")?;
    let size = section.required("size", size)?;
    Ok(DeviceMemory { name: name(section, "name")?, address, size })
}

fn interrupt(section: &Section<'_>) -> Result<Interrupt, SettingsError> {
    section.only_keys(&["name", "number", "trigger", "polarity"])?;
    let number = section.integer("number", 0..=u64::from(u32::MAX))?;
    let number = section.required("number", number)?;
    Ok(Interrupt {
        name: name(section, "name")?,
        number: number as u32,
        level: section.choice("trigger", &[("edge", false), ("level", true)])?.unwrap_or(false),
        active_low: section.choice("polarity", &[("high", false), ("low", true)])?.unwrap_or(false),
    })
}

fn pci(section: &Section<'_>) -> Result<PciFunctions, SettingsError> {
    section.only_keys(&["name", "vendor", "device"])?;
    // 0xffff is what reads where no function is.
    let number = |key| {
        let number = section.integer(key, 0..=0xfffe)?;
        section.required(key, number)
    };
    Ok(PciFunctions {
        name: name(section, "name")?,
        vendor: number("vendor")? as u16,
        device: number("device")? as u16,
    })
}
