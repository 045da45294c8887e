use alloc::string::{String, ToString};

use dragonfly_settings::Document;
use dragonfly_storage::{
    Limits,
    nbd::{Address, Place},
};
use dragonfly_vswitch::{
    Prefix,
    policy::{Action, GroupId, Ports, Service},
    tunnel::TunnelProtocol,
    vlan::VlanMode,
};

use super::*;

fn parse(text: &str) -> Result<Devices, String> {
    let document = Document::parse("/etc/card/card.toml", text).map_err(|error| error.to_string())?;
    Devices::read(&document.top(), &["socket"], |_| None).map_err(|error| error.to_string())
}

#[test]
fn a_disk_has_what_its_table_says() {
    let machine = parse(
        r#"
[[disk]]
name = "root"
socket = "root.sock"
image = "/srv/root.img"
read_only = true
serial = "S-1"
queues = 4
iops = 1000
bandwidth = "100MiB"
bandwidth_burst = "1GiB"
key_file = "root.key"
"#,
    )
    .unwrap();
    let [disk] = machine.disks.as_slice() else { panic!("{machine:?}") };
    assert_eq!(disk.medium, Medium::Image("/srv/root.img".into()));
    assert_eq!((disk.is_read_only, disk.serial.as_str(), disk.queues), (true, "S-1", 4));
    let (operations, bytes) = (disk.limits.operations.unwrap(), disk.limits.bytes.unwrap());
    assert_eq!((operations.per_second.get(), operations.burst.get()), (1000, 1000));
    assert_eq!((bytes.per_second.get(), bytes.burst.get()), (100 << 20, 1 << 30));
    assert_eq!(disk.key_file.as_deref(), Some("root.key"));
}

#[test]
fn a_disk_may_be_at_a_server() {
    let machine = parse("[[disk]]\nname = 'a'\nsocket = 's'\nnbd = 'nbd://server:1/disk'\ntimeout = 5").unwrap();
    let [disk] = machine.disks.as_slice() else { panic!("{machine:?}") };
    let place = Place::Tcp { host: "server".into(), port: 1 };
    assert_eq!(disk.medium, Medium::Nbd(Address { place, export: "disk".into() }));
    assert_eq!(disk.timeout_seconds, 5);
}

#[test]
fn a_disk_needs_little() {
    let machine = parse("[[disk]]\nname = 'scratch'\nsocket = 's'\nsize = '1MiB'").unwrap();
    let disk = &machine.disks[0];
    assert_eq!((&disk.medium, disk.queues, disk.is_read_only), (&Medium::Ram(1 << 20), 1, false));
    assert_eq!((disk.serial.as_str(), disk.limits, &disk.key_file), ("scratch", Limits::default(), &None));
}

#[test]
fn each_mistake_is_told_with_line_key_and_remedy() {
    let disk = "[[disk]]\nname = 'a'\nsocket = 's'\n";
    for (text, message) in [
        (
            disk.into(),
            ":1: `image` is missing: name a file, give a `size` for a disk in memory, a `pool` and a `volume`, or a server by `nbd`",
        ),
        (
            format!("{disk}size = '1MiB'\nimage = 'i'"),
            ":4: `size` is given beside `image`: a disk is in one place, so leave one out",
        ),
        (
            format!("{disk}size = '1MiB'\ntimeout = 2"),
            ":5: `timeout` is given without `nbd`: only a server is waited for",
        ),
        (
            format!("{disk}nbd = 'nbds://server/disk'"),
            ":4: `nbd` is \"nbds://server/disk\", which asks for TLS, which is not supported: use nbd:// or nbd+unix://, and a tunnel",
        ),
        (
            format!("{disk}nbd = 'nbd://server/disk'\nsnapshots = true"),
            ":5: `snapshots` is given for a disk at a server, which has snapshots of its own, if any: leave it out",
        ),
        (
            format!("{disk}nbd = 'nbd://s'\n{disk}nbd = 'nbd://s'").replacen("'a'", "'b'", 1),
            ":6: `name` has the same medium as \"b\", and one of them writes to it: make both `read_only`, or use two media",
        ),
        (format!("{disk}size = '1MiB'\nqueue = 2"), ":5: `queue` is not a known key: did you mean `queues`?"),
        (format!("{disk}size = '1MiB'\nqueues = 17"), ":5: `queues` is 17: give a number from 1 to 16"),
        (format!("{disk}size = '1MiB'\niops_burst = 2"), ":5: `iops_burst` is given without `iops`: give that, too"),
        (
            format!("{disk}size = '1MiB'\nserial = 'abcdefghijklmnopqrstu'"),
            ":5: `serial` has \"abcdefghijklmnopqrstu\": a serial number has at most 20 ASCII characters",
        ),
        (
            format!("{disk}size = '1MiB'\n{disk}size = '1MiB'"),
            ":6: `name` has \"a\" again: give each device a name of its own",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err(), format!("/etc/card/card.toml{message}"), "{text}");
    }
}

