//! A `[[rule]]` table: a line of a security group.

use alloc::{format, string::String};

use dragonfly_settings::{Section, SettingsError};
use dragonfly_vswitch::{
    Prefix,
    policy::{Action, Direction, Ports, Rule, Service},
};

use super::address;

/// Rules without a number come after those with a low one, and before those with a high one.
const DEFAULT_PRIORITY: u16 = 1000;

const KEYS: &[&str] = &["group", "priority", "direction", "action", "protocol", "ports", "remote"];

/// What a rule's protocol is, without its ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Any,
    Tcp,
    Udp,
    Icmp,
}

/// A rule and the name of its group.
pub(super) fn read(section: &Section<'_>) -> Result<(String, Rule), SettingsError> {
    section.only_keys(KEYS)?;
    let directions = [("out", Direction::Egress), ("in", Direction::Ingress)];
    let actions = [("allow", Action::Allow), ("deny", Action::Deny), ("allow-stateless", Action::AllowStateless)];
    let rule = Rule {
        // In range by this line, so nothing is lost.
        priority: section.integer("priority", 0..=u16::MAX.into())?.map_or(DEFAULT_PRIORITY, |number| number as u16),
        direction: section.required("direction", section.choice("direction", &directions)?)?,
        action: section.required("action", section.choice("action", &actions)?)?,
        remote: remote(section)?,
        service: service(section)?,
    };
    Ok((section.name("group")?, rule))
}

fn remote(section: &Section<'_>) -> Result<Option<Prefix>, SettingsError> {
    let text = section.string("remote")?;
    text.map(|text| address::prefix(&text).ok_or_else(|| address::error(section, "remote", &text))).transpose()
}

fn service(section: &Section<'_>) -> Result<Service, SettingsError> {
    let protocols = [("any", Protocol::Any), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("icmp", Protocol::Icmp)];
    let protocol = section.choice("protocol", &protocols)?.unwrap_or(Protocol::Any);
    let text = section.string("ports")?;
    if text.is_some() && !matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        return Err(section.error("ports", "is given, but only \"tcp\" and \"udp\" have ports: set `protocol`".into()));
    }
    let ports = text.map_or(Ok(Ports::ALL), |text| {
        ports(&text).ok_or_else(|| {
            section.error("ports", format!("is \"{text}\": give a port like \"22\", or a range like \"8000-8080\""))
        })
    })?;
    Ok(match protocol {
        Protocol::Any => Service::Any,
        Protocol::Tcp => Service::Tcp(ports),
        Protocol::Udp => Service::Udp(ports),
        Protocol::Icmp => Service::Icmp(None),
    })
}

fn ports(text: &str) -> Option<Ports> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = Ports { first: first.parse().ok()?, last: last.parse().ok()? };
    (ports.first <= ports.last).then_some(ports)
}
