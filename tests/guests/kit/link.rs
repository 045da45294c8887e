//! The build script of the guests: links each where its loaders put it; builds for the host need none of this.

fn main() {
    println!("cargo::rerun-if-changed=../kit/guest.ld");
    println!("cargo::rerun-if-changed=../kit/link.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo names the package's folder");
        println!("cargo::rustc-link-arg-bins=-T{folder}/../kit/guest.ld");
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
