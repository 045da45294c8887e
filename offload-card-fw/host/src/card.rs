//! All devices of a machine file, and the threads that serve them.

use std::{
    io,
    path::PathBuf,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use dragonfly_card_devices::{
    Cables, ConsoleDevice, Control as NetControl, DiskDevice, Fabric, NetDevice, RemoteDisk, RemoteToken, RngDevice,
    Serve, SocketGuest, SocketHub, VsockDevice,
    tables::{Console, Disk, Medium},
};
use dragonfly_storage::nbd::Client;
use dragonfly_vswitch::{PortId, policy::GroupId};
use log::error;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{
    consoles::HostPorts,
    control::Control,
    disk::Opener,
    entropy::SystemEntropy,
    machine::Machine,
    orders::{Orders, orders},
    port::Port,
    remote::{self, Link},
    rules::Rules,
    sockets::HostSockets,
    uplink::Uplink,
    worker::{Outside, StopSignal, Worker},
};

/// What a thread has beside the devices that it serves.
struct Surroundings<S> {
    shared: S,
    orders: Option<Orders<S>>,
    outside: Option<Box<dyn Outside<S>>>,
}

impl<S> Surroundings<S> {
    fn none(shared: S) -> Self {
        Self { shared, orders: None, outside: None }
    }
}

/// A running card.
#[derive(Debug)]
pub struct Card {
    stop: StopSignal,
    threads: Vec<JoinHandle<io::Result<()>>>,
    rules: Option<Rules>,
}

impl Card {
    /// Opens what the machine file names and checks it, without serving it.
    ///
    /// # Errors
    /// Something cannot be used.
    pub fn check(machine: &Machine) -> Result<()> {
        let mut opener = Opener::new(&machine.devices, &machine.folder);
        machine.devices.disks.iter().try_for_each(|disk| open(disk, &mut opener, machine).map(drop))?;
        sockets(machine)?;
        consoles(machine)?;
        let Network { mut fabric, .. } = network(machine)?;
        Uplink::open(&machine.outside, &mut fabric).map(drop)
    }

    /// Opens everything, makes the sockets and serves them: each disk by a thread of its own, the network devices and the
    /// switch between them by one, the sources of random numbers by another, the guests' sockets and
    /// the consoles by one more each. Rings are polled for as long as `poll` after the last work. The card ends when `stop`
    /// says so.
    ///
    /// # Errors
    /// Something cannot be used; then nothing is served.
    pub fn start(machine: &Machine, poll: Duration, stop: StopSignal) -> Result<Self> {
        // Everything is opened before anything is served.
        let mut opener = Opener::new(&machine.devices, &machine.folder);
        let mut disks = Vec::new();
        for (disk, socket) in machine.devices.disks.iter().zip(&machine.disk_sockets) {
            disks.push((&disk.name, open(disk, &mut opener, machine)?, socket));
        }
        let Network { mut fabric, ports: numbers, first_group } = network(machine)?;
        let uplink = Uplink::open(&machine.outside, &mut fabric)?;
        let control = machine.control.as_ref().map(|path| Control::listen(path, opener.stores())).transpose()?;
        let mut card = Self { stop, threads: Vec::new(), rules: None };
        if let Some(control) = control {
            let stop = card.stop.clone();
            card.spawn("control", move || control.serve(&stop))?;
        }
        for (name, device, socket) in disks {
            match device {
                Opened::Here(device) => {
                    card.serve(name, vec![Port::listen(*device, socket)?], Surroundings::none(()), poll)?;
                }
                Opened::Remote(parts) => {
                    let (device, client, link) = *parts;
                    let surroundings =
                        Surroundings { shared: client, orders: None, outside: Some(Box::new(link) as _) };
                    card.serve(name, vec![Port::listen(device, socket)?], surroundings, poll)?;
                }
            }
        }
        let mut ports = Vec::new();
        for ((net, number), socket) in machine.devices.nets.iter().zip(numbers).zip(&machine.net_sockets) {
            ports.push(Port::listen(NetDevice::new(net, number, NetControl::FrontEnd), socket)?);
        }
        if !ports.is_empty() {
            let (counter, orders) = orders().context("cannot make an event")?;
            card.rules = Some(Rules::new(machine.devices.clone(), first_group, counter));
            let outside = uplink.map(|uplink| Box::new(uplink) as Box<dyn Outside<Fabric>>);
            card.serve("switch", ports, Surroundings { shared: fabric, orders: Some(orders), outside }, poll)?;
        }
        let mut ports = Vec::new();
        for (rng, socket) in machine.devices.rngs.iter().zip(&machine.rng_sockets) {
            ports.push(Port::listen(RngDevice::new(rng, Box::new(SystemEntropy)), socket)?);
        }
        if !ports.is_empty() {
            // Nobody waits long for random numbers, and nothing is gained by polling for those who do.
            card.serve("random", ports, Surroundings::none(()), Duration::ZERO)?;
        }
        let Sockets { mut hub, devices, guests } = sockets(machine)?;
        let host = HostSockets::listen(&guests, &mut hub)?;
        let ports = devices.into_iter().zip(&machine.vsock_sockets);
        let ports = ports.map(|(device, socket)| Port::listen(device, socket)).collect::<Result<Vec<_>>>()?;
        if !ports.is_empty() {
            let outside = host.map(|host| Box::new(host) as Box<dyn Outside<SocketHub>>);
            card.serve("sockets", ports, Surroundings { shared: hub, orders: None, outside }, poll)?;
        }
        let (mut cables, devices) = consoles(machine)?;
        let host = HostPorts::listen(&machine.port_sockets, &mut cables)?;
        let ports = devices.into_iter().zip(&machine.console_sockets);
        let ports = ports.map(|(device, socket)| Port::listen(device, socket)).collect::<Result<Vec<_>>>()?;
        if !ports.is_empty() {
            let outside = host.map(|host| Box::new(host) as Box<dyn Outside<Cables>>);
            card.serve("consoles", ports, Surroundings { shared: cables, orders: None, outside }, Duration::ZERO)?;
        }
        Ok(card)
    }

    /// What changes the rules of its switch; for whoever asks first.
    #[must_use]
    pub fn take_rules(&mut self) -> Option<Rules> {
        self.rules.take()
    }

    fn serve<D>(
        &mut self,
        name: &str,
        ports: Vec<Port<D>>,
        surroundings: Surroundings<D::Shared>,
        poll: Duration,
    ) -> Result<()>
    where
        D: Serve + Send + 'static,
        D::Shared: Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, move || {
            let Surroundings { shared, orders, outside } = surroundings;
            let mut worker = Worker::new(ports, shared, poll, &stop)?;
            if let Some(orders) = orders {
                worker = worker.with_orders(orders)?;
            }
            if let Some(outside) = outside {
                worker = worker.with_outside(outside)?;
            }
            worker.run()
        })
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
        let stop = self.stop.clone();
        // At once, as nobody may be waiting for this thread yet.
        let work = move || work().inspect_err(|_| stop.stop());
        let builder = thread::Builder::new().name(name.into());
        self.threads.push(builder.spawn(work).context("cannot start a thread")?);
        Ok(())
    }

    /// Waits until the card has ended, which it does when it is told to.
    ///
    /// # Errors
    /// A thread failed, which has told the others to end.
    pub fn wait(mut self) -> Result<()> {
        let mut outcome = Ok(());
        for thread in std::mem::take(&mut self.threads) {
            let name = thread.thread().name().unwrap_or_default().to_string();
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    error!("{name}: {failure}");
                    outcome = Err(anyhow::Error::from(failure).context(name));
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcome
    }
}

