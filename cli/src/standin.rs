//! The stand-in: the process that a client knows as the container's init.
//!
//! `create` starts it; it re-parents to the client when `create` ends, passes signals on and ends as the container's
//! init ends. It holds its connection to the supervisor and, as stdin, the container's terminal if there is one, which it
//! never reads: its stdio is /dev/null otherwise.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use cofferdam_confine::cgroup;
use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{Request, Response};
use cofferdam_control::sentry::ExitStatus;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::foreground::{Stay, Terminal};
use crate::{connection, namespaces, notify, terminal};

/// Starts the stand-in of a process of `id` and waits until the supervisor knows it. Returns its pid. It gets the process's
/// terminal, if there is one, as its own: whoever changes the size of that at the master's end signals it.
pub fn start(root: &Path, id: &str, process: u32, terminal: Option<BorrowedFd<'_>>) -> Result<u32, Failure> {
    let stdin = match terminal {
        Some(slave) => slave.try_clone_to_owned().map_err(Failure::host("the terminal"))?.into(),
        None => Stdio::null(),
    };
    let (mut hear, voice) = std::io::pipe().map_err(Failure::host("pipe"))?;
    // Where the user's bus is, if systemd must be asked.
    let bus = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"].map(|name| (name, std::env::var_os(name)));
    let child = Command::new("/proc/self/exe")
        .arg("--root")
        .arg(root)
        .args(["stand-in", "--", id, &process.to_string()])
        .current_dir("/")
        .env_clear()
        .envs(bus.into_iter().filter_map(|(name, value)| Some((name, value?))))
        .stdin(stdin)
        .stdout(voice)
        .stderr(Stdio::null())
        .spawn()
        .map_err(Failure::host("the container's stand-in"))?;
    let mut text = String::new();
    let _ = (&mut hear).take(4096).read_to_string(&mut text);
    match text.as_str() {
        "ready\n" => Ok(child.id()),
        why => Err(Failure::Supervisor(format!("the container's stand-in: {}", why.trim()))),
    }
}

/// Is it.
pub fn run(root: &Path, id: &str, process: u32) -> Result<ExitCode, Failure> {
    cofferdam_confine::close_inherited()
        .map_err(|e| Failure::Host { what: "inherited descriptors".into(), source: std::io::Error::other(e) })?;
    let _ = rustix::process::setsid();
    let mut signals = Signals::take(&signals::forwardable())
        .map_err(|e| Failure::Host { what: "signals".into(), source: std::io::Error::other(e) })?;
    cofferdam_confine::spawn::set_name(c"cofferdam-init");
    let stdin = std::io::stdin();
    // Fails for /dev/null, which is no terminal.
    let terminal = rustix::process::ioctl_tiocsctty(&stdin).is_ok();
    // By itself: it has its caller's rights, which are more than the supervisor's.
    let folder = root.join(id);
    let joined = cgroup::join_recorded(&folder).map_err(Failure::host("the container's cgroup"));
    if let Err(e) = joined.or_else(|e| connection::join_unit(&folder).unwrap_or(Err(e))) {
        println!("{e}");
        return Err(e);
    }
    let null = std::fs::File::options().write(true).open("/dev/null").map_err(Failure::host("/dev/null"))?;
    let asked = Connection::existing(root).and_then(|c| match c {
        Some(c) => match c.ask(&Request::StandIn { id: id.into(), process })? {
            Response::Done => Ok(c),
            _ => Err(Failure::Supervisor("answered something else".into())),
        },
        None => Err(Failure::Supervisor("is gone".into())),
    });
    // Before the host's names are out of sight.
    let manager = if process == 0 { notify::recorded(root, id).and_then(Result::ok) } else { None };
    // Engines know what is a container's by its first process.
    let enter = |connection: Connection| {
        if let Some((network, from)) = namespaces::enter(root, id)? {
            connection.ask_traced(&Request::Network { id: id.into(), from }, &[network.as_fd()], &mut Vec::new())?;
        }
        Ok(connection)
    };
    let asked = if process == 0 { asked.and_then(enter) } else { asked };
    match &asked {
        Ok(_) => println!("ready"),
        Err(e) => println!("{e}"),
    }
    let connection = asked?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| Failure::Host { what: "stdout".into(), source: e.into() })?;
    // What it was set to before it was ours.
    if terminal && let Some((rows, cols)) = terminal::size(stdin.as_fd()).filter(|s| *s != (0, 0)) {
        let _ = connection.ask(&Request::Resize { id: id.into(), process, rows, cols });
    }
    let watched = if terminal { Terminal::Watched } else { Terminal::None };
    if manager.is_some() {
        connection.watch_ready(id)?;
    }
    let manager = manager.map(|manager| (manager, None));
    let stay = Stay { connection: &connection, id, process, terminal: watched, job: false, manager };
    let status = match stay.wait(&mut signals, &mut Vec::new()) {
        Ok(ended) => ended.status,
        // No supervisor, no container: as if killed.
        Err(_) => ExitStatus::Signal(9, false),
    };
    Ok(end_as(status))
}

/// Ends this process as the container's ended: by its signal if that can be, else by code.
pub fn end_as(status: ExitStatus) -> ExitCode {
    match status {
        ExitStatus::Code(code) => ExitCode::from(code),
        ExitStatus::Signal(signal, _) => {
            signals::die_of(signal);
            ExitCode::from(u8::try_from(signal & 0x7f).unwrap_or(0) | 0x80)
        }
    }
}
