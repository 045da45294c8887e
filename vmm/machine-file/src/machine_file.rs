//! What a machine file says, checked.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use dragonfly_abi::{MAX_CPUS, PAGE_SIZE, PRIORITIES};
use dragonfly_settings::{Budget, Document, Section, SettingsError};

/// The most vCPUs of a machine.
pub const MAX_VCPUS: u32 = 32;

/// The least memory of a machine, in bytes.
pub const MIN_MEMORY: u64 = 64 << 20;

/// More memory than any processor addresses (SDM 3A 4.1.4: 52 bits of physical address).
const MAX_MEMORY: u64 = 1 << 51;

/// Frequencies of a time-stamp counter: more than any processor has had, either way.
const TSC_KHZ: RangeInclusive<u64> = 100_000..=20_000_000;

const DEFAULT_MEMORY: u64 = 256 << 20;
const DEFAULT_PRIORITY: u64 = 16;

/// The most devices of the offload card that a machine has, in all: there are 31 places for them on its PCI bus.
pub const MAX_DEVICES: u32 = 31;

const KEYS: [&str; 19] = [
    "name",
    "vcpus",
    "memory",
    "kernel",
    "initrd",
    "cmdline",
    "cpus",
    "priority",
    "budget_us",
    "period_us",
    "tsc_khz",
    "on_reboot",
    CONSOLE,
    DISK,
    NET,
    POOL,
    RNG,
    RULE,
    VSOCK,
];

/// Tables of the offload card, whose keys it reads by itself.
const CONSOLE: &str = "console";
const DISK: &str = "disk";
const NET: &str = "net";
const POOL: &str = "pool";
const RNG: &str = "rng";
const RULE: &str = "rule";
const VSOCK: &str = "vsock";

/// What to do when the guest asks for a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReboot {
    /// Start the machine anew.
    #[default]
    Reboot,
    /// End it as if the guest had switched it off.
    PowerOff,
}

/// What a machine file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFile {
    /// The guest's name, for people.
    pub name: String,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Memory in bytes, [`MIN_MEMORY`] at least and a multiple of the page size.
    pub memory: u64,
    /// Path of the kernel: a Linux bzImage, a PVH ELF file or a Multiboot 1 ELF file.
    pub kernel: String,
    /// Path of the initial RAM disk.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// CPUs of the vCPUs' threads: vCPU N runs on CPU `cpus[N % cpus.len()]`. Empty if the VMM may choose.
    pub cpus: Vec<u32>,
    /// Priority of the vCPUs' threads.
    pub priority: u8,
    /// Time that each vCPU's thread may run; `None` for as much as its priority gives it.
    pub budget: Option<Budget>,
    /// Frequency of the guest's time-stamp counter in kHz; `None` for the host's.
    pub tsc_khz: Option<u32>,
    /// What to do when the guest asks for a reboot.
    pub on_reboot: OnReboot,
    /// Number of tables `[[disk]]`: what is in them is for the offload card to read.
    pub disks: u32,
    /// Number of tables `[[net]]`, likewise.
    pub nets: u32,
    /// Number of tables `[[rng]]`, likewise.
    pub rngs: u32,
    /// Number of tables `[[vsock]]`, likewise.
    pub vsocks: u32,
    /// Number of tables `[[console]]`, likewise.
    pub consoles: u32,
    file: String,
    /// The line of each of [`KEYS`].
    lines: Vec<usize>,
}

