//! Links the program where the kernel and the loader expect it; builds for a host need nothing.

fn main() {
    println!("cargo::rerun-if-changed=../../vmm/rt/domain.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo names the package's folder");
        println!("cargo::rustc-link-arg-bins=-T{folder}/../../vmm/rt/domain.ld");
        // The program is put where it is linked and nothing in it is relocated.
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
