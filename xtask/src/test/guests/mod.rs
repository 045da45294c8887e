//! The stages that boot Linux guests, as `run` does, and see what they do.
//!
//! [`scenario`] is the table of guests, [`tables`] are their devices, [`console`] takes down what they print and answers what they ask, [`judge`] reads
//! it, [`messages`] finds kernel messages that tell of trouble, [`direct`] learns which of those mean nothing. [`outside`] is
//! what guests reach there, [`echo`] a part of it, [`media`] what their disks are in; [`power_cut`] takes the power from one. [`host`]
//! boots them. [`bare`] are the guests without an operating system. [`run_status`] tests the exit status of `run` itself,
//! [`run_access`] what its user has of it.

pub mod bare;
pub mod console;
pub mod direct;
pub mod echo;
pub mod host;
pub mod judge;
pub mod media;
pub mod messages;
pub mod outside;
pub mod power_cut;
pub mod run_access;
pub mod run_status;
pub mod scenario;
pub mod tables;

use std::{fs, iter, path::Path};

use anyhow::{Context, Result};
use dragonfly_machine_file::MachineFile;

use self::{
    console::Consoles,
    direct::DirectBoots,
    host::GuestHost,
    media::Media,
    messages::KnownMessages,
    outside::{Outside, Ports},
    scenario::{INITRD, KERNEL, LinuxGuest, Scenario, System},
};
use super::{card, report::StageResult};
use crate::{
    cli::Emulator,
    emulator::Machine,
    guest::{description::Guest, devices, disk, initramfs, stream::GuestEnd},
};

/// Everything that a stage with Linux guests needs to know.
#[derive(Debug)]
pub struct GuestStage<'a> {
    /// Boots them.
    pub host: GuestHost<'a>,
    /// The guests, and what they are to do.
    pub scenario: &'a Scenario,
    /// What kernels say on an emulator.
    pub direct: &'a DirectBoots,
}

impl GuestStage<'_> {
    /// Boots and judges.
    ///
    /// # Errors
    /// Fails when something cannot be had or built, or an emulator does not start.
    pub fn run(&self) -> Result<StageResult> {
        let Scenario { emulator, cpus, guests: plans, bare, at_most_s, card_restarts, has_echo, has_media } =
            *self.scenario;
        let outside = has_echo.then(|| Outside::start(self.host.tools)).transpose()?;
        let ports = outside.as_ref().map(Outside::ports);
        let media = has_media.then(Media::new).transpose()?;
        let folder = media.as_ref().map_or(Path::new(""), Media::folder);
        let fill = |text: &str| match &media {
            Some(media) => media.fill(&card::program(self.host.tools, self.host.project)?, text),
            None => Ok(()),
        };
        let guests = plans.iter().map(|plan| self.guest(plan, ports, folder, fill));
        let mut guests = guests.collect::<Result<Vec<_>>>()?;
        guests.extend(bare.iter().map(|plan| bare::guest(&self.host, plan)).collect::<Result<Vec<_>>>()?);
        let machine = Machine::new(emulator, cpus);
        let mut consoles = Consoles::new(plans.iter().map(|plan| plan.boots).chain(bare.iter().map(|_| 1)));
        for (number, (plan, guest)) in plans.iter().zip(&guests).enumerate() {
            // One that has devices leaves a CPU to the card.
            let places = cpus - u32::from(guest.machine.card_devices().is_some());
            consoles = consoles.with_places(number, plan.vcpus as u8, places as u8);
        }
        for (number, (_, guest)) in plans.iter().zip(&guests).enumerate().filter(|(_, (plan, _))| plan.has_rules) {
            let forbids = guest.text.replace(&tables::hundred_rules(true), &tables::hundred_rules(false));
            // Some ask for the first again, should it be lost with a card.
            let lost = iter::repeat_n(forbids.clone(), if card_restarts > 0 { 2 } else { 0 });
            consoles = consoles.with_changes(number, [forbids].into_iter().chain(lost).chain([guest.text.clone()]));
        }
        // Nothing comes of a guest that has failed, and the others may wait for it until the time is up.
        let has_failed = |consoles: &Consoles| {
            let mut guests = plans.iter().zip(&consoles.guests).filter(|(plan, _)| plan.script.ends_well());
            guests.any(|(_, console)| console.has_failed())
        };
        let booted = self.host.boot(machine, [], at_most_s, &guests, consoles, has_failed)?;
        let all_end_well = plans
            .iter()
            .map(|plan| plan.script.end())
            .chain(bare.iter().map(|plan| plan.end))
            .all(|end| end == GuestEnd::PoweredOff);
        let mut outcomes = vec![booted.judge_host(all_end_well)];
        outcomes.extend((card_restarts > 0).then(|| booted.judge_card(card_restarts)));
        outcomes.extend((!bare.is_empty()).then(|| booted.judge_log()));
        outcomes.extend(media.as_ref().map(Media::judge).transpose()?);
        let mut notes = Vec::new();
        let mut printed = Vec::new();
        for (plan, console) in plans.iter().zip(&booted.consoles.guests) {
            let known = if plan.script.shows_messages() {
                self.direct.messages(self.host.tools, self.host.project, plan.linux, emulator)?
            } else {
                KnownMessages::default()
            };
            // Bochs counts its instructions, whatever time they take.
            outcomes.extend(judge::judge(plan, console, &known, emulator == Emulator::Qemu));
            outcomes.extend(booted.judge_moves(plan.name, console));
            let start = judge::start_s(console);
            notes.extend(start.map(|seconds| format!("{}: first program after {seconds} s", plan.name)));
            let lines = console.lines.iter();
            printed.extend(lines.map(|line| format!("{:9.3} {}: {}", line.at.as_secs_f64(), plan.name, line.text)));
        }
        for (plan, console) in bare.iter().zip(booted.consoles.guests.iter().skip(plans.len())) {
            outcomes.extend(bare::judge(plan, console));
            printed.extend(console.texts().map(|line| format!("{}: {line}", plan.machine)));
        }
        self.host.finish(&booted, outcomes, notes, printed)
    }

    /// A guest whose machine file has its paths in `folder`; `prepare` puts there what the file, which it is given, names.
    fn guest(
        &self,
        plan: &LinuxGuest,
        ports: Option<Ports>,
        folder: &Path,
        prepare: impl FnOnce(&str) -> Result<()>,
    ) -> Result<Guest> {
        let tools = self.host.tools;
        let linux = tools.guest_kernel(plan.linux)?;
        let kernel = fs::read(&linux.image).with_context(|| format!("cannot read {}", linux.image.display()))?;
        let image = if plan.system == System::Disk { Some(disk::ensure(tools)?.image) } else { None };
        let text = plan.machine_file(image.as_deref(), ports);
        let machine = MachineFile::parse(plan.name, &text)?;
        let (busybox, root) = (tools.busybox()?, &self.host.project.root);
        let initrd = if machine.card_devices().is_some() {
            initramfs::build_with_devices(&busybox, &linux, root)?
        } else {
            initramfs::build(&busybox, root)?
        };
        let mut files = vec![(KERNEL.into(), kernel), (INITRD.into(), initrd)];
        prepare(&text)?;
        let mut devices = devices::read(plan.name, &text, folder, &mut files)?;
        // The cache's image is for everybody.
        let shared = devices.images.iter_mut().filter(|shared| Some(&shared.path) == image.as_ref());
        shared.for_each(|shared| shared.is_kept = false);
        Ok(Guest { machine, text, files, source: None, devices })
    }
}
