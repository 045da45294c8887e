//! What `bundle.toml` says, checked.

use alloc::string::String;
use alloc::vec::Vec;

use bitflags::bitflags;
use dragonfly_settings::{Budget, Document, Section, SettingsError};

use crate::bundle::PLAN_NAME;
use crate::check;

/// The most domains that a bundle may have: the supervisor has one bit of a notification for each.
pub const MAX_DOMAINS: usize = 64;

/// What to do when all essential domains have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFinish {
    /// Stop the machine.
    #[default]
    PowerOff,
    /// Leave it running, with the domains that are left.
    Wait,
}

bitflags! {
    /// What a domain may do beside using what it has.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Grants: u8 {
        /// Write to the kernel's log.
        const LOG = 1 << 0;
        /// Ask for the machine's figures.
        const FIGURES = 1 << 1;
        /// Make device objects: any port, interrupt and device memory.
        const DEVICES = 1 << 2;
        /// Read the bundle.
        const BUNDLE = 1 << 3;
        /// Stop the machine.
        const SHUTDOWN = 1 << 4;
        /// Let devices read and write memory of its own by themselves.
        const DMA = 1 << 5;
    }
}

/// A range of I/O ports that a domain is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Name of the handle.
    pub name: String,
    /// The first port.
    pub first: u16,
    /// How many.
    pub count: u32,
}

/// Device registers that a domain is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Name of the handle.
    pub name: String,
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// An interrupt line that a domain is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Name of the handle.
    pub name: String,
    /// Its number: ACPI's global system interrupt.
    pub number: u32,
    /// Whether its level is the interrupt, and not a change.
    pub level: bool,
    /// Whether the low level is the active one.
    pub active_low: bool,
}

/// PCI functions that a domain is given: all of a kind that no earlier table took, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunctions {
    /// What the names of their handles begin with: a number follows, counted from 0.
    pub name: String,
    /// Their vendor.
    pub vendor: u16,
    /// Their device.
    pub device: u16,
}

/// A domain to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainPlan {
    /// The line of `bundle.toml` where it begins.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Name of its program in the archive.
    pub program: String,
    /// Its arguments.
    pub arguments: String,
    /// Whether the words of the kernel's command line are added to them.
    pub command_line: bool,
    /// Memory that it may use, in bytes.
    pub memory: u64,
    /// Priority of its first thread.
    pub priority: u8,
    /// The highest priority of its threads.
    pub max_priority: u8,
    /// Time that its first thread may run; `None` for all of its CPU.
    pub budget: Option<Budget>,
    /// The CPU of its first thread.
    pub cpu: u32,
    /// The CPUs that its threads may run on, one bit each.
    pub cpus: u64,
    /// What it may do.
    pub grants: Grants,
    /// Names of the gates that it receives from.
    pub provide: Vec<String>,
    /// Names of the gates that it sends to.
    pub use_gates: Vec<String>,
    /// Ports that it is given.
    pub ports: Vec<Ports>,
    /// Device memory that it is given.
    pub device_memory: Vec<DeviceMemory>,
    /// Interrupts that it is given.
    pub interrupts: Vec<Interrupt>,
    /// PCI functions that it is given.
    pub pci: Vec<PciFunctions>,
    /// Whether the system has finished only when this domain has.
    pub essential: bool,
    /// How often it is started again after it died.
    pub restarts: u32,
    /// Names of the domains that it may have started anew.
    pub restart: Vec<String>,
    /// Bytes of memory that outlive it for its next start, not counted in `memory`; 0 for none.
    pub keep: u64,
}

/// What `bundle.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do at the end.
    pub on_finish: OnFinish,
    /// What to start, in this order.
    pub domains: Vec<DomainPlan>,
}

impl Plan {
    /// Reads and checks the text of `bundle.toml`.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let document = Document::parse(PLAN_NAME, text)?;
        let document = document.top();
        document.only_keys(&["system", "domain"])?;
        let on_finish = document.table("system")?.map_or(Ok(OnFinish::default()), |system| on_finish(&system))?;
        let sections = document.tables("domain")?;
        let domains = sections.iter().map(crate::domain::decode).collect::<Result<Vec<_>, _>>()?;
        let plan = Self { on_finish, domains };
        check::check(&plan, &document, &sections)?;
        Ok(plan)
    }

    /// The names of the gates that connect domains, each once.
    pub fn gates(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().flat_map(|domain| domain.provide.iter().map(String::as_str))
    }
}

fn on_finish(system: &Section<'_>) -> Result<OnFinish, SettingsError> {
    system.only_keys(&["on_finish"])?;
    Ok(system.choice("on_finish", &[("power-off", OnFinish::PowerOff), ("wait", OnFinish::Wait)])?.unwrap_or_default())
}
