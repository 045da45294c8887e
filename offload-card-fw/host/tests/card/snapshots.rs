//! Volumes and snapshots, made by the program's commands and served to a guest.

use std::{fs, path::Path, process::Command, time::Duration};

use dragonfly_virtqueue::RingFeatures;
use offload_card::{card::Card, machine::Machine, worker::StopSignal};

use crate::{disks::key, front_end::*};

const POOL: &str = "[[pool]]\nname = 'vault'\nimage = 'vault.img'\n";

/// Runs the program with these words: what it says, or why it fails.
fn run(folder: &Path, words: &str) -> Result<String, String> {
    let words: Vec<_> = words.split(' ').collect();
    let (first, rest) = words.split_first().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_offload-card"));
    command.current_dir(folder).arg(first).args(["--machine", "card.toml"]).args(rest);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A folder with a machine file, and room for a pool and an image.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("card.toml"), text).unwrap();
    for name in ["vault.img", "disk.img"] {
        fs::File::create(folder.path().join(name)).unwrap().set_len(16 << 20).unwrap();
    }
    folder
}

/// Serves what the folder's machine file describes until the card is dropped.
fn serve(folder: &Path) -> Card {
    let file = folder.join("card.toml");
    let machine = Machine::parse(&file, &fs::read_to_string(&file).unwrap()).unwrap();
    Card::start(&machine, Duration::ZERO, StopSignal::new().unwrap()).unwrap()
}

fn disk(name: &str, keys: &str) -> String {
    format!("[[disk]]\nname = '{name}'\nsocket = '{name}.sock'\nqueues = 2\n{keys}\n")
}

/// Writes a sector of these bytes through a disk's socket, or reads one.
fn write(folder: &Path, name: &str, sector: u64, fill: u8) -> u8 {
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&folder.join(format!("{name}.sock")), &mut guest);
    guest.fill(0, &[fill; 512]);
    let status = guest.request(0, WRITE, sector, 512);
    assert_eq!(guest.request(0, FLUSH, 0, 0), 0);
    status
}

fn read(folder: &Path, name: &str, sector: u64) -> u8 {
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&folder.join(format!("{name}.sock")), &mut guest);
    assert_eq!(guest.request(0, READ, sector, 512), 0);
    let data = guest.data(0, 512);
    assert!(data.iter().all(|byte| *byte == data[0]));
    data[0]
}

#[test]
fn disks_are_volumes_of_one_image_and_do_not_touch_each_other() {
    let volume = |name: &str| disk(name, &format!("pool = 'vault'\nvolume = '{name}'"));
    let folder = folder(&(volume("a") + &volume("b") + POOL));
    let folder = folder.path();
    assert!(run(folder, "volume vault list").unwrap_err().contains("the disk has no table of volumes"));
    run(folder, "volume vault format").unwrap();
    for name in ["a", "b", "c"] {
        run(folder, &format!("volume vault create {name} 1MiB")).unwrap();
    }
    assert!(run(folder, "volume vault create a 1MiB").unwrap_err().contains("there is a volume of that name already"));
    assert!(run(folder, "volume vault create d 1GiB").unwrap_err().contains("no room"));
    assert!(run(folder, "volume vault format").unwrap_err().contains("give --force to lose them"));
    run(folder, "volume vault delete c").unwrap();
    assert_eq!(run(folder, "volume vault list").unwrap(), "a\t1 MiB\nb\t1 MiB\n");
    let card = serve(folder);
    assert!(run(folder, "volume vault list").unwrap_err().contains("another process uses it"));
    for (name, fill) in [("a", 1), ("b", 2)] {
        assert_eq!(write(folder, name, 2047, fill), 0);
        assert_eq!(write(folder, name, 2048, fill), 1, "the volume has an end");
    }
    assert_eq!((read(folder, "a", 2047), read(folder, "b", 2047)), (1, 2));
    drop(card);
}

#[test]
fn snapshots_are_made_while_a_guest_writes_and_served_beside_the_disk() {
    let live = disk("root", "image = 'disk.img'\nsnapshots = true");
    let before = disk("before", "image = 'disk.img'\nsnapshot = 'before'");
    let folder = folder(&format!("control = 'control.sock'\n{live}"));
    let folder = folder.path();
    fs::write(folder.join("from.img"), vec![1; 1 << 20]).unwrap();
    assert!(run(folder, "snapshot root list").unwrap_err().contains("make one by `offload-card snapshot`"));
    run(folder, "snapshot root format --from from.img --size 8MiB").unwrap();
    assert!(run(folder, "snapshot root format --size 8MiB").unwrap_err().contains("give --force to lose it"));
    let card = serve(folder);
    assert_eq!((read(folder, "root", 5), read(folder, "root", 5000)), (1, 0));
    // The process serves the image, so this is its doing.
    run(folder, "snapshot root create before").unwrap();
    assert_eq!(write(folder, "root", 5, 2), 0);
    run(folder, "snapshot root create after").unwrap();
    assert!(run(folder, "snapshot root create after").unwrap_err().contains("choose another name"));
    assert!(run(folder, "snapshot root delete none").unwrap_err().contains("there is no such snapshot"));
    assert!(run(folder, "snapshot other list").unwrap_err().contains("there is no disk \"other\""));
    assert_eq!(run(folder, "snapshot root list").unwrap(), "before\nafter\n");
    drop(card);

    fs::write(folder.join("card.toml"), format!("control = 'control.sock'\n{before}{live}")).unwrap();
    let card = serve(folder);
    assert_eq!((read(folder, "root", 5), read(folder, "before", 5)), (2, 1));
    assert_eq!(write(folder, "before", 5, 3), 1, "a snapshot is read-only");
    run(folder, "snapshot root delete after").unwrap();
    drop(card);
    assert_eq!(run(folder, "snapshot root list").unwrap(), "before\n");
    run(folder, "snapshot root export --name before out.img").unwrap();
    let out = fs::read(folder.join("out.img")).unwrap();
    assert_eq!((out.len(), out[5 * 512], out[1 << 20]), (8 << 20, 1, 0));
    assert!(run(folder, "snapshot root export out.img").unwrap_err().contains("cannot write out.img"));
}

#[test]
fn an_encrypted_volume_has_snapshots_that_only_the_key_opens() {
    let keys = "pool = 'vault'\nvolume = 'a'\nsnapshots = true\nkey_file = 'key'";
    let folder = folder(&(disk("root", keys) + POOL));
    let folder = folder.path();
    fs::write(folder.join("key"), key()).unwrap();
    run(folder, "volume vault format").unwrap();
    run(folder, "volume vault create a 8MiB").unwrap();
    run(folder, "snapshot root format --size 4MiB").unwrap();
    let card = serve(folder);
    assert_eq!(write(folder, "root", 9, 0x61), 0);
    drop(card);
    run(folder, "snapshot root create one").unwrap();
    assert!(!fs::read(folder.join("vault.img")).unwrap().windows(16).any(|bytes| bytes == [0x61; 16]));
    fs::write(folder.join("key"), key().replace("3210", "3211")).unwrap();
    assert!(run(folder, "snapshot root list").unwrap_err().contains("check `key_file`"));
}
