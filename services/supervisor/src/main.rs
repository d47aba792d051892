//! cofferdam-supervisor: starts the services of sandboxes, gives each its descriptors, and takes the commands of
//! `cofferdam`.
//!
//! The one service with host rights. It reads OCI documents and its own messages, never what a container controls.
//! One process a root directory, started by the command line when none runs, gone when it has nothing left. Before it
//! confines itself it forks its launcher (see `launcher`).

mod cgroups;
mod container;
mod exec;
mod house;
mod launcher;
mod link;
mod logbook;
mod network;
mod paths;
mod pids;
mod pods;
mod record;
mod sandbox;
mod server;
mod spec;
mod takeover;
mod view;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cofferdam_confine::caps::Capability;
use cofferdam_confine::ids::Ids;
use cofferdam_confine::spawn::Fork;
use cofferdam_confine::{ConfineError, Walls};
use cofferdam_control::{AsyncChannel, Channel};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::house::House;
use crate::server::Peer;

/// The daemon of Cofferdam: one for each root directory, started by `cofferdam` as needed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where state and the control socket are.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["stop_unit", "join_unit"])]
    root: Option<PathBuf>,
    /// Have systemd stop the unit of a container whose supervisor is gone, and do nothing else
    #[arg(long, value_name = "UNIT", conflicts_with = "root")]
    stop_unit: Option<String>,
    /// Have systemd move a stand-in to the unit of its container, and do nothing else
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["root", "stop_unit"], requires = "process")]
    join_unit: Option<String>,
    /// The stand-in
    #[arg(long, value_name = "PID", requires = "join_unit")]
    process: Option<i32>,
    /// The unit is one of the user's own systemd
    #[arg(long, conflicts_with = "root")]
    user: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (arguments.root, arguments.stop_unit, arguments.join_unit.zip(arguments.process)) {
        (_, Some(unit), _) => record::stop_unit(unit, arguments.user),
        (_, _, Some((unit, process))) => record::join_unit(unit, arguments.user, process),
        (Some(root), None, None) => run(&root),
        (None, None, None) => Err("--root is missing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cofferdam-supervisor: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path) -> Result<(), String> {
    cofferdam_confine::close_inherited().map_err(|e| e.to_string())?;
    // Fails only for a group leader (started by hand from a shell), where it does not matter.
    let _ = rustix::process::setsid();
    prepare(root)?;
    leave_mount_namespace(root);
    let Some(lock) = lock(root)? else {
        return Ok(()); // another one serves this directory
    };
    let (ours, theirs) = Channel::pair().map_err(|e| e.to_string())?;
    if cofferdam_confine::spawn::fork(true).map_err(|e| e.to_string())? == Fork::Child {
        drop((ours, lock));
        silence()?;
        return launcher::serve(theirs);
    }
    drop(theirs);
    record::sweep(root);
    let socket_path = root.join("supervisor.sock");
    let listener = listen(&socket_path)?;
    // Whoever started us waits for this end of file.
    silence()?;
    let uid = rustix::process::geteuid().as_raw();
    confine(&[ours.as_fd().as_raw_fd(), lock.as_raw_fd(), listener.as_raw_fd()]).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, serve(root, ours, listener, uid));
    let _ = std::fs::remove_file(&socket_path);
    drop(lock);
    outcome
}

/// Makes the root directory, which nobody else may enter.
fn prepare(root: &Path) -> Result<(), String> {
    let at = |e: std::io::Error| format!("{}: {e}", root.display());
    if let Some(parent) = root.parent() {
        std::fs::create_dir_all(parent).map_err(at)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(root) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(at(e)),
    }
    let meta = std::fs::symlink_metadata(root).map_err(at)?;
    if !meta.is_dir() {
        return Err(format!("{}: not a directory", root.display()));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("{}: belongs to uid {}", root.display(), meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).map_err(at)?;
    }
    Ok(())
}

