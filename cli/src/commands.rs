//! The commands.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{self, Owner, Request, Response};
use cofferdam_control::rfc3339;
use cofferdam_control::sentry::{ExitStatus, FailureKind, PlatformChoice};
use serde_json::{Value, json};

use crate::arguments::{Arguments, Command, Create, Do, Globals, Platform, Switch};
use crate::connection::{Connection, root, sweep};
use crate::failure::{Failure, Report};
use crate::foreground::{Stay, Terminal};
use crate::terminal::Raw;
use crate::{document, standin, terminal};

/// Carries out a command.
pub fn run(arguments: Arguments, report: &Report) -> Result<ExitCode, Failure> {
    let globals = &arguments.globals;
    let root = root(globals)?;
    if globals.systemd_cgroup {
        report.warning("--systemd-cgroup: containers are not put into systemd slices yet; the flag has no effect");
    }
    match arguments.command {
        Command::Do(asked) => do_command(&asked, globals, &root, report),
        Command::Spec { bundle } => spec(&bundle),
        Command::Create(create) => detached(&create, globals, &root, report, false),
        Command::Run { create, detach: true, .. } => detached(&create, globals, &root, report, true),
        Command::Run { create, keep, .. } => run_command(&create, keep, globals, &root, report),
        Command::Start { id } => known(&root, &id)?.ask(&Request::Start { id }).map(|_| ExitCode::SUCCESS),
        Command::State { id } => state(&root, &id),
        Command::Kill { id, signal, all } => {
            let signal = parse_signal(&signal)?;
            known(&root, &id)?.ask(&Request::Kill { id, signal, all }).map(|_| ExitCode::SUCCESS)
        }
        Command::Delete { id, force } => delete(&root, &id, force),
        Command::List { format, quiet } => list(&root, &format, quiet),
        Command::StandIn { id } => standin::run(&root, &id),
    }
}

fn platform(globals: &Globals) -> PlatformChoice {
    match globals.platform {
        Platform::Auto => PlatformChoice::Auto,
        Platform::Notify => PlatformChoice::Notify,
        Platform::Ptrace => PlatformChoice::Ptrace,
    }
}

/// A request with its descriptors' owners beside it.
struct Order<'a> {
    create: client::Create,
    stdio: Vec<BorrowedFd<'a>>,
}

impl<'a> Order<'a> {
    fn send(
        mut self,
        connection: &Connection,
        report: &'a Report,
        stderr: BorrowedFd<'a>,
        trace: &mut Vec<(String, u64)>,
    ) -> Result<(), Failure> {
        if let Some((fd, format, level)) = report.for_services(stderr) {
            self.create.log = Some((format, level));
            self.stdio.push(fd);
        }
        match connection.ask_traced(&Request::Create(Box::new(self.create)), &self.stdio, trace)? {
            Response::Created { platform, why } => {
                report.debug(&format!("platform {platform}: {why}"));
                Ok(())
            }
            _ => Err(Failure::Supervisor("answered something else".into())),
        }
    }
}

fn do_command(asked: &Do, globals: &Globals, root: &Path, report: &Report) -> Result<ExitCode, Failure> {
    let tty = terminal::interactive();
    let (config, verbatim) = document::of_do(asked, tty)?;
    let id = format!("do-{}-{:x}", std::process::id(), monotonic_ns());
    let create = client::Create {
        id,
        bundle: b"/".to_vec(),
        config: Some(config.to_string().into_bytes()),
        overlay: true,
        platform: platform(globals),
        patch: globals.patch == Switch::On,
        plain: true,
        owner: Owner::Connection,
        tty,
        console_size: None,
        log: None,
        trace_startup: globals.trace_startup,
        verbatim: Some(verbatim),
    };
    let end = in_foreground(create, None, globals, root, report, false)?;
    Ok(standin::end_as(end))
}

fn run_command(
    create: &Create,
    keep: bool,
    globals: &Globals,
    root: &Path,
    report: &Report,
) -> Result<ExitCode, Failure> {
    let (bundle, wants_tty) = bundle_of(create)?;
    if wants_tty && create.console_socket.is_none() && !terminal::interactive() {
        return Err(Failure::Usage("config.json asks for a terminal, and there is none: use --console-socket".into()));
    }
    let request = client::Create {
        id: create.id.clone(),
        bundle: bundle.as_os_str().as_bytes().to_vec(),
        config: None,
        overlay: !create.no_overlay,
        platform: platform(globals),
        patch: globals.patch == Switch::On,
        plain: false,
        owner: if keep { Owner::Itself } else { Owner::Connection },
        tty: wants_tty,
        console_size: None,
        log: None,
        trace_startup: globals.trace_startup,
        verbatim: None,
    };
    let end = in_foreground(request, Some(create), globals, root, report, keep)?;
    // As runc: a status, never a signal of its own.
    Ok(match end {
        ExitStatus::Code(code) => ExitCode::from(code),
        ExitStatus::Signal(signal, _) => ExitCode::from(u8::try_from(signal & 0x7f).unwrap_or(0) | 0x80),
    })
}

