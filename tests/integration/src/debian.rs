//! Debian on this machine: packages that tests need, and a root file system made of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::install::built;

/// What the real programs' cases use, on the host and in the rootfs.
pub const PROGRAMS: [&str; 37] = [
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
    "tmux",
    "screen",
    "expect",
    "libpython3-stdlib",
    "postgresql",
    "redis-server",
    "nginx-light",
    "curl",
    "gdb",
    "strace",
    "bubblewrap",
    "mount",
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

/// The source of a package as Debian patched it, unpacked once and kept in the target directory.
pub fn source(name: &str) -> std::io::Result<PathBuf> {
    let target = built().parent().map(PathBuf::from).unwrap_or_default();
    let kept = target.join(format!("source-{SUITE}-{name}"));
    if kept.is_dir() {
        return Ok(kept);
    }
    install(&["dpkg-dev"])?;
    let making = target.join(format!("source-{SUITE}-{name}.making-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&making);
    std::fs::create_dir_all(making.join("lists/partial"))?;
    let list = making.join("sources.list");
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    std::fs::write(&list, format!("deb-src [signed-by={key}] http://deb.debian.org/debian {SUITE} main\n"))?;
    // Lists of its own: the machine's know of no sources.
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&making).args(["-q", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
        apt.arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        apt.arg("-o").arg(format!("Dir::State::lists={}", making.join("lists").display()));
        apt
    };
    let mut update = apt();
    update.arg("update");
    ran(update)?;
    let mut fetch = apt();
    fetch.args(["source", "--download-only", name]);
    ran(fetch)?;
    let mut described = std::fs::read_dir(&making)?.flatten().map(|e| e.path());
    let described = described.find(|p| p.extension().is_some_and(|e| e == "dsc"));
    let described = described.ok_or_else(|| std::io::Error::other(format!("no source of {name}")))?;
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "-x"]).arg(described).arg(making.join("tree"));
    ran(unpack)?;
    if std::fs::rename(making.join("tree"), &kept).is_err() && !kept.is_dir() {
        return Err(std::io::Error::other(format!("{} cannot be made", kept.display())));
    }
    std::fs::remove_dir_all(&making)?;
    Ok(kept)
}
