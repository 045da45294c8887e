//! Gives the programs their place in memory; builds for the host need none.

fn main() {
    println!("cargo::rerun-if-changed=../../vmm/rt/domain.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo names the package's folder");
        println!("cargo::rustc-link-arg-bins=-T{folder}/../../vmm/rt/domain.ld");
        // The loader puts the program where it is linked and relocates nothing.
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
