//! A small emulated machine: Debian's kernel under QEMU without KVM, for what this host's kernel lacks (vsock's loopback).
//!
//! Nothing is installed for it: the emulator and the kernel are unpacked into the target directory. The machine has no disk; what it
//! runs is in its initial file system.

use std::fs::Permissions;
use std::io::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian::unpacked;

/// A program run in the machine: its status, and all that the machine said.
#[derive(Debug)]
pub struct Ran {
    /// Exit status, `None` if the machine ended (or was ended) without one.
    pub status: Option<i32>,
    /// Its console: the program's output and the kernel's.
    pub console: String,
}

/// The libraries a program needs, with their absolute paths (ldd(1)).
fn libraries(program: &Path) -> std::io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from).collect())
}

fn copy(from: &Path, root: &Path, to: &Path) -> std::io::Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(from, to).map(|_| ())
}

/// The one folder in a folder.
fn only(folder: &Path) -> std::io::Result<PathBuf> {
    let mut entries = std::fs::read_dir(folder)?;
    entries.next().ok_or_else(|| Error::other(format!("{} is empty", folder.display())))?.map(|e| e.path())
}

/// Boots the machine with these programs (and the libraries they need) at the paths they have here, loads the kernel's modules by their
/// paths below `kernel/`, runs `command` with busybox's shell as root, and powers off. `scratch`: an empty folder for its parts.
/// Ends it after `seconds`.
pub fn run(scratch: &Path, programs: &[&Path], modules: &[&str], command: &str, seconds: u32) -> std::io::Result<Ran> {
    let tools = unpacked("emulator", &["qemu-system-x86", "linux-image-cloud-amd64", "busybox-static"])?;
    let version = only(&tools.join("lib/modules"))?;
    let root = scratch.join("root");
    for folder in ["proc", "dev", "sys", "tmp", "mods"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    copy(&tools.join("bin/busybox"), &root, Path::new("/bin/busybox"))?;
    for program in programs {
        copy(program, &root, program)?;
        for library in libraries(program)? {
            copy(&library, &root, &library)?;
        }
    }
    let mut init = String::from(
        "#!/bin/busybox sh\nexport PATH=/bin\nbusybox mount -t proc proc /proc\nbusybox --install -s /bin\nmount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\nmount -t tmpfs tmp /tmp\n",
    );
    for (i, module) in modules.iter().enumerate() {
        copy(&version.join("kernel").join(module), &root, Path::new(&format!("/mods/{i}.ko")))?;
        init += &format!("insmod /mods/{i}.ko\n");
    }
    init += &format!("( {command} ) < /dev/null\necho vm-status=$?\npoweroff -f\n");
    std::fs::write(root.join("init"), init)?;
    std::fs::set_permissions(root.join("init"), Permissions::from_mode(0o755))?;

    let initrd = scratch.join("initrd");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | \"$0\" cpio -o -H newc"]).arg(tools.join("bin/busybox")).current_dir(&root);
    let packed = pack.stdout(std::fs::File::create(&initrd)?).stderr(Stdio::null()).status()?;
    if !packed.success() {
        return Err(Error::other("the machine's file system could not be packed"));
    }
    let name = version.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lib = |folder: &str| tools.join(folder).join("x86_64-linux-gnu").display().to_string();
    let mut qemu = Command::new("timeout");
    qemu.args(["-s", "KILL", &seconds.to_string()])
        .arg(tools.join("lib64/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(format!("{}:{}", lib("usr/lib"), lib("lib")))
        .arg(tools.join("usr/bin/qemu-system-x86_64"))
        .env("QEMU_MODULE_DIR", tools.join("usr/lib/x86_64-linux-gnu/qemu"))
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-M", "q35"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "EPYC", "-smp", "2", "-m", "1G"])
        .args(["-append", "console=ttyS0 quiet mitigations=off nokaslr panic=-1"])
        .arg("-kernel")
        .arg(tools.join(format!("boot/vmlinuz-{name}")))
        .arg("-initrd")
        .arg(&initrd);
    for share in ["qemu", "seabios"] {
        qemu.arg("-L").arg(tools.join("usr/share").join(share));
    }
    let output = qemu.stdin(Stdio::null()).output()?;
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let status = console.lines().find_map(|l| l.strip_prefix("vm-status=")?.parse().ok());
    if status.is_none() && console.is_empty() {
        return Err(Error::other(format!("the emulator: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(Ran { status, console })
}