impl MachineFile {
    /// Reads and checks the text of a machine file; errors call it `file`.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(file: &str, text: &str) -> Result<Self, SettingsError> {
        let document = Document::parse(file, text)?;
        let top = document.top();
        top.only_keys(&KEYS)?;
        let [disks, nets, rngs, vsocks, consoles] = devices(&top)?;
        Ok(Self {
            name: top.name("name")?,
            vcpus: top.integer("vcpus", 1..=u64::from(MAX_VCPUS))?.unwrap_or(1) as u32,
            memory: memory(&top)?,
            kernel: path(&top, "kernel")?.map_or_else(|| top.required("kernel", None), Ok)?,
            initrd: path(&top, "initrd")?,
            cmdline: command_line(&top)?,
            cpus: top.integers("cpus", 0..=MAX_CPUS as u64 - 1)?.iter().map(|cpu| *cpu as u32).collect(),
            priority: top.integer("priority", 0..=u64::from(PRIORITIES) - 1)?.unwrap_or(DEFAULT_PRIORITY) as u8,
            budget: top.budget()?,
            tsc_khz: top.integer("tsc_khz", TSC_KHZ)?.map(|khz| khz as u32),
            on_reboot: on_reboot(&top)?,
            disks,
            nets,
            rngs,
            vsocks,
            consoles,
            file: file.into(),
            lines: KEYS.iter().map(|key| top.error(key, String::new()).line).collect(),
        })
    }

    /// The key of the first kind of devices that the offload card is to serve, and how many devices it has to serve in all; `None`
    /// if the machine has none.
    #[must_use]
    pub fn card_devices(&self) -> Option<(&'static str, u32)> {
        let counts = self.counts();
        let (key, _) = counts.into_iter().find(|(_, count)| *count > 0)?;
        Some((key, counts.iter().map(|(_, count)| count).sum()))
    }

    const fn counts(&self) -> [(&'static str, u32); 5] {
        [(DISK, self.disks), (NET, self.nets), (RNG, self.rngs), (VSOCK, self.vsocks), (CONSOLE, self.consoles)]
    }

    /// A fault that shows only later, in what the value of `key` refers to.
    ///
    /// `message` goes on after the key's name: it says what is wrong, and what to do about it.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> SettingsError {
        let line = KEYS.iter().zip(&self.lines).find(|(known, _)| **known == key).map_or(1, |(_, line)| *line);
        SettingsError { file: self.file.clone(), line, key: Some(key.into()), message: message.into() }
    }
}

fn memory(top: &Section<'_>) -> Result<u64, SettingsError> {
    let Some(size) = top.size("memory")? else { return Ok(DEFAULT_MEMORY) };
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&size) {
        let (least, most) = (MIN_MEMORY >> 20, MAX_MEMORY >> 30);
        return Err(top.error("memory", format!("is out of range: give {least}MiB to {most}GiB")));
    }
    if !size.is_multiple_of(PAGE_SIZE) {
        return Err(top.error("memory", "is no multiple of 4KiB: round it up".into()));
    }
    Ok(size)
}

fn path(top: &Section<'_>, key: &str) -> Result<Option<String>, SettingsError> {
    let path = top.string(key)?;
    if path.as_deref().is_some_and(|path| path.is_empty() || path.chars().any(char::is_control)) {
        return Err(top.error(key, "is no path: give that of a file".into()));
    }
    Ok(path)
}

fn command_line(top: &Section<'_>) -> Result<String, SettingsError> {
    let text = top.string("cmdline")?.unwrap_or_default();
    if text.chars().any(char::is_control) {
        return Err(top.error("cmdline", "has control characters: separate words by blanks".into()));
    }
    Ok(text)
}

/// How many devices there are of each kind.
fn devices(top: &Section<'_>) -> Result<[u32; 5], SettingsError> {
    top.tables(POOL)?;
    top.tables(RULE)?;
    let mut counts = [0; 5];
    let mut all: u32 = 0;
    for (key, count) in [DISK, NET, RNG, VSOCK, CONSOLE].into_iter().zip(&mut counts) {
        *count = u32::try_from(top.tables(key)?.len()).unwrap_or(u32::MAX);
        all = all.saturating_add(*count);
        if all > MAX_DEVICES {
            let message = format!("makes {all} devices with those before: give {MAX_DEVICES} devices at most");
            return Err(top.error(key, message));
        }
    }
    Ok(counts)
}

fn on_reboot(top: &Section<'_>) -> Result<OnReboot, SettingsError> {
    let choices = [("reboot", OnReboot::Reboot), ("power-off", OnReboot::PowerOff)];
    Ok(top.choice("on_reboot", &choices)?.unwrap_or_default())
}
