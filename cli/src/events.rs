//! `events`: what a container uses, and that the host killed in it for want of memory, one JSON object a line as runc prints them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use cofferdam_control::client::{Request, Response};
use cofferdam_control::sentry::FailureKind;
use serde_json::{Value, json};

use crate::commands::print;
use crate::connection::Connection;
use crate::failure::Failure;

/// How often it is looked whether a process was killed.
const LOOK: Duration = Duration::from_millis(250);

/// `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// The container
    pub id: String,
    /// Print once what it uses, and end
    #[arg(long)]
    pub stats: bool,
    /// How often to print it, as 500ms, 5s or 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
}

/// Carries it out.
pub fn run(connection: &Connection, events: &Events) -> Result<ExitCode, Failure> {
    let id = &events.id;
    let ask = || match connection.ask(&Request::Stats { id: id.clone() }) {
        Ok(Response::Stats { stats, oom_kills }) => Ok(Some((stats, oom_kills))),
        Ok(_) => Err(Failure::Supervisor("answered something else".into())),
        Err(e) if e.kind() == Some(FailureKind::WrongState) => Ok(None),
        Err(e) => Err(e),
    };
    let tell = |stats: &[u8]| -> Result<ExitCode, Failure> {
        let stats: Value = serde_json::from_slice(stats).map_err(|e| Failure::Supervisor(e.to_string()))?;
        // In runc's order: clients look for the first words of a line.
        print(&format!("{{\"type\":\"stats\",\"id\":{},\"data\":{stats}}}\n", json!(id)))
    };
    let Some((stats, mut killed)) = ask()? else {
        let message = format!("container with id {id} is not running");
        return Err(Failure::Refused { kind: FailureKind::WrongState, message });
    };
    if events.stats {
        return tell(&stats);
    }
    let mut next = Instant::now() + events.interval;
    loop {
        std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        // Its end is the end of what there is to tell; so is its being deleted.
        let (stats, now) = match ask() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(ExitCode::SUCCESS),
            Err(e) if e.kind() == Some(FailureKind::NoSuchContainer) => return Ok(ExitCode::SUCCESS),
            Err(e) => return Err(e),
        };
        if now > killed {
            print(&format!("{{\"type\":\"oom\",\"id\":{}}}\n", json!(id)))?;
            killed = now;
        }
        if Instant::now() >= next {
            next = Instant::now() + events.interval;
            tell(&stats)?;
        }
    }
}

/// A time as Go writes it: numbers with `h`, `m`, `s`, `ms`, `us` or `ns` behind, one after the other.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time");
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * unit;
        rest = after;
    }
    match Duration::try_from_secs_f64(total) {
        Ok(d) if d > Duration::ZERO => Ok(d),
        _ => Err("duration interval must be greater than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, ms) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5s", 1500), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5x", "0s", "-1s", "1s5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