#[test]
fn disks_are_volumes_of_a_pool_with_snapshots_or_without() {
    let machine = parse(
        r#"
[[disk]]
name = "root"
socket = "root.sock"
pool = "vault"
volume = "debian"
snapshots = true

[[disk]]
name = "before"
socket = "before.sock"
pool = "vault"
volume = "debian"
snapshot = "before-upgrade"

[[pool]]
name = "vault"
image = "/dev/nvme0n1"
serial = "S5XN"
"#,
    )
    .unwrap();
    let medium = Medium::Volume { pool: 0, volume: "debian".into() };
    let [root, before] = machine.disks.as_slice() else { panic!("{machine:?}") };
    assert_eq!((&root.medium, &root.view, root.is_read_only), (&medium, &View::Live, false));
    let snapshot = View::Snapshot("before-upgrade".into());
    assert_eq!((&before.medium, &before.view, before.is_read_only), (&medium, &snapshot, true));
    let pool = Pool { name: "vault".into(), image: "/dev/nvme0n1".into(), serial: "S5XN".into() };
    assert_eq!(machine.pools, [pool]);
    assert!(machine.is_written(&medium) && machine.is_pool_written(0));
}

#[test]
fn mistakes_about_pools_and_snapshots_are_told_with_line_key_and_remedy() {
    let disk = |keys: &str| format!("[[disk]]\nname = 'a'\nsocket = 's'\n{keys}\n");
    let more = |keys: &str| format!("[[disk]]\nname = 'b'\nsocket = 't'\n{keys}\n");
    let pool = "[[pool]]\nname = 'p'\nimage = 'i'\n";
    let twice = |one: &str, other: &str| disk(one) + &more(other);
    for (text, message) in [
        (disk("volume = 'v'"), ":4: `volume` is given without `pool`: name the pool that it is in"),
        (disk("pool = 'p'"), ":4: `pool` is \"p\", which is no pool: describe it in a table [[pool]]"),
        (disk("pool = 'q'") + pool, ":4: `pool` is \"q\", which is no pool: use one that a [[pool]] describes"),
        (disk("pool = 'p'") + pool, ":1: `volume` is missing: add it to this table"),
        (
            disk("pool = 'p'\nimage = 'i'") + pool,
            ":4: `pool` is given beside `image`: a disk is in one place, so leave one out",
        ),
        (pool.to_string() + pool, ":5: `name` has \"p\" again: describe each pool once"),
        (
            disk("size = '1MiB'\nsnapshots = true"),
            ":5: `snapshots` is given for a disk in memory, which is gone with the card: use an `image` or a `volume`",
        ),
        (
            disk("image = 'i'\nsnapshots = true\nsnapshot = 'x'"),
            ":6: `snapshot` is given beside `snapshots`: that is the disk as it is now, this one as it was, so leave one out",
        ),
        (
            twice("image = 'i'", "image = 'i'\nread_only = true"),
            ":6: `name` has the same medium as \"a\", and one of them writes to it: make both `read_only`, or use two media",
        ),
        (
            twice("image = 'i'\nsnapshots = true", "image = 'i'\nsnapshots = true"),
            ":7: `name` has the same medium as \"a\", and one of them writes to it: make both `read_only`, or use two media",
        ),
        (
            twice("image = 'i'\nread_only = true", "image = 'i'\nsnapshot = 'x'"),
            ":7: `name` has the same medium as \"a\", without `snapshots`: give it to both, or use two media",
        ),
        (
            twice("image = 'i'\nsnapshots = true\nkey_file = 'k'", "image = 'i'\nsnapshot = 'x'"),
            ":8: `name` has the same medium as \"a\", with another `key_file`: give both the same",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err(), format!("/etc/card/card.toml{message}"), "{text}");
    }
    assert!(parse(&twice("image = 'i'\nread_only = true", "image = 'i'\nread_only = true")).is_ok());
}

