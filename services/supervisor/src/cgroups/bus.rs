//! Talking to systemd over D-Bus: makes, changes and stops the unit of a container.
//!
//! It runs where there are no walls, in a process of its own that ends with it: the launcher forks one for an order, a supervisor does so
//! before it confines itself, and the command line starts one where there is no supervisor, and for a stand-in. So the supervisor needs
//! no call to connect anywhere, and can order no more than what [`Order`] says: scopes and slices, with the properties of
//! [`PROPERTIES`], and processes that the launcher itself knows. It never runs in a service. Called by `launcher`, `record` and `main`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use cofferdam_confine::ids::Ids;
use cofferdam_control::Channel;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zbus::export::futures_core::Stream;
use zbus::zvariant::{self, ObjectPath, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream, message};

use super::systemd::{PROPERTIES, Property, Unit, Value, expand};

/// How long systemd may take, as runc has it.
pub const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";

/// What systemd is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Make the unit. The answer is the path of its cgroup.
    Start {
        /// Which.
        unit: Unit,
        /// Its limits.
        limits: Vec<Property>,
        /// Whether version 2 is all there is.
        unified: bool,
    },
    /// Change its limits.
    Set {
        /// Which.
        unit: Unit,
        /// The new ones.
        limits: Vec<Property>,
    },
    /// Stop it and forget that it was; one that is not there is no error.
    Stop {
        /// Which.
        unit: Unit,
    },
}

/// What came of it: a path, if one was asked for; a text for a person.
pub type Answer = Result<String, String>;

impl Order {
    fn unit(&self) -> &Unit {
        match self {
            Order::Start { unit, .. } | Order::Set { unit, .. } | Order::Stop { unit } => unit,
        }
    }

    /// Whether it is one that is ever given.
    fn check(&self) -> Result<(), String> {
        check(self.unit())?;
        let known = |limits: &[Property]| limits.iter().all(|(name, _)| PROPERTIES.contains(&name.as_str()));
        match self {
            Order::Start { limits, .. } | Order::Set { limits, .. } if !known(limits) => {
                Err("an unknown property".into())
            }
            _ => Ok(()),
        }
    }
}

/// Whether it is a unit that is ever named.
fn check(unit: &Unit) -> Result<(), String> {
    unit.place()?;
    expand(&unit.slice)?;
    match unit.name.ends_with(".scope") || unit.is_slice() {
        true => Ok(()),
        false => Err(format!("invalid unit name: {}", unit.name)),
    }
}

/// Carries out the order and tells what came of it, in a process that was forked for it. `processes` are those that come into the unit.
pub fn serve(order: &Order, processes: &[i32], answer: &Channel) {
    let _ = answer.send(&carry_out(order, processes), &[]);
}

/// Carries out the order.
pub fn carry_out(order: &Order, processes: &[i32]) -> Answer {
    order.check()?;
    runtime()?.block_on(async {
        let bus = Bus::connect(order.unit().user).await?;
        match order {
            Order::Start { unit, limits, unified } => bus.start(unit, limits, *unified, processes).await,
            Order::Set { unit, limits } => bus.set(unit, limits).await.map(|()| String::new()),
            Order::Stop { unit } => bus.stop(unit).await.map(|()| String::new()),
        }
    })
}

/// Moves a process to a unit. The system's own systemd is asked by the user's where that may not do so by itself. No order: a supervisor
/// names no pids.
pub fn join(unit: &Unit, process: i32) -> Result<(), String> {
    check(unit)?;
    runtime()?.block_on(async { Bus::connect(unit.user).await?.join(unit, process).await })
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())
}

/// Who we are on the host: root of a user namespace is the user who made it, also to that user's systemd.
fn owner() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    Ids::own("uid_map").ok().and_then(|ids| ids.outside(uid)).unwrap_or(uid)
}

/// Where the bus is that systemd is on. Its own socket (`systemd/private`) is none for zbus, which takes no sender but a bus's unique name.
fn sockets(user: bool) -> Vec<PathBuf> {
    if !user {
        return vec!["/run/dbus/system_bus_socket".into()];
    }
    let run = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let run = run.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", owner())));
    // What is said of the bus beyond its path (several addresses, a key) is not ours to read.
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    let named = named
        .and_then(|a| a.strip_prefix("unix:path=").map(|p| PathBuf::from(p.split([',', ';']).next().unwrap_or(p))))
        .filter(|path| *path != run.join("bus"));
    named.into_iter().chain([run.join("bus")]).collect()
}

struct Bus(Connection);

/// A refusal in systemd's words, or a failure of the bus.
fn said(e: &zbus::Error) -> String {
    match e {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        e => e.to_string(),
    }
}

