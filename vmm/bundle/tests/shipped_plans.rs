//! The bundles of this repository.

use dragonfly_bundle::Plan;

#[test]
fn every_shipped_plan_is_accepted() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/bundles");
    let files = std::fs::read_dir(folder).expect("the folder of bundles");
    let mut count = 0;
    // A folder holds the files of the bundle beside it.
    let paths = files.map(|file| file.expect("a file").path()).filter(|path| path.is_file());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a text file");
        if let Err(error) = Plan::parse(&text) {
            panic!("{}: {error}", path.display());
        }
        count += 1;
    }
    assert!(count >= 3, "only {count} bundles were found");
}
