//! Builds the stub: a freestanding executable linked where no container maps, embedded in the Sentry.
#![allow(clippy::panic, reason = "a build script reports what it lacks by ending the build")]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=stub/main.rs");
    println!("cargo:rerun-if-changed=src/layout.rs");
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(env("OUT_DIR")).join("cofferdam-stub");
    let status = Command::new(env("RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "cofferdam_stub"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "relocation-model=pic", "-C", "strip=symbols"])
        .args(["-C", "link-args=-no-pie -static -nostartfiles -nostdlib -Wl,--image-base=0x7d0000000000"])
        .args(["-C", "link-args=-Wl,--build-id=none -Wl,-z,norelro -Wl,--gc-sections"])
        .arg("stub/main.rs")
        .arg("-o")
        .arg(&out)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    println!("cargo:rustc-env=OUT_DIR_STUB={}", out.display());
    match status {
        Ok(s) if s.success() => {}
        other => panic!("the stub could not be built: {other:?}"),
    }
}
