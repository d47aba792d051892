//! `exec`: a further process in a container, with the caller's standard streams.
//!
//! In the foreground this program stands in for the process itself; with `--detach` it starts a stand-in and leaves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{self, Owner, Request, Response, Verbatim};
use cofferdam_control::sentry::FailureKind;
use serde_json::{Value, json};

use crate::arguments::Exec;
use crate::commands::{exit_code, known, write_pid};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::foreground::{Stay, Terminal};
use crate::terminal::Own;
use crate::{document, standin, terminal};

/// Carries it out. Whatever keeps the process from running ends this one with 255, as runc's exec.
pub fn run(asked: &Exec, root: &Path, more: &[OwnedFd]) -> Result<ExitCode, Failure> {
    try_run(asked, root, more).map_err(|e| Failure::Exec(Box::new(e)))
}

fn try_run(asked: &Exec, root: &Path, more: &[OwnedFd]) -> Result<ExitCode, Failure> {
    let connection = known(root, &asked.id)?;
    check_cgroups(&asked.cgroup, &controllers(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()))?;
    let (document, verbatim) = process(asked, &connection)?;
    let tty = document.get("terminal").and_then(Value::as_bool).unwrap_or(false);
    let own_tty = tty && asked.console_socket.is_none();
    if own_tty && asked.detach {
        return Err(Failure::Usage(
            "cannot allocate tty if cofferdam will detach without setting console socket".into(),
        ));
    }
    if !tty && asked.console_socket.is_some() {
        return Err(Failure::Usage("cannot use console socket if cofferdam will not detach or allocate tty".into()));
    }
    let mut own = Own::new(own_tty)?;
    let console = asked.console_socket.as_ref().map(|s| terminal::console(s, None)).transpose()?;
    // Before there is anything to pass them on to: none may be lost.
    let mut taken = (!asked.detach)
        .then(|| Signals::take(&signals::forwardable()))
        .transpose()
        .map_err(|e| Failure::Host { what: "signals".into(), source: std::io::Error::other(e) })?;
    let process = document.to_string().into_bytes();
    let slave = console.as_ref().map(AsFd::as_fd).or_else(|| own.slave());
    let made = make(asked, &connection, process, verbatim, (tty, own.size()), slave, more)?;
    let start = Request::Start { id: asked.id.clone(), process: made };
    let Some(signals) = &mut taken else {
        let pid = standin::start(root, &asked.id, made, console.as_ref().map(AsFd::as_fd))?;
        if let Some(file) = &asked.pid_file {
            write_pid(file, pid)?;
        }
        return connection.ask(&start).map(|_| ExitCode::SUCCESS);
    };
    drop(console);
    connection.ask(&Request::StandIn { id: asked.id.clone(), process: made })?;
    if let Some(file) = &asked.pid_file {
        write_pid(file, std::process::id())?;
    }
    own.go()?;
    let ended = connection.ask(&start).and_then(|_| {
        let terminal = Terminal::of(&own);
        let stay = Stay { connection: &connection, id: &asked.id, process: made, terminal, job: false, manager: None };
        stay.wait(signals, &mut Vec::new())
    });
    own.finish();
    let ended = ended?;
    match ended.reason {
        Some(reason) => {
            Err(Failure::Refused { kind: FailureKind::Internal, message: format!("sandbox lost: {reason}") })
        }
        None if asked.end_as_it => Ok(standin::end_as(ended.status)),
        None => Ok(exit_code(ended.status)),
    }
}

/// The controllers that the host has hierarchies of their own for (version 1), by what is in `/proc/self/cgroup`.
fn controllers(text: &str) -> Vec<String> {
    let lists = text.lines().filter_map(|line| line.split(':').nth(1));
    lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A container has one cgroup: what names another one is refused as by runc, which finds none there either.
fn check_cgroups(asked: &[String], controllers: &[String]) -> Result<(), Failure> {
    for argument in asked {
        let bad = |why: &str| Failure::Usage(format!("invalid --cgroup argument: {argument}{why}"));
        let (names, path) = match argument.split(':').collect::<Vec<_>>().as_slice() {
            [path] if asked.len() == 1 => ("", *path),
            [_] => return Err(bad(" (missing <controller>: prefix)")),
            [names, path] => (*names, *path),
            _ => return Err(bad("")),
        };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            if !controllers.iter().any(|c| c == name) {
                return Err(Failure::Usage(format!("unknown controller {name} in SubCgroupPaths")));
            }
        }
        let mut below: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    below.pop().ok_or_else(|| Failure::Usage(format!("{path} is not a sub cgroup path")))?;
                }
                part => below.push(part),
            }
        }
        if !below.is_empty() {
            return Err(Failure::Usage(format!(
                "error adding a process to cgroups: {}/cgroup.procs: no such file or directory: all processes of a container are in one cgroup (/)",
                below.join("/")
            )));
        }
    }
    Ok(())
}

