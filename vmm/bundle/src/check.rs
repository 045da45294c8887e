//! Checks of what one table says against what others say.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_settings::{Section, SettingsError};

use crate::plan::{DomainPlan, MAX_DOMAINS, Plan};

/// Checks the plan; `sections` are the tables of its domains.
pub(crate) fn check(plan: &Plan, document: &Section<'_>, sections: &[Section<'_>]) -> Result<(), SettingsError> {
    if plan.domains.is_empty() {
        return Err(document.error("domain", "is missing: add a [[domain]] table".into()));
    }
    if plan.domains.len() > MAX_DOMAINS {
        let message = format!("is given {} times: at most {MAX_DOMAINS} domains can be started", plan.domains.len());
        return Err(document.error("domain", message));
    }
    if !plan.domains.iter().any(|domain| domain.essential) {
        let message = "has no essential one, so that the system would finish at once: remove an `essential = false`";
        return Err(document.error("domain", message.into()));
    }
    for (index, (domain, section)) in plan.domains.iter().zip(sections).enumerate() {
        let earlier = plan.domains.get(..index).unwrap_or_default();
        check_name(domain, earlier, section)?;
        check_gates(domain, plan, earlier, section)?;
        check_handle_names(domain, section)?;
        check_restart(domain, plan, section)?;
    }
    Ok(())
}

/// Whom a domain may have started anew is another domain.
fn check_restart(domain: &DomainPlan, plan: &Plan, section: &Section<'_>) -> Result<(), SettingsError> {
    let is_other = |name: &String| plan.domains.iter().any(|other| other.name != domain.name && other.name == *name);
    match domain.restart.iter().find(|name| !is_other(name)) {
        Some(name) => Err(section.error("restart", format!("has \"{name}\", which is no other domain: name one"))),
        None => Ok(()),
    }
}

fn check_name(domain: &DomainPlan, earlier: &[DomainPlan], section: &Section<'_>) -> Result<(), SettingsError> {
    match earlier.iter().find(|other| other.name == domain.name) {
        Some(other) => {
            let message = format!("is \"{}\", as in line {}: choose another name", domain.name, other.line);
            Err(section.error("name", message))
        }
        None => Ok(()),
    }
}

/// Each gate has one provider, and whoever uses one is another domain.
fn check_gates(
    domain: &DomainPlan,
    plan: &Plan,
    earlier: &[DomainPlan],
    section: &Section<'_>,
) -> Result<(), SettingsError> {
    for name in &domain.provide {
        if let Some(other) = earlier.iter().find(|other| other.provide.contains(name)) {
            let message = format!("has \"{name}\", which \"{}\" provides too: one domain can", other.name);
            return Err(section.error("provide", message));
        }
    }
    for name in &domain.use_gates {
        if domain.provide.contains(name) {
            let message = format!("has \"{name}\", which the domain itself provides: it would wait for itself");
            return Err(section.error("use", message));
        }
        if !plan.gates().any(|gate| gate == name) {
            let message = format!("has \"{name}\", which no domain provides: add it to the `provide` of one");
            return Err(section.error("use", message));
        }
    }
    Ok(())
}

/// All named handles of a domain share one set of names.
fn check_handle_names(domain: &DomainPlan, section: &Section<'_>) -> Result<(), SettingsError> {
    let provide = domain.provide.iter().map(|name| ("provide", name));
    let use_gates = domain.use_gates.iter().map(|name| ("use", name));
    let ports = domain.ports.iter().map(|ports| ("ports", &ports.name));
    let memory = domain.device_memory.iter().map(|memory| ("device_memory", &memory.name));
    let interrupts = domain.interrupts.iter().map(|interrupt| ("interrupts", &interrupt.name));
    let functions = domain.pci.iter().map(|functions| ("pci", &functions.name));
    let mut seen = Vec::new();
    for (key, name) in provide.chain(use_gates).chain(ports).chain(memory).chain(interrupts).chain(functions) {
        if seen.contains(&name) {
            let message = format!("has \"{name}\", which this domain has already: choose another name");
            return Err(section.error(key, message));
        }
        seen.push(name);
    }
    for functions in &domain.pci {
        // What is counted is found under the name with a number.
        let is_counted = |name: &str| {
            name.strip_prefix(functions.name.as_str())
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if let Some(other) = seen.iter().find(|name| is_counted(name)) {
            let message =
                format!("has \"{}\", which with a number could be \"{other}\": choose another name", functions.name);
            return Err(section.error("pci", message));
        }
    }
    Ok(())
}
