//! The commands.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cofferdam_confine::cgroup;
use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{self, Owner, Request, Response, Status};
use cofferdam_control::sentry::{ExitStatus, FailureKind, FileAccess, PlatformChoice};
use cofferdam_control::{calls, rfc3339};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::{Value, json};

use crate::arguments::{self, Arguments, Command, Create, Do, Globals, Platform, Switch};
use crate::connection::{Connection, root, stop_unit, sweep};
use crate::failure::{Failure, Report};
use crate::foreground::{Stay, Terminal};
use crate::hooks::{self, Hooks};
use crate::network::{NAMES, Network};
use crate::notify::{self, Manager};
use crate::terminal::Own;
use crate::{activation, document, events, exec, features, namespaces, standin, terminal, update};

/// Who waits for news of a container, when he cannot be told.
const MANAGER: &str = "NOTIFY_SOCKET";

/// Carries out a command.
pub fn run(arguments: Arguments, more: &[OwnedFd], report: &Report) -> Result<ExitCode, Failure> {
    let globals = &arguments.globals;
    let root = root(globals)?;
    match arguments.command {
        Command::Do(asked) => do_command(&asked, globals, &root, report),
        Command::Spec { bundle, rootless } => spec(&bundle, rootless),
        Command::Create(create) => detached(&create, more, globals, &root, report, false),
        Command::Run { create, detach: true, .. } => detached(&create, more, globals, &root, report, true),
        Command::Run { create, keep, .. } => run_command(&create, more, keep, globals, &root, report),
        Command::Start { id } => start(&root, &id, report),
        Command::Exec(asked) => exec::run(&asked, &root, more),
        Command::Ps { id, format, options } => ps(&root, &id, &format, &options),
        Command::Pause { id } => freeze(&root, id, true),
        Command::Resume { id } => freeze(&root, id, false),
        Command::Wait { id } => wait(&root, &id),
        Command::State { id } => state(&root, &id),
        Command::Kill { id, signal, all } => {
            let connection = known(&root, &id)?;
            let signal = match parse_signal(&signal) {
                Ok(signal) => signal,
                // As runc: a container that is not there is told before a signal that there is not.
                Err(e) => return Err(connection.ask(&Request::State { id }).err().unwrap_or(e)),
            };
            connection.ask(&Request::Kill { id, process: 0, signal, all }).map(|_| ExitCode::SUCCESS)
        }
        Command::Delete { id, force } => delete(&root, &id, force, report),
        Command::Update(asked) => update::run(&known(&root, &asked.id)?, &asked),
        Command::Events(asked) => events::run(&known(&root, &asked.id)?, &asked),
        Command::Features => print(&format!("{:#}\n", features::document())),
        Command::Debug { id, .. } => unimplemented_calls(&root, &id),
        Command::List { format, quiet } => list(&root, &format, quiet),
        Command::StandIn { id, process } => standin::run(&root, &id, process),
    }
}

fn platform(globals: &Globals) -> PlatformChoice {
    match globals.platform {
        Platform::Auto => PlatformChoice::Auto,
        Platform::Notify => PlatformChoice::Notify,
        Platform::Ptrace => PlatformChoice::Ptrace,
    }
}

fn access(asked: arguments::FileAccess) -> FileAccess {
    match asked {
        arguments::FileAccess::Exclusive => FileAccess::Exclusive,
        arguments::FileAccess::Shared => FileAccess::Shared,
    }
}

/// Has a container made, with these streams. Returns what its caller is to be warned of where there is no log.
fn make(
    mut create: client::Create,
    streams: Vec<BorrowedFd<'_>>,
    connection: &Connection,
    report: &Report,
    stderr: Option<BorrowedFd<'_>>,
    trace: &mut Vec<(String, u64)>,
) -> Result<Vec<String>, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty());
    let root = root.map_err(|e| Failure::Host { what: "/".into(), source: e.into() })?;
    let mut all: Vec<BorrowedFd<'_>> = streams.into_iter().chain([root.as_fd()]).collect();
    if let Some((fd, format, level)) = report.for_services(stderr) {
        create.log = Some((format, level));
        all.push(fd);
    }
    match connection.ask_traced(&Request::Create(Box::new(create)), &all, trace)? {
        Response::Created { platform, why, warnings } => {
            report.debug(&format!("platform {platform}: {why}"));
            Ok(warnings)
        }
        _ => Err(Failure::Supervisor("answered something else".into())),
    }
}

