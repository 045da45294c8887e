//! What is measured: traffic, and what the switch has to look at.

use std::fmt::Write as _;

/// What the switch has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The receiver's address.
    None,
    /// A hundred rules, without connections.
    Rules,
    /// The same rules with connection tracking.
    Tracking,
}

/// All of them.
pub const POLICIES: [Policy; 3] = [Policy::None, Policy::Rules, Policy::Tracking];

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The middle of the figure's name.
    pub name: &'static str,
    /// Bytes of a frame.
    pub frame: usize,
    /// Flows in each direction.
    pub flows: u32,
    /// Packed rings.
    pub is_packed: bool,
}

const fn case(name: &'static str, frame: usize, flows: u32, is_packed: bool) -> Case {
    Case { name, frame, flows, is_packed }
}

const PLAIN: [Case; 6] = [
    case("64b", 64, 1, false),
    case("64b_packed", 64, 1, true),
    case("64b_1k", 64, 1_000, false),
    case("64b_100k", 64, 100_000, false),
    case("1518b", 1518, 1, false),
    case("1518b_packed", 1518, 1, true),
];
const RULES: [Case; 3] =
    [case("rules_1", 64, 1, false), case("rules_1k", 64, 1_000, false), case("rules_100k", 64, 100_000, false)];
const TRACKING: [Case; 3] =
    [case("ct_1", 64, 1, false), case("ct_1k", 64, 1_000, false), case("ct_100k", 64, 100_000, false)];

/// Rules that do not match come before the one that does, in each direction.
const OTHERS: u8 = 49;

impl Policy {
    /// What is measured with it.
    pub fn cases(self) -> &'static [Case] {
        match self {
            Self::None => &PLAIN,
            Self::Rules => &RULES,
            Self::Tracking => &TRACKING,
        }
    }

    /// The card's machine file: two devices, and their rules.
    pub fn machine_file(self) -> String {
        let mut text = String::new();
        for (number, name) in [(0, "a"), (1, "b")] {
            let groups = if self == Self::None { "" } else { "groups = [\"all\"]\nconnections = 131072\n" };
            let _ = write!(
                text,
                "[[net]]\nname = \"{name}\"\nsocket = \"{name}.sock\"\nmac = \"02:00:00:00:00:0{number}\"\n\
                 addresses = [\"10.0.0.0/8\"]\n{groups}"
            );
        }
        let action = match self {
            Self::None => return text,
            Self::Rules => "allow-stateless",
            Self::Tracking => "allow",
        };
        for direction in ["out", "in"] {
            let mut rule = |priority: u8, action: &str, remote: &str, ports: &str| {
                let _ = write!(
                    text,
                    "[[rule]]\ngroup = \"all\"\npriority = {priority}\ndirection = \"{direction}\"\n\
                     action = \"{action}\"\nprotocol = \"udp\"\nremote = \"{remote}\"\n{ports}"
                );
            };
            for number in 0..OTHERS {
                rule(number, "deny", &other_net(number), &format!("ports = \"{number}\"\n"));
            }
            rule(100, action, "10.0.0.0/16", "");
        }
        text
    }

    /// The same as flows of OpenFlow. The switch learns addresses in any case.
    pub fn openflow(self) -> String {
        let (table, state) = match self {
            Self::None => return "actions=NORMAL\n".into(),
            Self::Rules => (0, ""),
            Self::Tracking => (1, "ct_state=+trk+new,"),
        };
        let mut text = String::from("table=0,priority=1,actions=NORMAL\n");
        if self == Self::Tracking {
            text.push_str("table=0,priority=9,ip,ct_state=-trk,actions=ct(table=1)\n");
            text.push_str("table=1,priority=900,ip,ct_state=+trk+est,actions=NORMAL\n");
        }
        for side in ["nw_dst", "nw_src"] {
            for number in 0..OTHERS {
                let priority = 800 - u32::from(number);
                let net = other_net(number);
                let _ = writeln!(
                    text,
                    "table={table},priority={priority},{state}udp,{side}={net},tp_dst={number},actions=drop"
                );
            }
        }
        let commit = if self == Self::Tracking { "ct(commit)," } else { "" };
        let _ = writeln!(text, "table={table},priority=500,{state}udp,nw_src=10.0.0.0/16,actions={commit}NORMAL");
        let _ = writeln!(text, "table={table},priority=400,ip,actions=drop");
        text
    }
}

fn other_net(number: u8) -> String {
    format!("10.{}.0.0/16", 100 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_a_hundred_rules() {
        for policy in [Policy::Rules, Policy::Tracking] {
            assert_eq!(policy.machine_file().matches("[[rule]]").count(), 100);
            assert_eq!(policy.openflow().matches("actions=drop").count(), 99);
        }
    }
}