/// A disk that is open.
enum Opened {
    Here(Box<DiskDevice>),
    /// With what reaches the server that it is at.
    Remote(Box<(RemoteDisk, Client<RemoteToken>, Link)>),
}

fn open(disk: &Disk, opener: &mut Opener<'_>, machine: &Machine) -> Result<Opened> {
    let Medium::Nbd(address) = &disk.medium else { return opener.open(disk).map(Box::new).map(Opened::Here) };
    let parts = remote::open(disk, address, &machine.folder).with_context(|| format!("disk {}", disk.name))?;
    Ok(Opened::Remote(Box::new(parts)))
}

/// The switch, and what of it belongs to the machine.
struct Network {
    fabric: Fabric,
    /// Of its network devices.
    ports: Vec<PortId>,
    /// Of its security groups.
    first_group: GroupId,
}

fn network(machine: &Machine) -> Result<Network> {
    let mut seed = [0; 8];
    getrandom(&mut seed, GetRandomFlags::empty()).context("cannot get random numbers")?;
    let mut fabric = Fabric::new(u64::from_ne_bytes(seed));
    let first_group = fabric.next_group();
    let ports = fabric.add_machine(&machine.devices)?;
    Ok(Network { fabric, ports, first_group })
}

/// The connections between the guests' sockets, and whose they are.
struct Sockets {
    hub: SocketHub,
    devices: Vec<VsockDevice>,
    /// The guests that programs of the host reach, and where.
    guests: Vec<(SocketGuest, PathBuf)>,
}

fn sockets(machine: &Machine) -> Result<Sockets> {
    let mut all = Sockets { hub: SocketHub::default(), devices: Vec::new(), guests: Vec::new() };
    for (vsock, host_socket) in machine.devices.vsocks.iter().zip(&machine.host_sockets) {
        // A machine file without it is refused.
        let guest = all.hub.add(vsock, vsock.cid.unwrap_or_default()).with_context(|| vsock.name.clone())?;
        all.devices.push(VsockDevice::new(vsock, guest, &all.hub));
        all.guests.extend(host_socket.clone().map(|path| (guest, path)));
    }
    Ok(all)
}

/// The consoles, and the connections between their ports.
fn consoles(machine: &Machine) -> Result<(Cables, Vec<ConsoleDevice>)> {
    let mut cables = Cables::default();
    let device = |console: &Console| ConsoleDevice::new(console, &mut cables).with_context(|| console.name.clone());
    let devices = machine.devices.consoles.iter().map(device).collect::<Result<_>>()?;
    Ok((cables, devices))
}

impl Drop for Card {
    /// A card that is not waited for ends, sockets and all.
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            // Whoever did not wait does not ask.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Poller, Token};

    #[test]
    fn a_thread_that_fails_ends_those_that_are_waited_for_before_it() {
        let mut card = Card { stop: StopSignal::new().unwrap(), threads: Vec::new(), rules: None };
        let stop = card.stop.clone();
        let (told, is_told) = std::sync::mpsc::channel();
        card.spawn("first", move || {
            let mut poller = Poller::new()?;
            stop.register(&poller)?;
            let mut tokens = poller.wait(Some(Duration::from_secs(20)))?;
            told.send(tokens.next() == Some(Token::Stop)).unwrap();
            Ok(())
        })
        .unwrap();
        card.spawn("second", || Err(io::Error::other("no room"))).unwrap();
        assert_eq!(format!("{:#}", card.wait().unwrap_err()), "second: no room");
        assert_eq!(is_told.recv(), Ok(true));
    }
}