/// A request for a container as the flags before the command say, of no bundle yet.
fn request(globals: &Globals) -> client::Create {
    client::Create {
        id: String::new(),
        bundle: Vec::new(),
        config: None,
        overlay: globals.overlay == Switch::On,
        root_access: access(globals.file_access),
        mounts_access: access(globals.file_access_mounts),
        platform: platform(globals),
        patch: globals.patch == Switch::On,
        plain: false,
        owner: Owner::Itself,
        systemd_cgroup: globals.systemd_cgroup,
        tty: false,
        more_files: 0,
        listen_files: 0,
        console_size: None,
        log: None,
        trace_startup: globals.trace_startup,
        notify: false,
        verbatim: None,
    }
}

/// That of `create` and `run`.
fn of_bundle(create: &Create, bundle: &Path, tty: bool, globals: &Globals) -> client::Create {
    client::Create {
        id: create.id.clone(),
        bundle: bundle.as_os_str().as_bytes().to_vec(),
        tty,
        more_files: create.preserve_fds.saturating_add(activation::handed()),
        listen_files: activation::handed(),
        notify: notify::asked(),
        ..request(globals)
    }
}

fn do_command(asked: &Do, globals: &Globals, root: &Path, report: &Report) -> Result<ExitCode, Failure> {
    let tty = terminal::interactive();
    let network = Network::of(asked)?;
    network.warnings().iter().for_each(|w| report.warning(w));
    let (config, verbatim) = document::of_do(asked, &network, tty)?;
    let id = format!("do-{}-{:x}", std::process::id(), monotonic_ns());
    let create = client::Create {
        id,
        bundle: b"/".to_vec(),
        config: Some(config.to_string().into_bytes()),
        overlay: true,
        plain: true,
        owner: Owner::Connection,
        tty,
        verbatim: Some(verbatim),
        ..request(globals)
    };
    let end = in_foreground(create, Of::Do(&network), &[], globals, root, report, false)?;
    // What was made for it goes before this process does, which may be by a signal.
    drop(network);
    Ok(standin::end_as(end))
}

fn run_command(
    create: &Create,
    more: &[OwnedFd],
    keep: bool,
    globals: &Globals,
    root: &Path,
    report: &Report,
) -> Result<ExitCode, Failure> {
    let (bundle, wants_tty) = bundle_of(create)?;
    let owner = if keep { Owner::Itself } else { Owner::Connection };
    let request = client::Create { owner, ..of_bundle(create, &bundle, wants_tty, globals) };
    let end = in_foreground(request, Of::Bundle(create), more, globals, root, report, keep)?;
    Ok(exit_code(end))
}

/// How `run` and `exec` end when what they ran has ended so. As runc: a status, never a signal of its own.
pub fn exit_code(end: ExitStatus) -> ExitCode {
    match end {
        ExitStatus::Code(code) => ExitCode::from(code),
        ExitStatus::Signal(signal, _) => ExitCode::from(u8::try_from(signal & 0x7f).unwrap_or(0) | 0x80),
    }
}

