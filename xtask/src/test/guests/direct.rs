//! Kernels directly on the emulator, to learn what they say there.

use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::messages::KnownMessages;
use crate::{
    build::{Project, iso},
    cli::Emulator,
    emulator::{self, End, Limits, Machine, Watcher},
    guest::initramfs,
    tools::{Tools, guests::GuestLinux},
};

/// What the kernels say, learnt once for each.
#[derive(Debug, Default)]
pub struct DirectBoots {
    known: Mutex<HashMap<String, KnownMessages>>,
}

impl DirectBoots {
    /// The messages that `linux` prints directly on `emulator`.
    ///
    /// They are kept in the build folder: that kernel on that CPU always says the same.
    ///
    /// # Errors
    /// Fails when the kernel cannot be had, or does not come up.
    pub fn messages(
        &self,
        tools: &Tools,
        project: &Project,
        linux: GuestLinux,
        emulator: Emulator,
    ) -> Result<KnownMessages> {
        let kernel = tools.guest_kernel(linux)?;
        let version = match emulator {
            Emulator::Qemu => tools.qemu()?.program.version,
            Emulator::Bochs => tools.bochs()?.program.version,
        };
        let key = format!("{}-{}-{}-{version}", kernel.release, kernel.version, emulator.word());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(messages) = known.get(&key) {
            return Ok(messages.clone());
        }
        let path = project.build_folder("guests")?.join(format!("messages-{key}.txt"));
        let messages = match fs::read_to_string(&path) {
            Ok(text) => KnownMessages::from_text(&text),
            Err(_) => {
                let bytes =
                    fs::read(&kernel.image).with_context(|| format!("cannot read {}", kernel.image.display()))?;
                let initrd = initramfs::build(&tools.busybox()?, &project.root)?;
                let messages = listen(tools, project, bytes, initrd, emulator)
                    .with_context(|| format!("Linux {} directly on {}", kernel.release, emulator.word()))?;
                fs::write(&path, messages.to_text()).with_context(|| format!("cannot write {}", path.display()))?;
                messages
            }
        };
        known.insert(key, messages.clone());
        Ok(messages)
    }
}

fn listen(
    tools: &Tools,
    project: &Project,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    emulator: Emulator,
) -> Result<KnownMessages> {
    const COMMAND_LINE: &str = "console=ttyS0 quiet df.run=boot";
    // Bochs' IA32_MISC_ENABLE has fast strings off, so Linux forgets ERMS, but not FSRM (word 18, bit 4 of its features).
    // Linux 6.1's memmove then takes short moves for long ones, and overwrites the kernel.
    const WITHOUT_FSRM: &str = " clearcpuid=580";
    const LIMITS: Limits = Limits { total: Some(Duration::from_secs(900)), silence: Some(Duration::from_secs(180)) };
    let words = match emulator {
        Emulator::Qemu => COMMAND_LINE.to_owned(),
        Emulator::Bochs => format!("{COMMAND_LINE}{WITHOUT_FSRM}"),
    };
    let image = iso::make_linux(project, &tools.iso()?, kernel, initrd, &words)?;
    let boot = emulator::boot(tools, &Machine::new(emulator, 1), &image, LIMITS, &mut Silent)?;
    let came_up = boot.log.iter().any(|line| line.contains("[linux] pass boot"));
    // It powers the machine off without a word to the host.
    ensure!(came_up && boot.end == End::Died, "{}, after: {}", boot.end, boot.log.last().map_or("", String::as_str));
    Ok(KnownMessages::of(boot.log.iter().map(String::as_str)))
}

struct Silent;

impl Watcher for Silent {}