/// Makes a container, runs it and stays until its end. If the supervisor is lost, clears up in its place.
fn in_foreground(
    request: client::Create,
    oci: Option<&Create>,
    globals: &Globals,
    root: &Path,
    report: &Report,
    keep: bool,
) -> Result<ExitStatus, Failure> {
    let id = request.id.clone();
    let ended = foreground_start_to_end(request, oci, globals, root, report, keep);
    if ended.as_ref().is_err_and(Failure::supervisor_lost) && !keep {
        sweep(root, &id);
    }
    ended
}

fn foreground_start_to_end(
    mut request: client::Create,
    oci: Option<&Create>,
    globals: &Globals,
    root: &Path,
    report: &Report,
    keep: bool,
) -> Result<ExitStatus, Failure> {
    let begun = monotonic_ns();
    // As a shell says it, for `do`; an OCI runtime ends with 1 whatever went wrong.
    let not_run = |e| if oci.is_none() { Failure::NotRun(Box::new(e)) } else { e };
    let mut signals = Signals::take(&signals::forwardable())
        .map_err(|e| Failure::Host { what: "signals".into(), source: std::io::Error::other(e) })?;
    let id = request.id.clone();
    let connection = Connection::open(root)?;
    let connected = monotonic_ns();
    let mut trace = Vec::new();
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let console = match oci.and_then(|c| c.console_socket.as_ref()) {
        Some(socket) if request.tty => Some(terminal::console(socket, request.console_size)?),
        _ => None,
    };
    let own_tty = request.tty && console.is_none();
    let stdio = match (&console, request.tty) {
        (Some(slave), _) => vec![slave.as_fd()],
        (None, true) => vec![stdin.as_fd()],
        (None, false) => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
    };
    if own_tty {
        request.console_size = terminal::size(stdin.as_fd());
    }
    Order { create: request, stdio }.send(&connection, report, stderr.as_fd(), &mut trace).map_err(not_run)?;
    drop(console);
    let raw = if own_tty { Some(Raw::enter()?) } else { None };
    let done = (|| {
        connection.ask(&Request::StandIn { id: id.clone() })?;
        if let Some(file) = oci.and_then(|c| c.pid_file.as_ref()) {
            write_pid(file, std::process::id())?;
        }
        connection.ask_traced(&Request::Start { id: id.clone() }, &[], &mut trace).map_err(not_run)?;
        let terminal = raw.as_ref().map_or(Terminal::None, Terminal::Raw);
        Stay { connection: &connection, id: &id, terminal, job: oci.is_none() }.wait(&mut signals, &mut trace)
    })();
    drop(raw);
    let ended = done?;
    if globals.trace_startup {
        print_trace(begun, connected, &trace);
    }
    if let Some(reason) = ended.reason {
        return Err(Failure::Refused { kind: FailureKind::Internal, message: format!("sandbox lost: {reason}") });
    }
    if !keep {
        connection.ask(&Request::Delete { id, force: true })?;
    }
    Ok(ended.status)
}