/// What is run in the foreground.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// A bundle, as an OCI runtime does.
    Bundle(&'a Create),
    /// A person's command.
    Do(&'a Network),
}

/// Makes a container, runs it and stays until its end. If the supervisor is lost, clears up in its place.
fn in_foreground(
    request: client::Create,
    of: Of<'_>,
    more: &[OwnedFd],
    globals: &Globals,
    root: &Path,
    report: &Report,
    keep: bool,
) -> Result<ExitStatus, Failure> {
    let id = request.id.clone();
    let ended = foreground_start_to_end(request, of, more, globals, root, report, keep);
    if ended.as_ref().is_err_and(Failure::supervisor_lost) && !keep {
        sweep(root, &id);
    }
    ended
}

fn foreground_start_to_end(
    mut request: client::Create,
    of: Of<'_>,
    more: &[OwnedFd],
    globals: &Globals,
    root: &Path,
    report: &Report,
    keep: bool,
) -> Result<ExitStatus, Failure> {
    let begun = monotonic_ns();
    let (oci, network) = match of {
        Of::Bundle(create) => (Some(create), None),
        Of::Do(network) => (None, Some(network)),
    };
    // As a shell says it, for `do`; an OCI runtime ends with 1 whatever went wrong.
    let not_run = |e| if oci.is_none() { Failure::NotRun(Box::new(e)) } else { e };
    let mut signals = Signals::take(&signals::forwardable())
        .map_err(|e| Failure::Host { what: "signals".into(), source: std::io::Error::other(e) })?;
    let id = request.id.clone();
    let connection = Connection::open(root)?;
    let connected = monotonic_ns();
    let mut trace = Vec::new();
    let console = match oci.and_then(|c| c.console_socket.as_ref()) {
        Some(socket) if request.tty => Some(terminal::console(socket, request.console_size)?),
        _ => None,
    };
    let own_tty = request.tty && console.is_none();
    let mut own = Own::new(own_tty)?;
    let slave = console.as_ref().map(AsFd::as_fd).or_else(|| own.slave());
    if own_tty {
        request.console_size = own.size();
    }
    let notified = request.notify;
    if let Some(names) = network.and_then(Network::names) {
        let file = names.try_clone_to_owned().map_err(Failure::host("a resolv.conf for the sandbox"))?;
        connection.has_made(NAMES, file);
    }
    let stdio = terminal::streams(slave, request.tty, more);
    let warnings =
        make(request, stdio, &connection, report, Some(rustix::stdio::stderr()), &mut trace).map_err(not_run)?;
    warnings.iter().chain(&activation::warnings(more)).for_each(|w| report.warning(w));
    drop(console);
    own.go()?;
    let of = if oci.is_some() { Some(Hooks::of(root, &id)) } else { None };
    let done = (|| {
        connection.ask(&Request::StandIn { id: id.clone(), process: 0 })?;
        of.iter().try_for_each(|h| h.run(hooks::CREATE, Status::Creating, std::process::id()))?;
        if let Some(file) = oci.and_then(|c| c.pid_file.as_ref()) {
            write_pid(file, std::process::id())?;
        }
        of.iter().try_for_each(|h| h.inside(&connection, std::process::id()))?;
        if let Some((network, from)) = oci.map(|_| namespaces::network(root, &id)).transpose()?.flatten() {
            connection.ask_traced(&Request::Network { id: id.clone(), from }, &[network.as_fd()], &mut trace)?;
        }
        if let Some((network, descriptors)) = network.and_then(|n| Some((n, n.descriptors()?))) {
            let from = network.from.clone();
            connection.ask_traced(&Request::Network { id: id.clone(), from }, &descriptors, &mut trace)?;
        }
        connection.ask_traced(&Request::Start { id: id.clone(), process: 0 }, &[], &mut trace).map_err(not_run)?;
        of.iter().for_each(|h| h.run_all("poststart", Status::Running, std::process::id(), report));
        let terminal = Terminal::of(&own);
        let manager = match Manager::of_caller().filter(|_| notified) {
            // As runc: the container is not the worse for it.
            Some(Err(e)) => {
                report.warning(&format!("{MANAGER}: {e}"));
                None
            }
            manager => manager.and_then(Result::ok),
        };
        if manager.is_some() {
            connection.watch_ready(&id)?;
        }
        let manager = manager.map(|manager| (manager, Some(std::process::id())));
        Stay { connection: &connection, id: &id, process: 0, terminal, job: oci.is_none(), manager }
            .wait(&mut signals, &mut trace)
    })();
    own.finish();
    if done.is_err() {
        let _ = connection.ask(&Request::Delete { id: id.clone(), force: true });
        of.iter().for_each(|h| h.run_all("poststop", Status::Stopped, 0, report));
    }
    let ended = done?;
    if globals.trace_startup {
        print_trace(begun, connected, &trace);
    }
    if let Some(reason) = ended.reason {
        return Err(Failure::Refused { kind: FailureKind::Internal, message: format!("sandbox lost: {reason}") });
    }
    if !keep {
        connection.ask(&Request::Delete { id, force: true })?;
        of.iter().for_each(|h| h.run_all("poststop", Status::Stopped, 0, report));
    }
    Ok(ended.status)
}

/// `create`, and `run --detach`.
fn detached(
    create: &Create,
    more: &[OwnedFd],
    globals: &Globals,
    root: &Path,
    report: &Report,
    run: bool,
) -> Result<ExitCode, Failure> {
    let begun = monotonic_ns();
    let (bundle, tty) = bundle_of(create)?;
    let connection = Connection::open(root)?;
    let connected = monotonic_ns();
    let console = match (&create.console_socket, tty) {
        (Some(socket), true) => Some(terminal::console(socket, None)?),
        (None, true) => {
            return Err(Failure::Usage(
                "cannot allocate tty if cofferdam will detach without setting console socket".into(),
            ));
        }
        (Some(_), false) => {
            return Err(Failure::Usage(
                "cannot use console socket if cofferdam will not detach or allocate tty".into(),
            ));
        }
        (None, false) => None,
    };
    let request = of_bundle(create, &bundle, tty, globals);
    let mut trace = Vec::new();
    let stdio = terminal::streams(console.as_ref().map(AsFd::as_fd), tty, more);
    // Whoever reads our stderr waits for its end: where the container has a terminal nobody but us holds it.
    let shown = console.is_none().then(rustix::stdio::stderr);
    let made = make(request, stdio, &connection, report, shown, &mut trace);
    if made.as_ref().is_err_and(Failure::supervisor_lost) {
        sweep(root, &create.id);
    }
    let warnings = made?;
    // Without a console our stderr is the container's, and what comes from there is kept as its words (`podman logs`). conmon, which
    // gives its runtimes this variable, shows it as such even with one (`podman run -t` where it attaches quickly).
    let read_as_the_containers = console.is_none() && !std::io::stderr().is_terminal();
    let unheard = read_as_the_containers || std::env::var_os("_OCI_SYNCPIPE").is_some();
    let report_on = (report.has_log() || !unheard).then_some(report);
    let warn = |w: &str| report_on.iter().for_each(|report| report.warning(w));
    warnings.iter().chain(&activation::warnings(more)).for_each(|w| warn(w));
    let pid = standin::start(root, &create.id, 0, console.as_ref().map(AsFd::as_fd))?;
    let of = Hooks::of(root, &create.id);
    let finish = || {
        of.run(hooks::CREATE, Status::Creating, pid)?;
        if let Some(file) = &create.pid_file {
            write_pid(file, pid)?;
        }
        if run {
            of.inside(&connection, pid)?;
            connection.ask(&Request::Start { id: create.id.clone(), process: 0 })?;
            of.run_all("poststart", Status::Running, pid, report);
        }
        Ok(())
    };
    if let Err(e) = finish() {
        let _ = connection.ask(&Request::Delete { id: create.id.clone(), force: true });
        of.run_all("poststop", Status::Stopped, 0, report);
        return Err(e);
    }
    if globals.trace_startup {
        print_trace(begun, connected, &trace);
    }
    if run && let Err(e) = await_ready(&connection, &create.id, pid) {
        // As runc: the container is not the worse for it.
        warn(&e.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the caller waits to be told that a container is ready, waits until it says so, or has ended, and tells him: as runc.
fn await_ready(connection: &Connection, id: &str, pid: u32) -> Result<(), Failure> {
    let Some(manager) = Manager::of_caller() else { return Ok(()) };
    if connection.await_ready(id)? {
        manager.and_then(|manager| manager.ready_as(pid)).map_err(Failure::host(MANAGER))?;
    }
    Ok(())
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

/// Writes a pid file.
pub fn write_pid(file: &Path, pid: u32) -> Result<(), Failure> {
    // Renamed into place, as runc does: a reader never sees half of it.
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = file.with_file_name(format!(".{name}"));
    let failed = || Failure::host(format!("--pid-file {}", file.display()));
    std::fs::write(&new, pid.to_string()).map_err(failed())?;
    std::fs::rename(&new, file).map_err(failed())
}

fn spec(bundle: &Path, rootless: bool) -> Result<ExitCode, Failure> {
    let path = bundle.join("config.json");
    let mut file = std::fs::File::create_new(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Usage("File config.json exists. Remove it first".into()),
        _ => Failure::Host { what: path.display().to_string(), source },
    })?;
    let template = if rootless { document::rootless_template() } else { document::template() };
    let text = serde_json::to_vec_pretty(&template).map_err(|e| Failure::Usage(e.to_string()))?;
    file.write_all(&text).map_err(Failure::host(path.display().to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn not_there() -> Failure {
    Failure::Refused { kind: FailureKind::NoSuchContainer, message: "container does not exist".into() }
}

/// The supervisor, which must run if there is such a container at all.
pub fn known(root: &Path, id: &str) -> Result<Connection, Failure> {
    match Connection::existing(root)? {
        Some(connection) => Ok(connection),
        None if stale(root, id).is_some() => {
            Err(Failure::Refused { kind: FailureKind::WrongState, message: "container not running".into() })
        }
        None => Err(not_there()),
    }
}

/// Whether it can be the name of a container's folder.
fn plain_name(id: &str) -> bool {
    !id.is_empty() && !id.starts_with('.') && !id.contains('/')
}

/// What an earlier supervisor left of a container: it ended with that one.
fn stale(root: &Path, id: &str) -> Option<Value> {
    let text = std::fs::read(root.join(plain_name(id).then_some(id)?).join("state.json")).ok()?;
    let mut state: Value = serde_json::from_slice(&text).ok()?;
    state["status"] = "stopped".into();
    state["pid"] = 0.into();
    // For this program alone (`hooks`, `namespaces`).
    let known = state.as_object_mut()?;
    ["hooks", "readOnly", "mounts", "network", "notify"].iter().for_each(|k| drop(known.remove(*k)));
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
        let all: Vec<String> = all.iter().map(in_order).collect();
        return print(&format!("[{}]\n", all.join(",")));
    }
    let mut text = format!("{:<24} {:>8} {:<10} {:<40} {}\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for v in &all {
        let word = |key: &str| v[key].as_str().map_or_else(|| v[key].to_string(), str::to_owned);
        let (id, pid, status) = (word("id"), word("pid"), word("status"));
        text.push_str(&format!("{id:<24} {pid:>8} {status:<10} {:<40} {}\n", word("bundle"), word("created")));
    }
    print(&text)
}

/// A state on one line with its members in runc's order.
fn in_order(state: &Value) -> String {
    let names = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
    let members = names.iter().map(|name| format!("{}:{}", json!(name), state[name]));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// A table of the system calls that a container made in vain.
fn unimplemented_calls(root: &Path, id: &str) -> Result<ExitCode, Failure> {
    let Response::InVain(calls) = known(root, id)?.ask(&Request::InVain { id: id.into() })? else {
        return Err(Failure::Supervisor("answered something else".into()));
    };
    let mut text = format!("{:>10}  {:<24} {:>6}  {}\n", "COUNT", "CALL", "NUMBER", "WHY");
    for c in &calls {
        let (name, number) = match c.number {
            u32::MAX => ("(no call)", "-".to_owned()),
            n => (calls::of(n), n.to_string()),
        };
        let why = if c.refused { "refused on purpose" } else { "missing" };
        text.push_str(&format!("{:>10}  {name:<24} {number:>6}  {why}\n", c.count));
    }
    print(&text)
}

fn start(root: &Path, id: &str, report: &Report) -> Result<ExitCode, Failure> {
    let connection = known(root, id)?;
    let of = Hooks::of(root, id);
    let pid = match connection.ask(&Request::State { id: id.into() })? {
        Response::State(state) => {
            let pid = u32::try_from(state.pid).unwrap_or(0);
            if state.status == Status::Created {
                of.inside(&connection, pid)?;
            }
            pid
        }
        _ => 0,
    };
    connection.ask(&Request::Start { id: id.into(), process: 0 })?;
    of.run_all("poststart", Status::Running, pid, report);
    await_ready(&connection, id, pid)?;
    Ok(ExitCode::SUCCESS)
}

fn delete(root: &Path, id: &str, force: bool, report: &Report) -> Result<ExitCode, Failure> {
    let kept = stale(root, id).is_some();
    let of = Hooks::of(root, if kept { id } else { "" });
    if let Some(connection) = Connection::existing(root)? {
        match connection.ask(&Request::Delete { id: id.into(), force }) {
            Ok(_) => {
                of.run_all("poststop", Status::Stopped, 0, report);
                return Ok(ExitCode::SUCCESS);
            }
            Err(e) if e.kind() == Some(FailureKind::NoSuchContainer) => {}
            Err(e) => return Err(e),
        }
    }
    // Nobody runs it: what is left is an earlier supervisor's folder, which has no state in it if that one was killed early.
    let begun = || force && plain_name(id) && root.join(id).is_dir();
    if stale(root, id).is_some() || begun() {
        let folder = root.join(id);
        // While it is held no supervisor comes that could make a container of that name.
        let alone = no_supervisor(root);
        if alone.is_none() && stale(root, id).is_none() {
            let message = format!("container {id} is just being made by another supervisor");
            return Err(Failure::Refused { kind: FailureKind::WrongState, message });
        }
        // The record says where they are, so it stays as long as they do.
        if !cgroup::remove_recorded(&folder) {
            let message = format!("{id}: its cgroups stay: there are processes in them still");
            return Err(Failure::Refused { kind: FailureKind::Host, message });
        }
        stop_unit(&folder)?;
        match std::fs::remove_dir_all(&folder) {
            // Two may do so at once.
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::Host { what: folder.display().to_string(), source: e });
            }
            _ => {}
        }
        drop(alone);
        sweep(root, id);
        of.run_all("poststop", Status::Stopped, 0, report);
        return Ok(ExitCode::SUCCESS);
    }
    if !force {
        return Err(not_there());
    }
    // The socket of a supervisor that was killed.
    if root.join("supervisor.sock").exists() {
        sweep(root, id);
    }
    Ok(ExitCode::SUCCESS)
}

/// The lock of the supervisor of a root directory, if none has it. One that was killed may hold it a moment longer.
fn no_supervisor(root: &Path) -> Option<std::fs::File> {
    let lock = std::fs::File::open(root.join("supervisor.lock")).ok()?;
    for _ in 0..50 {
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(lock);
        }
        if Connection::existing(root).is_ok_and(|c| c.is_some()) {
            return None;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    None
}

fn freeze(root: &Path, id: String, frozen: bool) -> Result<ExitCode, Failure> {
    known(root, &id)?.ask(&Request::Freeze { id, frozen }).map(|_| ExitCode::SUCCESS)
}

/// The processes of a container, by their host pids; the table is that of ps(1), of which only their lines are kept.
fn ps(root: &Path, id: &str, format: &str, options: &[std::ffi::OsString]) -> Result<ExitCode, Failure> {
    let Response::Processes(pids) = known(root, id)?.ask(&Request::Processes { id: id.into() })? else {
        return Err(Failure::Supervisor("answered something else".into()));
    };
    if format == "json" {
        return print(&format!("{}\n", Value::from(pids)));
    }
    let mut ps = std::process::Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef");
    } else {
        ps.args(options);
    }
    let output = ps.output().map_err(Failure::host("ps"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let title = text.lines().next().unwrap_or_default();
    let column = title.split_whitespace().position(|w| w == "PID");
    let column = column.ok_or_else(|| Failure::Usage("couldn't find PID field in ps output".into()))?;
    let of_it = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        pid.is_some_and(|p| pids.contains(&p))
    };
    let lines: String = text.lines().skip(1).filter(of_it).map(|l| format!("{l}\n")).collect();
    print(&format!("{title}\n{lines}"))
}

/// Waits for the end of a container's init.
fn wait(root: &Path, id: &str) -> Result<ExitCode, Failure> {
    let answer = known(root, id)?.await_end(id)?;
    let Response::Exited { status, .. } = answer else {
        return Err(Failure::Supervisor("answered something else".into()));
    };
    let (code, signal) = match status {
        ExitStatus::Code(code) => (i32::from(code), None),
        ExitStatus::Signal(signal, _) => (128 + signal, Some(signal)),
    };
    print(&format!("{}\n", json!({"id": id, "exitStatus": code, "signal": signal})))
}

pub fn print(text: &str) -> Result<ExitCode, Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::host("stdout"))?;
    Ok(ExitCode::SUCCESS)
}

/// `9`, `KILL` or `SIGKILL`; `RTMIN+n`; 0 asks whether one could be sent.
fn parse_signal(text: &str) -> Result<i32, Failure> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let unknown = || Failure::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
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
            [("0", 0), ("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGSYS", 31), ("RTMIN+3", 37), ("SIGRTMIN", 34)]
        {
            assert_eq!(parse_signal(text).unwrap(), number);
        }
        for text in ["65", "-1", "NOPE", "RTMIN+31", ""] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