#[test]
fn a_network_device_has_what_its_table_says() {
    let machine = parse(
        r#"
[[net]]
name = "eth0"
socket = "eth0.sock"
mac = "52:54:00:12:34:Ff"
queues = 4
vlan = 7
packets_per_second = 1000
bandwidth = "1MiB"
addresses = ["10.0.0.2", "fd00::/64"]
"#,
    )
    .unwrap();
    let [net] = machine.nets.as_slice() else { panic!("{machine:?}") };
    assert_eq!((net.mac.0, net.queue_pairs, net.vlan), ([0x52, 0x54, 0, 0x12, 0x34, 0xff], 4, 7));
    assert_eq!(net.addresses[0], Prefix::host("10.0.0.2".parse().unwrap()));
    assert_eq!(net.addresses[1], Prefix::new("fd00::".parse().unwrap(), 64).unwrap());
    assert_eq!((net.limits.packets.unwrap().burst.get(), net.connections), (1000, 16_384));
    assert_eq!(net.limits.bits.unwrap().per_second.get(), 8 << 20);
}

#[test]
fn a_network_device_without_an_address_has_the_callers() {
    let text = "[[net]]\nname = 'a'\nmac = '52:54:00:00:00:01'\n[[net]]\nname = 'b'";
    assert_eq!(parse(text).unwrap_err(), "/etc/card/card.toml:4: `mac` is missing: add it to this table");
    let document = Document::parse("", text).unwrap();
    let devices = Devices::read(&document.top(), &[], |number| Some(MacAddress([2, 0, 0, 0, 0, number as u8])));
    let macs: Vec<_> = devices.unwrap().nets.iter().map(|net| net.mac.0).collect();
    assert_eq!(macs, [[0x52, 0x54, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1]]);
}

#[test]
fn an_address_that_is_no_stations_is_refused() {
    for mac in ["", "52:54:00:00:00", "52:54:00:00:00:01:02", "53:54:00:00:00:01", "00:00:00:00:00:00", "5:254:0:0:0:1"]
    {
        let error = parse(&format!("[[net]]\nname = 'n'\nsocket = 's'\nmac = '{mac}'")).unwrap_err();
        assert!(error.contains(":4: `mac` is") && error.contains("give a station's address"), "{error}");
    }
}

#[test]
fn rules_make_groups_and_devices_choose_them() {
    let machine = parse(
        r#"
[[rule]]
group = "web"
direction = "in"
action = "allow"
protocol = "tcp"
ports = "80"

[[rule]]
group = "all"
direction = "out"
action = "allow"

[[rule]]
group = "web"
direction = "in"
action = "deny"
priority = 7
remote = "10.1.0.0/16"

[[net]]
name = "n"
socket = "s"
mac = "52:54:00:00:00:01"
groups = ["all", "web"]
"#,
    )
    .unwrap();
    let names: Vec<_> = machine.groups.iter().map(|group| (group.name.as_str(), group.rules.len())).collect();
    assert_eq!(names, [("web", 2), ("all", 1)]);
    assert_eq!(machine.nets[0].groups, Some(vec![GroupId(1), GroupId(0)]));
    let web = &machine.groups[0].rules;
    assert_eq!((web[0].priority, web[0].service), (1000, Service::Tcp(Ports::one(80))));
    assert_eq!((web[1].priority, web[1].action, web[1].service), (7, Action::Deny, Service::Any));
    assert_eq!(web[1].remote, Prefix::new("10.1.0.0".parse().unwrap(), 16));
}