/// `create`, and `run --detach`.
fn detached(create: &Create, globals: &Globals, root: &Path, report: &Report, run: bool) -> Result<ExitCode, Failure> {
    let begun = monotonic_ns();
    let (bundle, tty) = bundle_of(create)?;
    let connection = Connection::open(root)?;
    let connected = monotonic_ns();
    let console = match (&create.console_socket, tty) {
        (Some(socket), true) => Some(terminal::console(socket, None)?),
        (None, true) => {
            return Err(Failure::Usage(
                "cannot allocate tty if runc will detach without setting console socket".replace("runc", "cofferdam"),
            ));
        }
        (Some(_), false) => {
            return Err(Failure::Usage(
                "cannot use console socket if cofferdam will not detach or allocate tty".into(),
            ));
        }
        (None, false) => None,
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = match &console {
        Some(slave) => vec![slave.as_fd()],
        None => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
    };
    let request = client::Create {
        id: create.id.clone(),
        bundle: bundle.as_os_str().as_bytes().to_vec(),
        config: None,
        overlay: !create.no_overlay,
        platform: platform(globals),
        patch: globals.patch == Switch::On,
        plain: false,
        owner: Owner::Itself,
        tty,
        console_size: None,
        log: None,
        trace_startup: globals.trace_startup,
        verbatim: None,
    };
    let mut trace = Vec::new();
    let made = Order { create: request, stdio }.send(&connection, report, stderr.as_fd(), &mut trace);
    if made.as_ref().is_err_and(Failure::supervisor_lost) {
        sweep(root, &create.id);
    }
    made?;
    let pid = standin::start(root, &create.id, console.as_ref().map(AsFd::as_fd))?;
    let finish = || {
        if let Some(file) = &create.pid_file {
            write_pid(file, pid)?;
        }
        if run {
            connection.ask(&Request::Start { id: create.id.clone() })?;
        }
        Ok(())
    };
    if let Err(e) = finish() {
        let _ = connection.ask(&Request::Delete { id: create.id.clone(), force: true });
        return Err(e);
    }
    if globals.trace_startup {
        print_trace(begun, connected, &trace);
    }
    Ok(ExitCode::SUCCESS)
}

/// The bundle's absolute path, and whether its document asks for a terminal. Everything else in the document is the
/// supervisor's to read; a document that cannot be read is its to refuse.
fn bundle_of(create: &Create) -> Result<(PathBuf, bool), Failure> {
    let bundle = std::path::absolute(&create.bundle).map_err(Failure::host(create.bundle.display().to_string()))?;
    let meta = std::fs::metadata(&bundle).map_err(Failure::host(bundle.display().to_string()))?;
    if !meta.is_dir() {
        return Err(Failure::Usage(format!("{}: not a directory", bundle.display())));
    }
    let path = bundle.join("config.json");
    if !std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
        return Ok((bundle, false));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).map_err(Failure::host(path.display().to_string()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut text)
        .map_err(Failure::host(path.display().to_string()))?;
    let tty = serde_json::from_slice::<Value>(&text)
        .ok()
        .and_then(|v| v.pointer("/process/terminal").and_then(Value::as_bool))
        .unwrap_or(false);
    Ok((bundle, tty))
}

fn write_pid(file: &Path, pid: u32) -> Result<(), Failure> {
    // Renamed into place, as runc does: a reader never sees half of it.
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = file.with_file_name(format!(".{name}"));
    let failed = || Failure::host(format!("--pid-file {}", file.display()));
    std::fs::write(&new, pid.to_string()).map_err(failed())?;
    std::fs::rename(&new, file).map_err(failed())
}

fn spec(bundle: &Path) -> Result<ExitCode, Failure> {
    let path = bundle.join("config.json");
    let mut file = std::fs::File::create_new(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Usage("File config.json exists. Remove it first".into()),
        _ => Failure::Host { what: path.display().to_string(), source },
    })?;
    let text = serde_json::to_vec_pretty(&document::template()).map_err(|e| Failure::Usage(e.to_string()))?;
    file.write_all(&text).map_err(Failure::host(path.display().to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn not_there() -> Failure {
    Failure::Refused { kind: FailureKind::NoSuchContainer, message: "container does not exist".into() }
}

/// The supervisor, which must run if there is such a container at all.
fn known(root: &Path, id: &str) -> Result<Connection, Failure> {
    match Connection::existing(root)? {
        Some(connection) => Ok(connection),
        None if stale(root, id).is_some() => {
            Err(Failure::Refused { kind: FailureKind::WrongState, message: "container not running".into() })
        }
        None => Err(not_there()),
    }
}

/// What an earlier supervisor left of a container: it ended with that one.
fn stale(root: &Path, id: &str) -> Option<Value> {
    let plain = !id.is_empty() && !id.starts_with('.') && !id.contains('/');
    let text = std::fs::read(root.join(plain.then_some(id)?).join("state.json")).ok()?;
    let mut state: Value = serde_json::from_slice(&text).ok()?;
    state["status"] = "stopped".into();
    state["pid"] = 0.into();
    Some(state)
}

fn oci(state: &client::State, root: &Path) -> Value {
    let kept = stale(root, &state.id).unwrap_or(json!({}));
    json!({
        "ociVersion": kept.get("ociVersion").cloned().unwrap_or("1.0.2".into()),
        "id": state.id,
        "pid": state.pid,
        "status": state.status.word(),
        "bundle": String::from_utf8_lossy(&state.bundle),
        "rootfs": kept.get("rootfs").cloned().unwrap_or_default(),
        "created": rfc3339(state.created),
        "annotations": kept.get("annotations").cloned().unwrap_or(json!({})),
        "owner": state.owner.to_string(),
    })
}

fn state(root: &Path, id: &str) -> Result<ExitCode, Failure> {
    let value = match Connection::existing(root)? {
        Some(connection) => match connection.ask(&Request::State { id: id.into() }) {
            Ok(Response::State(state)) => oci(&state, root),
            Ok(_) => return Err(Failure::Supervisor("answered something else".into())),
            Err(e) if e.kind() == Some(FailureKind::NoSuchContainer) => stale(root, id).ok_or(e)?,
            Err(e) => return Err(e),
        },
        None => stale(root, id).ok_or_else(not_there)?,
    };
    print(&format!("{value:#}\n"))
}

fn list(root: &Path, format: &str, quiet: bool) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    if let Some(connection) = Connection::existing(root)?
        && let Response::List(states) = connection.ask(&Request::List)?
    {
        all.extend(states.iter().map(|s| oci(s, root)));
    }
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if let Some(id) = entry.file_name().to_str()
            && !all.iter().any(|v| v["id"] == id)
            && let Some(value) = stale(root, id)
        {
            all.push(value);
        }
    }
    if quiet {
        let ids: String = all.iter().filter_map(|v| v["id"].as_str()).map(|id| format!("{id}\n")).collect();
        return print(&ids);
    }
    if format == "json" {
        return print(&format!("{}\n", Value::from(all)));
    }
    let mut text = format!("{:<24} {:>8} {:<10} {:<40} {}\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for v in &all {
        let word = |key: &str| v[key].as_str().map_or_else(|| v[key].to_string(), str::to_owned);
        let (id, pid, status) = (word("id"), word("pid"), word("status"));
        text.push_str(&format!("{id:<24} {pid:>8} {status:<10} {:<40} {}\n", word("bundle"), word("created")));
    }
    print(&text)
}

fn delete(root: &Path, id: &str, force: bool) -> Result<ExitCode, Failure> {
    if let Some(connection) = Connection::existing(root)? {
        match connection.ask(&Request::Delete { id: id.into(), force }) {
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(e) if e.kind() == Some(FailureKind::NoSuchContainer) => {}
            Err(e) => return Err(e),
        }
    }
    // Nobody runs it: what is left is an earlier supervisor's folder.
    if stale(root, id).is_some() {
        let folder = root.join(id);
        std::fs::remove_dir_all(&folder).map_err(Failure::host(folder.display().to_string()))?;
        sweep(root, id);
        return Ok(ExitCode::SUCCESS);
    }
    if force { Ok(ExitCode::SUCCESS) } else { Err(not_there()) }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::host("stdout"))?;
    Ok(ExitCode::SUCCESS)
}