/// Whether systemd refused for this reason.
fn is_refusal(e: &zbus::Error, name: &str) -> bool {
    matches!(e, zbus::Error::MethodError(n, ..) if n.as_str().strip_prefix(SYSTEMD).is_some_and(|n| n == name))
}

impl Bus {
    async fn connect(user: bool) -> Result<Self, String> {
        let mut failures = Vec::new();
        for path in sockets(user) {
            let connected = async {
                let stream = UnixStream::connect(&path).and_then(|s| s.set_nonblocking(true).map(|()| s));
                let stream =
                    tokio::net::UnixStream::from_std(stream.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
                let builder = zbus::connection::Builder::unix_stream(stream).user_id(owner());
                timeout(PATIENCE, builder.build()).await.map_err(|_| "it does not answer")?.map_err(|e| e.to_string())
            };
            match connected.await {
                Ok(connection) => return Ok(Self(connection)),
                Err::<_, String>(e) => failures.push(format!("{} ({e})", path.display())),
            }
        }
        let all = failures.join(" or ");
        Err(format!("--systemd-cgroup: systemd is not reachable at {all}; leave the option out for cgroupfs"))
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: Serialize + zvariant::DynamicType,
    {
        self.0.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), method, body).await
    }

    /// Has a job done and waits for its end: systemd's word for how it ended.
    async fn job<B>(&self, method: &str, body: &B) -> zbus::Result<String>
    where
        B: Serialize + zvariant::DynamicType,
    {
        let ends =
            MatchRule::builder().msg_type(message::Type::Signal).interface(MANAGER)?.member("JobRemoved")?.build();
        let mut ends = pin!(MessageStream::for_match_rule(ends, &self.0, Some(1024)).await?);
        let job: OwnedObjectPath = self.call(method, body).await?.body().deserialize()?;
        let wait = async {
            while let Some(message) = poll_fn(|cx| ends.as_mut().poll_next(cx)).await {
                let message = message?;
                let body = message.body();
                let (_, of, _, how): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
                if of == *job {
                    return Ok(how.to_owned());
                }
            }
            Err(zbus::Error::Failure("systemd is gone".into()))
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| Err(zbus::Error::Failure("systemd takes too long".into())))
    }