/// Goes on in the mount namespace of process 1 if DIR is the same there: a client's own (buildah's) would be kept alive, with all
/// that is mounted in it, for as long as this process lives.
fn leave_mount_namespace(root: &Path) {
    let place = || std::fs::metadata(root).ok().map(|m| (m.dev(), m.ino()));
    let open = |pid: &str| std::fs::File::open(format!("/proc/{pid}/ns/mnt")).ok();
    let (Some(here), Some(own), Some(first)) = (place(), open("self"), open("1")) else { return };
    let enter = |namespace: &std::fs::File| {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(rustix::thread::LinkNameSpaceType::Mount))
    };
    // Who may not do so stays where it is.
    if enter(&first).is_ok() && place() != Some(here) {
        let _ = enter(&own);
    }
}

/// Takes the lock that makes one supervisor a directory; `None` if it is taken.
fn lock(root: &Path) -> Result<Option<std::fs::File>, String> {
    let path = root.join("supervisor.lock");
    let file = std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn listen(path: &Path) -> Result<OwnedFd, String> {
    let at = |e: rustix::io::Errno| format!("{}: {e}", path.display());
    // Ours to replace: we hold the lock.
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(at)?;
    let address = SocketAddrUnix::new(path).map_err(at)?;
    rustix::net::bind(&socket, &address).map_err(at)?;
    rustix::net::listen(&socket, 128).map_err(at)?;
    Ok(socket)
}

/// Lets go of the stdio we were started with.
fn silence() -> Result<(), String> {
    let null =
        std::fs::File::options().read(true).write(true).open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| e.to_string())?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| e.to_string())?;
    rustix::stdio::dup2_stderr(&null).map_err(|e| e.to_string())
}

fn confine(keep: &[i32]) -> Result<(), ConfineError> {
    let privileged = rustix::process::geteuid().is_root();
    // To open the roots of exports and bundles, whoever owns them.
    let files = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];
    let capabilities: Vec<Capability> = files
        .into_iter()
        .filter(|c| {
            let permitted = cofferdam_confine::caps::CapSet::Permitted;
            privileged && cofferdam_confine::caps::has_cap(None, permitted, *c).unwrap_or(false)
        })
        .collect();
    Walls { policy: "supervisor", keep, capabilities: &capabilities, landlock: None, trees: &[], dumpable: false }
        .raise()?;
    Ok(())
}

/// Serves command lines of `ours` (and of root) until there is nothing to stay for.
async fn serve(root: &Path, launcher: Channel, listener: OwnedFd, ours: u32) -> Result<(), String> {
    // Root of a user namespace has no more rights on the host than whoever made that.
    let privileged = ours == 0 && Ids::own("uid_map").map_err(|e| e.to_string())?.are_all();
    let house = House::new(root.to_owned(), privileged, launcher).map_err(|e| e.to_string())?;
    let launcher_ends = house.hear_launcher();
    tokio::pin!(launcher_ends);
    // Only readiness is asked of this type: the socket is SEQPACKET, and we accept by ourselves.
    let ready = tokio::net::UnixListener::from_std(std::os::unix::net::UnixListener::from(listener))
        .map_err(|e| e.to_string())?;
    loop {
        tokio::select! {
            why = &mut launcher_ends => return Err(why),
            socket = accept(&ready) => {
                let socket = socket?;
                let credentials = rustix::net::sockopt::socket_peercred(&socket).map_err(|e| e.to_string())?;
                let uid = credentials.uid.as_raw();
                if uid == ours || uid == 0 {
                    let pid = credentials.pid.as_raw_nonzero().get();
                    let channel = AsyncChannel::new(Channel::new(socket)).map_err(|e| e.to_string())?;
                    tokio::task::spawn_local(server::serve(house.clone(), channel, Peer { uid, pid }));
                }
            }
            () = idle(&house) => return Ok(()),
        }
    }
}

async fn accept(ready: &tokio::net::UnixListener) -> Result<OwnedFd, String> {
    // tokio's own accept makes a stream of it, which is only a name: the descriptor is what is wanted.
    let (stream, _) = ready.accept().await.map_err(|e| e.to_string())?;
    stream.into_std().map(OwnedFd::from).map_err(|e| e.to_string())
}

/// Comes back when there has been nothing to stay for, for a moment.
async fn idle(house: &House) {
    loop {
        if house.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if house.is_empty() {
                return;
            }
        }
        house.less.notified().await;
    }
}