/// `9`, `KILL` or `SIGKILL`; `RTMIN+n`.
fn parse_signal(text: &str) -> Result<i32, Failure> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let unknown = || Failure::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let plus: i32 = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+').and_then(|n| n.parse().ok()).ok_or_else(unknown)?
        };
        return if (0..=30).contains(&plus) { Ok(34 + plus) } else { Err(unknown()) };
    }
    let place = NAMES.iter().position(|n| *n == name).ok_or_else(unknown)?;
    i32::try_from(place + 1).map_err(|_| unknown())
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The table of --trace-startup, on stderr: each phase's end since the command began, and its length.
fn print_trace(begun: u64, connected: u64, phases: &[(String, u64)]) {
    let mut all = vec![("connected to the supervisor".to_owned(), connected)];
    all.extend_from_slice(phases);
    all.sort_by_key(|(_, at)| *at);
    eprintln!("{:<40} {:>10} {:>10}", "phase", "at ms", "took ms");
    let mut before = begun;
    for (name, at) in all {
        let ms = |ns: u64| ns as f64 / 1e6;
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        eprintln!("{name:<40} {:>10.2} {:>10.2}", ms(at.saturating_sub(begun)), ms(at.saturating_sub(before)));
        before = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGSYS", 31), ("RTMIN+3", 37), ("SIGRTMIN", 34)]
        {
            assert_eq!(parse_signal(text).unwrap(), number);
        }
        for text in ["0", "65", "-1", "NOPE", "RTMIN+31", ""] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
