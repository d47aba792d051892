//! What is kept on disk of a container: DIR/ID/state.json, as `state` prints it, replaced whole on every change, and DIR/ID/cgroups, the
//! folders of its cgroups, a line each.
//!
//! A command line reads it without a supervisor; the supervisor never trusts it for anything but removal.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cofferdam_confine::cgroup;
use cofferdam_confine::spawn::Fork;
use cofferdam_control::client::State;
use rustix::process::{Pid, WaitOptions};
use serde::Serialize;

use crate::cgroups::bus::{self, Order};
use crate::cgroups::systemd::Unit;
use crate::spec::Outside;

/// A container's folder.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    oci_version: String,
    annotations: BTreeMap<String, String>,
    /// Hooks, as the document has them: the command line runs them, also when the bundle is gone.
    hooks: serde_json::Value,
    /// What it has on the host: the command line shows it to engines (`namespaces`).
    outside: Outside,
    /// Whether it ends with a connection: nothing of it outlives the supervisor.
    passing: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: String,
    created: u64,
    owner: u32,
    annotations: &'a BTreeMap<String, String>,
    hooks: &'a serde_json::Value,
    #[serde(flatten)]
    outside: &'a Outside,
    passing: bool,
}

impl Record {
    /// Makes the folder (mode 0700); it must not exist.
    pub fn create(
        root: &Path,
        id: &str,
        oci_version: String,
        annotations: BTreeMap<String, String>,
        hooks: serde_json::Value,
        outside: Outside,
        passing: bool,
    ) -> std::io::Result<Self> {
        let folder = root.join(id);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { folder, oci_version, annotations, hooks, outside, passing })
    }

    /// Notes the folders of its cgroups, and the unit that systemd has for them, before they are made.
    pub fn note_cgroups(&self, folders: &[PathBuf], unit: Option<&Unit>) -> std::io::Result<()> {
        let unit = unit.map(|u| (u.name.as_str(), u.user));
        std::fs::write(self.folder.join(cgroup::RECORD), cgroup::record(folders, unit))
    }

    /// Writes the state.
    pub fn write(&self, state: &State) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(&Written {
            oci_version: &self.oci_version,
            id: &state.id,
            pid: state.pid,
            status: state.status.word(),
            bundle: String::from_utf8_lossy(&state.bundle).into_owned(),
            created: state.created,
            owner: state.owner,
            annotations: &self.annotations,
            hooks: &self.hooks,
            outside: &self.outside,
            passing: self.passing,
        })?;
        let new = self.folder.join("state.json.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.folder.join("state.json"))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    for file in ["state.json", "state.json.new", cgroup::RECORD] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let _ = std::fs::remove_dir(folder);
}

/// Removes what an earlier supervisor of this directory could not, because it was killed: containers that were to end
/// with a connection, and such as never came to be; and the cgroups of all. Only for the holder of the lock.
pub fn sweep(root: &Path) {
    let mut units = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let folder = entry.path();
        // With a process in it, it is somebody else's by now.
        if cgroup::remove_recorded(&folder) {
            units.extend(cgroup::recorded_unit(&folder));
        }
        let passing = match std::fs::read(folder.join("state.json")) {
            Ok(text) => serde_json::from_slice::<serde_json::Value>(&text)
                .is_ok_and(|state| state.get("passing").and_then(serde_json::Value::as_bool) == Some(true)),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        if passing {
            remove(&folder);
        }
    }
    if !units.is_empty() {
        stop_units(units);
    }
}

/// Stops units, in a process of its own: tokio keeps descriptors for the life of a process once it had a runtime. The walls would close them
/// under the supervisor's own.
fn stop_units(units: Vec<(String, bool)>) {
    match cofferdam_confine::spawn::fork(true) {
        Ok(Fork::Child) => {
            // What cannot be told to systemd now, it sees by itself once the unit is empty.
            units.into_iter().for_each(|(unit, user)| drop(stop_unit(unit, user)));
            std::process::exit(0);
        }
        Ok(Fork::Parent(pid)) => {
            let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty());
        }
        Err(_) => {}
    }
}

/// Stops the unit of a container whose supervisor is gone. Not behind walls.
pub fn stop_unit(name: String, user: bool) -> Result<(), String> {
    bus::carry_out(&Order::Stop { unit: named(name, user) }, &[]).map(drop)
}

/// Has a stand-in, which is where its caller is, moved to the unit of its container. Not behind walls.
pub fn join_unit(name: String, user: bool, stand_in: i32) -> Result<(), String> {
    bus::join(&named(name, user), stand_in)
}

/// A unit that is there already: which slice it is in systemd knows.
fn named(name: String, user: bool) -> Unit {
    let slice = if user { "user.slice" } else { "system.slice" };
    Unit { name, slice: slice.into(), description: String::new(), user }
}
