//! Gives the shared library its SONAME: the name by which a program that was linked with
//! it asks for it. It changes with every version that may break its callers.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!(
            "cargo::warning=a shared library cannot be linked statically, as the workspace's programs are, and is left out: set RUSTFLAGS= (empty)"
        );
    }
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    let minor = env!("CARGO_PKG_VERSION_MINOR");
    // Before 1.0 a minor version may break.
    let version = if major == "0" {
        format!("{major}.{minor}")
    } else {
        major.to_owned()
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libattestation.so.{version}");
}