fn make(
    asked: &Exec,
    connection: &Connection,
    process: Vec<u8>,
    verbatim: Option<Verbatim>,
    (tty, console_size): (bool, Option<(u16, u16)>),
    slave: Option<BorrowedFd<'_>>,
    more: &[OwnedFd],
) -> Result<u32, Failure> {
    let request = client::Exec {
        id: asked.id.clone(),
        process,
        verbatim,
        tty,
        more_files: asked.preserve_fds,
        console_size,
        owner: if asked.detach { Owner::Itself } else { Owner::Connection },
        in_frozen: asked.ignore_paused,
    };
    match connection.ask_traced(
        &Request::Exec(Box::new(request)),
        &terminal::streams(slave, tty, more),
        &mut Vec::new(),
    )? {
        Response::Executed { process } => Ok(process),
        _ => Err(Failure::Supervisor("answered something else".into())),
    }
}

/// The process: that of `--process`, or the container's own with what the flags say instead.
fn process(asked: &Exec, connection: &Connection) -> Result<(Value, Option<Verbatim>), Failure> {
    if let Some(file) = &asked.process {
        let mut document = document::read_object(file)?;
        // Root's, as to runc.
        if document.get("user").is_none() {
            document["user"] = json!({"uid": 0, "gid": 0});
        }
        if asked.tty {
            document["terminal"] = true.into();
        }
        return Ok((document, None));
    }
    if asked.command.is_empty() {
        return Err(Failure::Usage("process args cannot be empty".into()));
    }
    let state = match connection.ask(&Request::State { id: asked.id.clone() })? {
        Response::State(state) => state,
        _ => return Err(Failure::Supervisor("answered something else".into())),
    };
    let bundle = std::path::PathBuf::from(std::ffi::OsString::from_vec(state.bundle));
    let mut process = document::read_object(&bundle.join("config.json"))?["process"].take();
    process["terminal"] = asked.tty.into();
    if let Some(cwd) = &asked.cwd {
        process["cwd"] = cwd.to_string_lossy().into();
    }
    if let Some(user) = &asked.user {
        let bad = || Failure::Usage(format!("--user {user}: want numbers, U or U:G"));
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        process["user"]["uid"] = uid.parse::<u32>().map_err(|_| bad())?.into();
        if let Some(gid) = gid {
            process["user"]["gid"] = gid.parse::<u32>().map_err(|_| bad())?.into();
        }
    }
    append(&mut process["user"]["additionalGids"], asked.additional_gids.iter().map(|g| (*g).into()));
    append(&mut process["env"], asked.env.iter().map(|e| e.as_str().into()));
    if !asked.cap.is_empty() {
        for set in ["bounding", "effective", "permitted", "ambient"] {
            append(&mut process["capabilities"][set], asked.cap.iter().map(|c| c.as_str().into()));
        }
    }
    if let Some(no) = asked.no_new_privs {
        process["noNewPrivileges"] = no.into();
    }
    let lossy = |w: &std::ffi::OsString| Value::from(w.to_string_lossy());
    process["args"] = asked.command.iter().map(lossy).collect();
    let text = |v: &Value| v.as_str().unwrap_or_default().as_bytes().to_vec();
    let verbatim = Verbatim {
        args: asked.command.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: process["env"].as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default(),
        cwd: asked.cwd.as_ref().map_or_else(|| text(&process["cwd"]), |c| c.as_os_str().as_bytes().to_vec()),
        ignored: 0,
    };
    Ok((process, Some(verbatim)))
}

fn append(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(more);
    if !all.is_empty() {
        *list = json!(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_one_cgroup() {
        let v1 = controllers("9:name=systemd:/\n8:pids:/x\n4:cpu,cpuacct:/y\n0::/\n");
        assert_eq!(v1, ["name=systemd", "pids", "cpu", "cpuacct"]);
        let told = |asked: &[&str], controllers: &[String]| {
            let asked: Vec<String> = asked.iter().map(|a| (*a).to_owned()).collect();
            check_cgroups(&asked, controllers).map_err(|e| e.to_string())
        };
        for own in [&[][..], &["/"], &[""], &["."], &["a/../"], &[":"], &["pids:/"], &["cpu,pids:", "name=systemd:/"]] {
            assert_eq!(told(own, &v1), Ok(()), "{own:?}");
        }
        for (asked, why) in [
            (&["sub"][..], "sub/cgroup.procs: no such file or directory"),
            (&["/a/b/../c"], "a/c/cgroup.procs: no such file or directory"),
            (&["pids:/", "cpu:x"], "x/cgroup.procs: no such file or directory"),
            (&["../x"], "../x is not a sub cgroup path"),
            (&["pids:/a/../.."], "/a/../.. is not a sub cgroup path"),
            (&["nothing:/"], "unknown controller nothing in SubCgroupPaths"),
            (&["/", "/"], "invalid --cgroup argument: / (missing <controller>: prefix)"),
            (&["pids:a:b"], "invalid --cgroup argument: pids:a:b"),
        ] {
            let said = told(asked, &v1).unwrap_err();
            assert!(said.contains(why), "{asked:?}: {said}");
        }
        // Version 2 has no hierarchies by controllers.
        assert!(told(&["pids:/"], &controllers("0::/x\n")).unwrap_err().contains("unknown controller pids"));
    }
}