#[test]
fn each_mistake_in_a_rule_is_told() {
    let rule = "[[rule]]\ngroup = 'g'\ndirection = 'in'\n";
    for (text, message) in [
        (rule.to_string(), ":1: `action` is missing: add it to this table"),
        (format!("{rule}action = 'drop'"), ":4: `action` has \"drop\": use \"allow\", \"deny\", \"allow-stateless\""),
        (
            format!("{rule}action = 'deny'\nports = '80'"),
            ":5: `ports` is given, but only \"tcp\" and \"udp\" have ports: set `protocol`",
        ),
        (
            format!("{rule}action = 'deny'\nprotocol = 'tcp'\nports = '90-80'"),
            ":6: `ports` is \"90-80\": give a port like \"22\", or a range like \"8000-8080\"",
        ),
        (
            format!("{rule}action = 'deny'\nremote = '10.0.0.0/33'"),
            ":5: `remote` has \"10.0.0.0/33\": give addresses like \"10.0.0.2\" or \"fd00::/64\"",
        ),
        (
            "[[net]]\nname = 'n'\nsocket = 's'\nmac = '52:54:00:00:00:01'\ngroups = ['g']".into(),
            ":5: `groups` has \"g\": no [[rule]] has that `group`",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err(), format!("/etc/card/card.toml{message}"), "{text}");
    }
}

fn outside(text: &str) -> Result<Outside, String> {
    let document = Document::parse("card.toml", text).map_err(|error| error.to_string())?;
    Outside::read(&document.top()).map_err(|error| error.to_string())
}

#[test]
fn an_uplink_and_its_tunnels_have_what_their_tables_say() {
    let Outside { uplink, tunnels } = outside(
        r#"
[uplink]
interface = "eth0"
vlan = 3
tagged = [7, 8]
mtu = 9000
mac = "52:54:00:00:02:02"
address = "192.0.2.2/25"
gateway = "192.0.2.126"
[[tunnel]]
name = "blue"
protocol = "geneve"
network = 16777215
remote = "198.51.100.1"
vlan = 100
checksum = true
"#,
    )
    .unwrap();
    let uplink = uplink.unwrap();
    assert_eq!((uplink.interface, uplink.mtu), (Interface::Shared("eth0".into()), 9000));
    assert_eq!(uplink.vlans, VlanMode::Trunk { tagged: vec![7, 8], native: Some(3) });
    let station = uplink.station.unwrap();
    assert_eq!((station.mac.0[5], station.prefix), (2, 25));
    assert_eq!(station.next_hop([192, 0, 2, 125].into()), Some([192, 0, 2, 125].into()));
    assert_eq!(station.next_hop([192, 0, 2, 129].into()), Some([192, 0, 2, 126].into()));
    let [tunnel] = tunnels.as_slice() else { panic!("{tunnels:?}") };
    assert_eq!((tunnel.protocol, tunnel.network, tunnel.vlan), (TunnelProtocol::Geneve, 0xff_ffff, 100));
    assert!(tunnel.has_checksum);
}

#[test]
fn an_uplink_needs_little_and_need_not_be() {
    assert_eq!(outside("").unwrap(), Outside::default());
    let uplink = outside("[uplink]\ntap = 'tap0'").unwrap().uplink.unwrap();
    assert_eq!((uplink.vlans, uplink.mtu, uplink.station), (VlanMode::Access(0), 1500, None));
}