    async fn start(&self, unit: &Unit, limits: &[Property], unified: bool, processes: &[i32]) -> Answer {
        let failed = |e: &zbus::Error| format!("unable to start unit {:?}: {}", unit.name, said(e));
        // Who said so hears of jobs; that he did already is no matter.
        let _ = self.call("Subscribe", &()).await;
        let properties = properties(unit, limits, unified, processes);
        let others: Vec<(&str, Vec<(&str, zvariant::Value<'_>)>)> = Vec::new();
        let body = (&*unit.name, "replace", properties, others);
        let mut made = self.job("StartTransientUnit", &body).await;
        if made.as_ref().is_err_and(|e| is_refusal(e, ".UnitExists")) {
            // It may be one that failed long ago and that nobody had forgotten.
            let _ = self.call("ResetFailedUnit", &(&*unit.name,)).await;
            made = self.job("StartTransientUnit", &body).await;
        }
        match made.map_err(|e| failed(&e))?.as_str() {
            "done" => {}
            other => {
                let _ = self.call("ResetFailedUnit", &(&*unit.name,)).await;
                return Err(format!("error creating systemd unit `{}`: got `{other}`", unit.name));
            }
        }
        self.cgroup(unit).await.map_err(|e| failed(&e))
    }

    /// The path of its cgroup.
    async fn cgroup(&self, unit: &Unit) -> zbus::Result<String> {
        let object: OwnedObjectPath = self.call("GetUnit", &(&*unit.name,)).await?.body().deserialize()?;
        let kind = if unit.is_slice() { "org.freedesktop.systemd1.Slice" } else { "org.freedesktop.systemd1.Scope" };
        let properties = Some("org.freedesktop.DBus.Properties");
        let answer = self.0.call_method(Some(SYSTEMD), &object, properties, "Get", &(kind, "ControlGroup")).await?;
        let value: OwnedValue = answer.body().deserialize()?;
        Ok(String::try_from(value)?)
    }

    async fn join(&self, unit: &Unit, process: i32) -> Result<(), String> {
        let done = self.call("AttachProcessesToUnit", &(&*unit.name, "", pids(&[process]))).await;
        done.map(drop).map_err(|e| format!("unable to move process {process} to unit {:?}: {}", unit.name, said(&e)))
    }

    async fn set(&self, unit: &Unit, limits: &[Property]) -> Result<(), String> {
        // Until systemd is started anew: it forgets transient units then, and so are these.
        let done = self.call("SetUnitProperties", &(&*unit.name, true, all(limits))).await;
        done.map(drop).map_err(|e| format!("unable to set unit properties: {}", said(&e)))
    }

    async fn stop(&self, unit: &Unit) -> Result<(), String> {
        let _ = self.call("Subscribe", &()).await;
        let stopped = self.job("StopUnit", &(&*unit.name, "replace")).await;
        let _ = self.call("ResetFailedUnit", &(&*unit.name,)).await;
        match stopped {
            Ok(_) => Ok(()),
            // Its last process is gone, and with it the unit.
            Err(e) if is_refusal(&e, ".NoSuchUnit") => Ok(()),
            Err(e) => Err(format!("unable to stop unit {:?}: {}", unit.name, said(&e))),
        }
    }
}

type Told<'a> = (&'a str, zvariant::Value<'a>);

fn all(limits: &[Property]) -> Vec<Told<'_>> {
    // The last word on one counts (`unified` says it anew), and systemd is told it once.
    let mut last: HashMap<&str, usize> = HashMap::new();
    limits.iter().enumerate().for_each(|(n, (name, _))| {
        let _ = last.insert(name, n);
    });
    let told = limits.iter().enumerate().filter(|(n, (name, _))| last.get(name.as_str()) == Some(n));
    told.map(|(_, (name, value))| {
        let value = match value {
            Value::Number(n) => (*n).into(),
            Value::Set(bits) => bits.clone().into(),
        };
        (name.as_str(), value)
    })
    .collect()
}

/// Pids as systemd takes them.
fn pids(processes: &[i32]) -> Vec<u32> {
    processes.iter().filter_map(|pid| u32::try_from(*pid).ok()).collect()
}

fn properties<'a>(unit: &'a Unit, limits: &'a [Property], unified: bool, processes: &[i32]) -> Vec<Told<'a>> {
    let mut told: Vec<Told<'a>> = vec![("Description", unit.description.as_str().into())];
    if unit.is_slice() {
        told.push(("Wants", vec![unit.slice.as_str()].into()));
    } else {
        told.push(("Slice", unit.slice.as_str().into()));
        told.push(("Delegate", true.into()));
        told.push(("PIDs", pids(processes).into()));
    }
    let blocks = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    told.extend(["MemoryAccounting", "CPUAccounting", blocks, "TasksAccounting"].map(|name| (name, true.into())));
    told.push(("DefaultDependencies", false.into()));
    told.extend(all(limits));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> Unit {
        Unit { name: name.into(), slice: "a.slice".into(), description: "d".into(), user: false }
    }

    #[test]
    fn an_order_is_for_scopes_and_slices_and_limits_alone() {
        let limit = |name: &str| vec![(name.to_owned(), Value::Number(1))];
        assert_eq!(Order::Set { unit: unit("p-x.scope"), limits: limit("MemoryMax") }.check(), Ok(()));
        for order in [
            Order::Stop { unit: unit("ssh.service") },
            Order::Stop { unit: unit("--.slice") },
            Order::Stop { unit: Unit { slice: "a".into(), ..unit("p.scope") } },
            Order::Set { unit: unit("p-x.scope"), limits: limit("ExecStart") },
            Order::Start { unit: unit("p-x.scope"), limits: limit("User"), unified: true },
        ] {
            assert!(order.check().is_err(), "{order:?}");
            assert!(carry_out(&order, &[]).is_err(), "{order:?}");
        }
        assert_eq!(join(&unit("ssh.service"), 1), Err("invalid unit name: ssh.service".into()));
    }

    #[test]
    fn what_is_told_of_a_unit_is_what_runc_tells() {
        let limits = [
            ("TasksMax".into(), Value::Number(1)),
            ("CPUWeight".into(), Value::Number(2)),
            ("TasksMax".into(), Value::Number(3)),
        ];
        let names = |unit: &Unit, unified: bool| {
            properties(unit, &limits, unified, &[7]).iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let accounting =
            |blocks| ["MemoryAccounting", "CPUAccounting", blocks, "TasksAccounting", "DefaultDependencies"];
        let (scope, slice) = (["Description", "Slice", "Delegate", "PIDs"], ["Description", "Wants"]);
        let told = ["CPUWeight", "TasksMax"];
        assert_eq!(names(&unit("p-x.scope"), true), [&scope[..], &accounting("IOAccounting"), &told].concat());
        assert_eq!(names(&unit("a-b.slice"), false), [&slice[..], &accounting("BlockIOAccounting"), &told].concat());
        assert_eq!(all(&limits).last(), Some(&("TasksMax", 3u64.into())));
    }
}
