//! The devices of the scenarios' guests: tables of their machine files.

/// A disk of every kind, in what [`media`](super::media) makes, a network and a source of random numbers.
pub const ALL: &str = r#"
[[disk]]
name = "ram"
size = "64MiB"

[[disk]]
name = "cipher"
image = "cipher.img"
key_file = "cipher.key"

[[pool]]
name = "pool"
image = "pool.img"

[[disk]]
name = "plain"
pool = "pool"
volume = "plain"

[[disk]]
name = "live"
pool = "pool"
volume = "store"
snapshots = true

[[disk]]
name = "before"
pool = "pool"
volume = "store"
snapshot = "before"

[[disk]]
name = "limited"
size = "8MiB"
iops = 100
iops_burst = 10

[[disk]]
name = "slow"
image = "slow.sock"

[[disk]]
name = "kept"
image = "lines.img"
read_only = true

[[net]]
name = "net"

[[rng]]
name = "random"
bandwidth = "64KiB"
"#;

/// A disk that is an NBD server.
pub const JOURNAL: &str = "[[disk]]\nname = \"data\"\nimage = \"data.sock\"\n";

/// A network.
pub const NET: &str = "[[net]]\nname = \"net\"\n";

/// A network with a pair of queues for each of two vCPUs.
pub const NET_2: &str = "[[net]]\nname = \"net\"\nqueues = 2\n";

/// Those of two guests that may be connected by sockets, where their numbers are 3 and 4, and by ports: this one has a
/// console there.
pub const PEER_WITH_CONSOLE: &str = "[[net]]\nname = \"net\"\n[[vsock]]\nname = \"sockets\"\npeers = [3, 4]\n\
     [[console]]\nname = \"console\"\nports = [\"screen\", \"talk\"]\nterminal = \"screen\"\n";

/// The other one's.
pub const PEER: &str = "[[net]]\nname = \"net\"\n[[vsock]]\nname = \"sockets\"\npeers = [3, 4]\n\
     [[console]]\nname = \"console\"\nports = [\"talk\", \"screen\"]\n";

/// The tables with each network under [`hundred_rules`].
#[must_use]
pub fn under_rules(tables: &str) -> String {
    tables.replace("[[net]]\n", "[[net]]\ngroups = [\"rules\"]\n") + &hundred_rules(true)
}

/// A hundred rules by which the guest of `rules.pl` may do what its script does; whether it may send datagrams to port 5000 is
/// one of them. Whether it may ping the card, 10.0.2.4, is the last one.
#[must_use]
pub fn hundred_rules(allows_datagrams: bool) -> String {
    let datagrams = if allows_datagrams { "allow" } else { "deny" };
    let pings = format!(
        "[[rule]]\ngroup = \"rules\"\ndirection = \"out\"\naction = \"{datagrams}\"\nprotocol = \"icmp\"\n\
         remote = \"10.0.2.4\"\n"
    );
    let needed = [
        ("out", "allow-stateless", "udp", Some(67)),
        ("in", "allow-stateless", "udp", Some(68)),
        ("out", "allow", "udp", Some(53)),
        ("out", "allow", "icmp", None),
        ("in", "allow", "icmp", None),
        ("out", "allow", "tcp", None),
        ("out", datagrams, "udp", Some(5000)),
    ];
    // Others that each of its packets is compared with.
    let others = (10_000..).map(|port| ("out", "deny", "udp", Some(port)));
    let rules = needed.into_iter().chain(others).take(99).map(|(direction, action, protocol, port)| {
        let ports = port.map_or(String::new(), |port| format!("ports = \"{port}\"\n"));
        format!(
            "[[rule]]\ngroup = \"rules\"\ndirection = \"{direction}\"\naction = \"{action}\"\n\
             protocol = \"{protocol}\"\n{ports}"
        )
    });
    rules.chain([pings]).collect()
}

/// As the small system's script has it described.
pub const SMALL: &str =
    "[[disk]]\nname = \"disk\"\nsize = \"64MiB\"\nserial = \"card-test\"\nqueues = 2\n[[net]]\nname = \"net\"\n";

/// A guest of four vCPUs with as many queues as there may be.
pub const QUEUES_8: &str =
    "[[disk]]\nname = \"ram\"\nsize = \"32MiB\"\nqueues = 4\n[[net]]\nname = \"net\"\nqueues = 8\n";

/// One of two vCPUs.
pub const QUEUES_2: &str =
    "[[disk]]\nname = \"ram\"\nsize = \"32MiB\"\nqueues = 2\n[[net]]\nname = \"net\"\nqueues = 2\n";

/// The guest of `guarded.sh`: `caller.pl` has the table of what its groups let pass, and the limits of its disks are
/// those of `disk-limits.pl`.
pub const GUARDED: &str = r#"
[[disk]]
name = "requests"
size = "8MiB"
iops = 100

[[disk]]
name = "bytes"
size = "8MiB"
bandwidth = "1MiB"

[[net]]
name = "net"
groups = ["lease", "services"]

[[rule]]
group = "lease"
direction = "out"
action = "allow-stateless"
protocol = "udp"
ports = "67"

[[rule]]
group = "lease"
direction = "in"
action = "allow-stateless"
protocol = "udp"
ports = "68"

# What callers give their orders by.
[[rule]]
group = "services"
direction = "in"
action = "allow"
protocol = "tcp"
ports = "7000"

[[rule]]
group = "services"
direction = "in"
action = "allow"
protocol = "tcp"
ports = "80"
remote = "10.0.2.16"

[[rule]]
group = "services"
direction = "in"
action = "allow"
protocol = "tcp"
ports = "8000-8080"

[[rule]]
group = "services"
direction = "in"
action = "allow"
protocol = "udp"
ports = "5000-5010"

[[rule]]
group = "services"
direction = "in"
action = "deny"
protocol = "udp"
ports = "5005"
priority = 10

[[rule]]
group = "services"
direction = "in"
action = "allow"
protocol = "icmp"
remote = "10.0.2.16"

[[rule]]
group = "services"
direction = "out"
action = "allow"
protocol = "udp"
ports = "53"

[[rule]]
group = "services"
direction = "out"
action = "allow"
protocol = "tcp"
ports = "443"
remote = "10.0.2.16/32"
"#;

/// The guest that its rules name, which is limited in packets.
pub const FRIEND: &str = "[[net]]\nname = \"net\"\naddresses = [\"10.0.2.16\"]\npackets_per_second = 200\n";

/// One that they do not name, limited in bytes.
pub const STRANGER: &str = "[[net]]\nname = \"net\"\naddresses = [\"10.0.2.17\"]\nbandwidth = \"200KiB\"\n";
