//! A test double of both services: it speaks the control protocol and ends as it is told, so that supervisor and
//! command line can be tested for every way a service can go wrong. It runs nothing of a container and is never
//! installed: tests copy it under the services' names into a folder of their own.
//!
//! The container's arguments tell what happens: `exit N` or `signal N` at start, `sleep` until killed, `missing` and
//! `forbidden` fail to be created, `die-at-WHERE` and `gofer-dies-at-WHERE` (birth cannot be told apart; orders,
//! stdio, create, start) end the service there, `babble` answers what nobody asked.

use cofferdam_confine::{Walls, inherited_channel};
use cofferdam_control::gofer::{FromGofer, GoferOrders, ToGofer};
use cofferdam_control::sentry::{ExitStatus, FailureKind, FromSentry, Numbered, Said, SentryOrders, ToSentry, Usage};
use cofferdam_control::{Channel, ControlError};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

fn main() {
    let gofer = std::env::args().next().is_some_and(|name| name.contains("gofer"));
    let outcome = if gofer { be_gofer() } else { be_sentry() };
    if let Err(e) = outcome {
        eprintln!("double: {e}");
        std::process::exit(3);
    }
}

fn raise(channel: &Channel, more: &[i32]) -> Result<(), Box<dyn std::error::Error>> {
    let mut keep = vec![channel.as_fd().as_raw_fd()];
    keep.extend(more);
    Walls { policy: "supervisor", keep: &keep, capabilities: &[], landlock: None, trees: &[], dumpable: false }
        .raise()?;
    Ok(())
}

fn die(condition: bool) {
    if condition {
        eprintln!("the double dies as told");
        std::process::exit(4);
    }
}

/// The Gofer's part. The sandbox's id tells when it dies: it never sees the container's arguments.
fn be_gofer() -> Result<(), Box<dyn std::error::Error>> {
    let channel = Channel::new(inherited_channel()?);
    let got = channel.receive::<GoferOrders>()?;
    let id = got.message.sandbox;
    die(id.contains("gofer-dies-at-orders"));
    if got.descriptors.len() != 3 + got.message.exports.len() {
        return Err("wrong number of descriptors".into());
    }
    raise(&channel, &[])?;
    channel.send(&FromGofer::Ready { landlock: 0 }, &[])?;
    loop {
        let got = match channel.receive::<ToGofer>() {
            Err(ControlError::Closed) => return Ok(()),
            other => other?,
        };
        match got.message {
            ToGofer::AddStdio { .. } => {
                die(id.contains("gofer-dies-at-stdio"));
                if let Some(out) = got.descriptors.into_iter().nth(1) {
                    std::fs::File::from(out).write_all(b"stdio reached the Gofer\n")?;
                }
                channel.send(&FromGofer::Done, &[])?;
            }
            ToGofer::RemoveStdio { .. } => channel.send(&FromGofer::Done, &[])?,
            ToGofer::Stop => return Ok(()),
        }
    }
}

fn be_sentry() -> Result<(), Box<dyn std::error::Error>> {
    let channel = Channel::new(inherited_channel()?);
    let got = channel.receive::<SentryOrders>()?;
    die(got.message.sandbox.contains("sentry-dies-at-orders"));
    if got.message.sandbox.contains("silent-sentry") {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    if got.descriptors.len() != 1 {
        return Err("wrong number of descriptors".into());
    }
    raise(&channel, &[])?;
    let ready = FromSentry::Ready { platform: "double".into(), why: "a test".into(), pid: 1 };
    channel.send(&Said::from(ready), &[])?;
    let mut arguments: Vec<String> = Vec::new();
    loop {
        let got = match channel.receive::<Numbered>() {
            Err(ControlError::Closed) => return Ok(()),
            other => other?,
        };
        let word = |n: usize, a: &[String]| a.get(n).cloned().unwrap_or_default();
        let number = got.message.number;
        let answer = |what| channel.send(&Said { answers: Some(number), what }, &[]);
        let tell = |what| channel.send(&Said::from(what), &[]);
        let last = match got.message.order {
            ToSentry::Create(container) => {
                if got.descriptors.len() != 2 {
                    return Err("wrong number of descriptors with a container".into());
                }
                arguments = container.process.args.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
                die(word(0, &arguments) == "die-at-create");
                let failed = |kind, message: &str| FromSentry::Failed {
                    id: Some(container.id.clone()),
                    kind,
                    message: message.into(),
                };
                match word(0, &arguments).as_str() {
                    "missing" => failed(FailureKind::NotFound, "exec: \"missing\": executable file not found in $PATH"),
                    "forbidden" => failed(FailureKind::Permission, "exec: \"forbidden\": permission denied"),
                    _ => FromSentry::Created { id: container.id.clone(), pid: 1, home: None },
                }
            }
            ToSentry::Start { id, .. } => {
                die(word(0, &arguments) == "die-at-start");
                answer(FromSentry::Started { id: id.clone() })?;
                let number = word(1, &arguments).parse::<i32>().unwrap_or(0);
                let status = match word(0, &arguments).as_str() {
                    "exit" => ExitStatus::Code(number.try_into()?),
                    "signal" => ExitStatus::Signal(number, false),
                    "babble" => {
                        answer(FromSentry::Done)?;
                        continue;
                    }
                    _ => continue,
                };
                tell(FromSentry::Exited { id, process: 0, status })?;
                continue;
            }
            ToSentry::Kill { id, signal, .. } => {
                answer(FromSentry::Done)?;
                match signal {
                    0 | 18 => {}
                    19 => tell(FromSentry::Stopped { id, signal })?,
                    _ => tell(FromSentry::Exited { id, process: 0, status: ExitStatus::Signal(signal, false) })?,
                }
                continue;
            }
            ToSentry::Resize { .. }
            | ToSentry::Front { .. }
            | ToSentry::Freeze { .. }
            | ToSentry::Limits { .. }
            | ToSentry::Network(_)
            | ToSentry::Delete { .. } => FromSentry::Done,
            ToSentry::Exec { id, .. } => FromSentry::Created { id, pid: 2, home: None },
            ToSentry::Processes { .. } => FromSentry::Processes(Vec::new()),
            ToSentry::Usage { .. } => FromSentry::Usage(Usage::default()),
            ToSentry::InVain { .. } => FromSentry::InVain(Vec::new()),
            ToSentry::Stop => return Ok(()),
        };
        answer(last)?;
    }
}