#[test]
fn each_mistake_about_the_way_out_is_told_with_line_key_and_remedy() {
    let tap = "[uplink]\ntap = 'tap0'\n";
    let address = "mac = '52:54:00:00:02:02'\naddress = '192.0.2.2/24'\n";
    let tunnel = "[[tunnel]]\nname = 't'\nprotocol = 'vxlan'\nnetwork = 1\nremote = ";
    for (text, message) in [
        ("[uplink]".into(), "1: `tap` is missing: name a TAP device, or an `interface` to share"),
        (format!("{tap}interface = 'e'"), "3: `interface` is given beside `tap`: leave one of them out"),
        (
            "[uplink]\ntap = 'sixteen-letters-'".into(),
            "2: `tap` is \"sixteen-letters-\": an interface's name has 1 to 15 letters, like \"tap0\"",
        ),
        (format!("{tap}gateway = '192.0.2.1'"), "3: `gateway` is given without `address`: give that, too"),
        (format!("{tap}address = '192.0.2.2/24'"), "1: `mac` is missing: add it to this table"),
        (
            format!("{tap}address = '192.0.2.2'"),
            "3: `address` is \"192.0.2.2\": give an address and its network's prefix like \"192.0.2.1/24\"",
        ),
        (
            format!("{tap}{address}gateway = '192.0.3.1'"),
            "5: `gateway` is 192.0.3.1, which is not in the network 192.0.2.2/24",
        ),
        (
            format!("{tap}{tunnel}'192.0.2.1'"),
            "7: `remote` needs an end in the physical network: give [uplink] an `address`",
        ),
        (
            format!("{tap}{address}{tunnel}'192.0.3.1'"),
            "9: `remote` is 192.0.3.1, which is in another network: give [uplink] a `gateway`",
        ),
        (
            format!("{tap}{address}{tunnel}'192.0.2.1'\n{tunnel}'192.0.2.3'"),
            "11: `name` has \"t\" again: give each tunnel a name of its own",
        ),
    ] {
        assert_eq!(outside(&text).unwrap_err(), format!("card.toml:{message}"), "{text}");
    }
}

#[test]
fn a_source_of_random_numbers_may_be_limited() {
    let machine = parse("[[rng]]\nname = 'a'\n[[rng]]\nname = 'b'\nsocket = 's'\nbandwidth = '4KiB'").unwrap();
    let [a, b] = machine.rngs.as_slice() else { panic!("{machine:?}") };
    assert_eq!((a.name.as_str(), a.rate), ("a", None));
    assert_eq!(b.rate.map(|rate| (rate.per_second.get(), rate.burst.get())), Some((4096, 4096)));
    let same = "[[rng]]\nname = 'a'\n[[disk]]\nname = 'a'\nsize = '1MiB'";
    let message = "/etc/card/card.toml:2: `name` has \"a\" again: give each device a name of its own";
    assert_eq!(parse(same).unwrap_err(), message);
}

#[test]
fn sockets_have_a_number_and_peers() {
    let text = "[[vsock]]\nname = 'a'\ncid = 7\npeers = [8, 9]\nconnections = 2\n[[vsock]]\nname = 'b'";
    let machine = parse(text).unwrap();
    let [a, b] = machine.vsocks.as_slice() else { panic!("{machine:?}") };
    assert_eq!((a.cid, &a.peers[..], a.connections), (Some(7), &[8, 9][..], 2));
    assert_eq!((b.cid, &b.peers[..], b.connections), (None, &[][..], 64));
    for cid in [0, 1, 2, u64::from(u32::MAX)] {
        let fault = parse(&format!("[[vsock]]\nname = 'a'\ncid = {cid}")).unwrap_err();
        assert!(fault.starts_with("/etc/card/card.toml:3: `cid` is"), "{fault}");
    }
}

#[test]
fn a_console_has_ports_of_which_one_may_be_a_terminal() {
    let machine = parse("[[console]]\nname = 'c'\nports = ['a', 'b.c']\nterminal = 'a'\ncolumns = 132").unwrap();
    let [console] = machine.consoles.as_slice() else { panic!("{machine:?}") };
    assert_eq!((&console.ports[..], console.terminal.as_deref()), (&["a".into(), "b.c".into()][..], Some("a")));
    assert_eq!((console.columns, console.rows), (132, 25));
    for (keys, message) in [
        ("", "1: `ports` has 0 names: give 1 to 8"),
        ("ports = ['a', 'a']", "3: `ports` has \"a\" again: give each port a name of its own"),
        ("ports = ['a b']", "3: `ports` has \"a b\": use 1 to 32 letters, digits, dots, hyphens and underscores"),
        ("ports = ['']", "3: `ports` has \"\": use 1 to 32 letters, digits, dots, hyphens and underscores"),
        ("ports = ['a']\nterminal = 'b'", "4: `terminal` has \"b\": give the name of one of the ports"),
    ] {
        let fault = parse(&format!("[[console]]\nname = 'c'\n{keys}")).unwrap_err();
        assert_eq!(fault, format!("/etc/card/card.toml:{message}"), "{keys}");
    }
}
