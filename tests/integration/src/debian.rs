//! Debian on this machine: packages that tests need, and a root file system made of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::install::built;

/// What the real programs' cases use, on the host and in the rootfs.
pub const PROGRAMS: [&str; 28] = [
    "bash",
    "coreutils",
    "findutils",
    "grep",
    "sed",
    "gawk",
    "diffutils",
    "tar",
    "gzip",
    "xz-utils",
    "zstd",
    "git",
    "sqlite3",
    "perl",
    "gcc",
    "g++",
    "libc6-dev",
    "make",
    "python3",
    "procps",
    "less",
    "vim-tiny",
    "file",
    "bc",
    "util-linux",
    "libpython3-stdlib",
    "postgresql",
    "redis-server",
];

/// The suite the rootfs is made of.
const SUITE: &str = "bookworm";

fn ran(mut command: Command) -> std::io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

/// Has these packages installed.
pub fn install(packages: &[&str]) -> std::io::Result<()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    let there = Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).output()?;
    let there = String::from_utf8_lossy(&there.stdout).into_owned();
    let missing: Vec<&str> =
        packages.iter().filter(|p| !there.lines().any(|l| l == format!("{p} installed"))).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "-q"]);
    ran(update)?;
    let mut get = Command::new("apt-get");
    get.args(["install", "-y", "-q", "--no-install-recommends"]).args(missing).env("DEBIAN_FRONTEND", "noninteractive");
    ran(get)
}

/// A file system made once by mmdebstrap and kept in the target directory.
fn made(name: &str, variant: &str, packages: &[&str]) -> std::io::Result<PathBuf> {
    let target = built().parent().map(PathBuf::from).unwrap_or_default();
    let hash: String = packages.concat().bytes().fold(5381u32, |h, b| h.wrapping_mul(33) ^ u32::from(b)).to_string();
    let kept = target.join(format!("{name}-{SUITE}-{hash}"));
    if kept.is_dir() {
        return Ok(kept);
    }
    install(&["mmdebstrap"])?;
    let making = target.join(format!("{name}-{SUITE}.making-{}", std::process::id()));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", &format!("--variant={variant}"), "--aptopt=Acquire::Languages \"none\""]);
    make.arg(format!("--include={}", packages.join(","))).arg(SUITE).arg(&making);
    if let Err(e) = ran(make) {
        let _ = std::fs::remove_dir_all(&making);
        return Err(e);
    }
    // Another test may have made it meanwhile: the first stays.
    if std::fs::rename(&making, &kept).is_err() {
        std::fs::remove_dir_all(&making)?;
    }
    Ok(kept)
}

/// A Debian root file system with the cases' programs.
pub fn rootfs() -> std::io::Result<PathBuf> {
    made("rootfs", "essential", &PROGRAMS)
}

/// Packages with all they depend on, unpacked and not configured.
pub fn unpacked(name: &str, packages: &[&str]) -> std::io::Result<PathBuf> {
    made(name, "extract", packages)
}
