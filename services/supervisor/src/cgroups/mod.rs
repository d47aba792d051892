//! The cgroups of a container: where they are, what is written there, who is in them, their removal.
//!
//! A container's limits are the host's to keep: the Sentry, the Gofer and all stubs are in one cgroup of each hierarchy, at the place
//! that `linux.cgroupsPath` names, and so are the stand-ins, by whose pid clients look for it (they go there by themselves: a process with
//! more rights than the supervisor is not the supervisor's to move). `resources` is what a document asks,
//! `settings` what is written for it, `hierarchy` where, `stats` what is read. It must never follow a path that came from a container,
//! and reads nothing there but the kernel's own texts. With the systemd driver the place is that of a unit: `systemd` is which one and what
//! is told of it, `bus` the telling, elsewhere. Called by `container` and `record`.

pub mod bus;
mod hierarchy;
mod resources;
mod settings;
mod stats;
pub mod systemd;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use cofferdam_confine::cgroup;
use cofferdam_control::sentry::{FailureKind, Limits};
use serde::Deserialize;

use crate::paths::below_root;
use crate::spec::Refused;
use bus::Order;
use hierarchy::Hierarchy;
use resources::Resources;
use settings::{FAMILIES, Lenient, Setting};
pub use stats::stats;
use systemd::Unit;

/// What a document asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    path: String,
    unit: Option<Unit>,
    resources: Resources,
}

/// The part of a document that is read here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    linux: Option<Linux>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<String>,
    resources: Option<Resources>,
}

impl Wanted {
    /// Reads and checks it. `systemd`: the container's id and whether its user's systemd is meant, if systemd makes its cgroups.
    pub fn read(document: &[u8], systemd: Option<(&str, bool)>) -> Result<Self, Refused> {
        let invalid = |e: &dyn std::fmt::Display| Refused::new(FailureKind::Invalid, format!("config.json: {e}"));
        let linux = serde_json::from_slice::<Document>(document).map_err(|e| invalid(&e))?.linux.unwrap_or_default();
        let (mut path, resources) = (linux.cgroups_path.unwrap_or_default(), linux.resources.unwrap_or_default());
        let unit = systemd.map(|(id, user)| Unit::parse(&path, id, user)).transpose();
        let unit = unit.map_err(|e| Refused::new(FailureKind::Invalid, e))?;
        if let Some(unit) = &unit {
            path = unit.place().map_err(|e| Refused::new(FailureKind::Invalid, e))?;
        }
        if path.contains('\0') || path.len() > 4096 {
            return Err(invalid(&"linux.cgroupsPath: not a path"));
        }
        if path.starts_with('/') && below_root(Path::new(&path)).as_os_str().is_empty() {
            return Err(invalid(&"linux.cgroupsPath: the root cgroup is no container's"));
        }
        resources.check().map_err(|e| invalid(&format!("linux.resources: {e}")))?;
        Ok(Self { path, unit, resources })
    }

    /// The unit that systemd is to make for it.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The order to make it, if it is systemd's.
    pub fn start(&self) -> Result<Option<Order>, Refused> {
        let Some(unit) = self.unit.clone() else { return Ok(None) };
        let unified = hierarchy::discover(0).unwrap_or_default().iter().all(|h| h.unified);
        if unit.user && !unified {
            // A user is given no part of version 1.
            return Err(Refused::new(
                FailureKind::Host,
                "--systemd-cgroup: without root systemd keeps no limits where cgroups are of version 1 (this host's are, in whole or in part); leave the option out",
            ));
        }
        let limits = systemd::properties(&self.resources, unified);
        let limits = limits.map_err(|e| Refused::new(FailureKind::Invalid, e))?;
        Ok(Some(Order::Start { unit, limits, unified }))
    }

    /// Has its place be where systemd made its unit.
    pub fn settle(&mut self, place: String) {
        self.path = place;
    }

    /// What the container sees of it.
    pub fn limits(&self) -> Limits {
        self.resources.limits()
    }

    /// Leaves its weight among others to the host.
    pub fn without_weight(&mut self) {
        self.resources.without_weight();
    }

    /// Whether it must not be done without: limits or a place were asked for.
    fn matters(&self) -> bool {
        !self.path.is_empty() || !self.resources.names().is_empty() || self.limits().pids.is_some()
    }
}

/// A folder of a hierarchy.
#[derive(Debug, Clone)]
struct Place {
    folder: PathBuf,
    controllers: Vec<String>,
    unified: bool,
}

/// The cgroups of one container. They are removed by [`Cgroup::remove`], or when this goes.
#[derive(Debug)]
pub struct Cgroup {
    places: Vec<Place>,
    unit: Option<Unit>,
    resources: Resources,
}

/// A change of limits that systemd is told before it is done.
pub struct Update {
    new: Resources,
    all: Resources,
    /// What it is told, if it made the cgroups.
    pub order: Option<Order>,
}

/// Moves the calling process to the roots of all hierarchies, as far as it may: out of the cgroups of the client that happened to start
/// it, which kills what is left in them when it is done.
pub fn leave_callers() {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for h in hierarchy::discover(own).unwrap_or_default().iter().filter(|h| !h.own.as_os_str().is_empty()) {
        let _ = cgroup::join(&h.mount);
    }
}

impl Cgroup {
    /// Makes the cgroups that are wanted and sets the limits; `None` where that cannot be and need not, or where the caller has no right
    /// to. The texts are warnings. `caller`: the pid of the command line, below whose cgroup a relative path begins. `privileged`:
    /// whether it is root. `note` is told the folders before they are made.
    pub fn make(
        wanted: &Wanted,
        id: &str,
        (caller, privileged): (i32, bool),
        note: impl Fn(&[PathBuf]) -> std::io::Result<()>,
    ) -> Result<(Option<Self>, Vec<String>), Refused> {
        let mut warnings: Vec<String> = wanted.resources.meaningless();
        let hierarchies = hierarchy::discover(caller).unwrap_or_default();
        let id = &free_name(&hierarchies, wanted, id);
        let there = folders(&hierarchies, wanted, id);
        if there.iter().any(|f| is_frozen(f)) {
            return Err(Refused::new(FailureKind::Host, "container's cgroup unexpectedly frozen"));
        }
        // In a new unit there is its first process.
        let others = || there.iter().map(|f| words(&f.join("cgroup.procs")).len()).max();
        if let (None, Some(n @ 1..)) = (&wanted.unit, others()) {
            warnings.push(format!("container's cgroup is not empty: {n} process(es) found"));
        }
        let made = note(&there)
            .map_err(|e| format!("noting the folders of the cgroups: {e}"))
            .and_then(|()| Self::at(&hierarchies, wanted, id));
        match made {
            Ok(cgroup) => {
                warnings.extend(cgroup.without_word());
                Ok((Some(cgroup), warnings))
            }
            Err(e) if (privileged && wanted.matters()) || wanted.unit.is_some() => {
                Err(Refused::new(FailureKind::Host, e))
            }
            Err(e) => {
                let _ = note(&[]);
                let names = wanted.resources.names();
                warnings.extend(names.iter().map(|name| format!("{name}: not set, the container runs without: {e}")));
                Ok((None, warnings))
            }
        }
    }

    fn at(hierarchies: &[Hierarchy], wanted: &Wanted, id: &str) -> Result<Self, String> {
        if hierarchies.is_empty() {
            return Err("no cgroup hierarchy is mounted".into());
        }
        let alone = hierarchies.iter().all(|h| h.unified);
        // What was made goes again if something fails.
        let mut cgroup = Self { places: Vec::new(), unit: wanted.unit.clone(), resources: Resources::default() };
        for (h, folder) in hierarchies.iter().zip(folders(hierarchies, wanted, id)) {
            if h.unified {
                // Beside others of version 1 it has what they have not, and is asked for nothing unless that is needed.
                let needed = alone || !wanted.resources.hugepage_limits.is_empty() || !wanted.resources.rdma.is_empty();
                cgroup.places.push(Place { folder: folder.clone(), controllers: Vec::new(), unified: true });
                make_v2(&h.mount, &folder, needed)?;
                if let Some(place) = cgroup.places.last_mut() {
                    place.controllers = words(&folder.join("cgroup.controllers"));
                }
            } else {
                let controllers = h.controllers.clone();
                cgroup.places.push(Place { folder: folder.clone(), controllers, unified: false });
                make_v1(h, &folder)?;
            }
        }
        cgroup.write(&wanted.resources)?;
        cgroup.resources = wanted.resources.clone();
        Ok(cgroup)
    }

    /// Where a controller is.
    fn place(&self, names: (&str, &str)) -> Option<&Place> {
        self.places.iter().find(|p| {
            let name = if p.unified { names.0 } else { names.1 };
            p.controllers.iter().any(|c| c == name)
        })
    }

    /// Writes limits to the files of the controllers.
    fn write(&self, r: &Resources) -> Result<(), String> {
        for names in FAMILIES {
            let place = self.place(names);
            let now = || match place {
                Some(p) => number(&p.folder.join("memory.limit_in_bytes")).unwrap_or(u64::MAX),
                None => u64::MAX,
            };
            let all = match place {
                Some(p) if p.unified => settings::of_v2(names.0, r),
                Some(_) => settings::of_v1(names.1, r, now()),
                // None of it may be asked for then.
                None => settings::of_v2(names.0, r),
            };
            match place {
                None if all.is_empty() => {}
                None if self.unit.as_ref().is_some_and(|unit| unit.user) => {
                    return Err(format!(
                        "linux.resources: this user's systemd has no cgroup controller {:?} (Delegate= of user@.service gives them)",
                        names.0
                    ));
                }
                None => return Err(format!("linux.resources: this host has no cgroup controller {:?}", names.0)),
                Some(place) => {
                    place.check(names.0, r)?;
                    place.put(&all)?;
                }
            }
        }
        self.write_unified(r)
    }

    fn write_unified(&self, r: &Resources) -> Result<(), String> {
        if r.unified.is_empty() {
            return Ok(());
        }
        let alone = self.places.iter().all(|p| p.unified);
        let Some(place) = self.places.iter().find(|p| p.unified && alone) else {
            return Err("invalid configuration: cannot use unified on cgroup v1".into());
        };
        for (name, value) in &r.unified {
            let controller = name.split('.').next().unwrap_or_default();
            put(&place.folder.join(name), value).map_err(|e| match e.kind() {
                ErrorKind::NotFound if !place.controllers.iter().any(|c| c == controller) => {
                    format!("unified resource {name:?} can't be set: controller {controller:?} not available")
                }
                _ => failed(&place.folder.join(name), value, &e),
            })?;
        }
        Ok(())
    }

    /// What was asked for and version 2 has no word for, where it has the controller.
    fn without_word(&self) -> Vec<String> {
        let memory = self.place(("memory", "memory")).is_some_and(|p| p.unified);
        let all = if memory { settings::without_word_v2(&self.resources) } else { Vec::new() };
        all.into_iter().map(|text| format!("linux.resources.{text}")).collect()
    }

    /// Moves a process (a host pid) into them.
    pub fn add(&self, pid: i32) -> Result<(), String> {
        for place in &self.places {
            let file = place.folder.join("cgroup.procs");
            put(&file, &pid.to_string()).map_err(|e| failed(&file, &pid.to_string(), &e))?;
        }
        Ok(())
    }

    /// A change of limits; `json` is a `linux.resources`.
    pub fn prepare(&self, json: &[u8]) -> Result<Update, Refused> {
        let new = changes(json)?;
        let mut all = self.resources.clone();
        all.merge(&new);
        all.check().map_err(|e| Refused::new(FailureKind::Invalid, e))?;
        let order = match &self.unit {
            None => None,
            Some(unit) => {
                let limits = systemd::properties(&all, self.places.iter().all(|p| p.unified));
                let limits = limits.map_err(|e| Refused::new(FailureKind::Invalid, e))?;
                Some(Order::Set { unit: unit.clone(), limits })
            }
        };
        Ok(Update { new, all, order })
    }

    /// Does it. What the container sees of it from then on.
    pub fn update(&mut self, change: Update) -> Result<Limits, Refused> {
        self.write(&change.new).map_err(|e| Refused::new(FailureKind::Host, e))?;
        self.resources = change.all;
        Ok(self.resources.limits())
    }

    /// The order to stop its unit, if systemd made it.
    pub fn stop(&self) -> Option<Order> {
        self.unit.clone().map(|unit| Order::Stop { unit })
    }

    /// What the container sees of its limits.
    pub fn limits(&self) -> Limits {
        self.resources.limits()
    }

    /// The limits by name that are lost with it.
    pub fn names(&self) -> Vec<String> {
        self.resources.names()
    }

    /// Removes them as far as nobody is in them; whether all are gone.
    pub fn remove(&mut self) -> bool {
        self.places.retain(|p| !cgroup::remove(&p.folder));
        self.places.is_empty()
    }

    /// How many processes the host killed because memory was short; `None` where that is not counted.
    pub fn oom_kills(&self) -> Option<u64> {
        let place = self.place(("memory", "memory"))?;
        let file = if place.unified { "memory.events" } else { "memory.oom_control" };
        stats::table(&place.folder.join(file)).get("oom_kill").copied()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The name that a cgroup gets for want of a path: the container's id, or one of our own if it is taken, since equal ids of different
/// supervisors are different containers.
fn free_name(hierarchies: &[Hierarchy], wanted: &Wanted, id: &str) -> String {
    let taken = wanted.path.is_empty() && folders(hierarchies, wanted, id).iter().any(|f| f.exists());
    if taken { format!("{id}-{}", std::process::id()) } else { id.to_owned() }
}

/// Whether somebody froze it: a container would never come to run there.
fn is_frozen(folder: &Path) -> bool {
    let says = |file: &str, word: &str| words(&folder.join(file)).first().is_some_and(|w| w == word);
    says("freezer.state", "FROZEN") || says("cgroup.freeze", "1")
}

/// The container's folder in each hierarchy.
fn folders(hierarchies: &[Hierarchy], wanted: &Wanted, id: &str) -> Vec<PathBuf> {
    let alone = hierarchies.iter().all(|h| h.unified);
    hierarchies.iter().map(|h| h.folder(&wanted.path, id, alone)).collect()
}

/// The limits that an update brings, where there is no cgroup to set them in: only such as the Sentry keeps to itself.
pub fn update_without(wanted: &mut Wanted, json: &[u8]) -> Result<Limits, Refused> {
    let new = changes(json)?;
    if let Some(name) = new.names().first() {
        return Err(Refused::new(FailureKind::Host, format!("{name}: not set: the container has no cgroup")));
    }
    wanted.resources.merge(&new);
    Ok(wanted.resources.limits())
}

fn changes(json: &[u8]) -> Result<Resources, Refused> {
    let invalid = |e: &dyn std::fmt::Display| Refused::new(FailureKind::Invalid, format!("resources: {e}"));
    // serde would take a list for the members in their order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid(&"not a JSON object"));
    }
    serde_json::from_slice(json).map_err(|e| invalid(&e))
}

impl Place {
    /// Whether a limit of memory may be set although less is used, where the document asks.
    fn check(&self, family: &str, r: &Resources) -> Result<(), String> {
        let m = r.memory.unwrap_or_default();
        if family != "memory" || !self.unified || m.check_before_update != Some(true) {
            return Ok(());
        }
        let used = number(&self.folder.join("memory.current")).unwrap_or(0);
        match m.limit.filter(|n| *n > 0) {
            Some(limit) if used >= limit.unsigned_abs() => {
                Err(format!("rejecting memory limit {limit} <= usage {used}"))
            }
            _ => Ok(()),
        }
    }

    fn put(&self, all: &[Setting]) -> Result<(), String> {
        let mut again = Vec::new();
        for setting in all {
            match self.put_one(setting) {
                Err((_, ErrorKind::InvalidInput)) if setting.lenient == Lenient::Again => again.push(setting),
                Err((text, _)) => return Err(text),
                Ok(()) => {}
            }
        }
        again.into_iter().try_for_each(|setting| self.put_one(setting).map_err(|(text, _)| text))
    }

    fn put_one(&self, setting: &Setting) -> Result<(), (String, ErrorKind)> {
        let (mut file, mut value) = (self.folder.join(&setting.file), &setting.value);
        let mut done = put(&file, value);
        if let (Err(ErrorKind::NotFound), Some((name, other))) =
            (done.as_ref().map_err(std::io::Error::kind), &setting.or)
        {
            (file, value) = (self.folder.join(name), other);
            done = put(&file, value);
        }
        match done {
            Err(e) if e.kind() == ErrorKind::NotFound && setting.lenient == Lenient::Missing => Ok(()),
            Err(e) => Err((failed(&file, value, &e), e.kind())),
            Ok(()) => Ok(()),
        }
    }
}

/// As runc says it.
fn failed(file: &Path, value: &str, e: &std::io::Error) -> String {
    format!("failed to write {value:?}: write {}: {e}", file.display())
}

/// Writes to a file of the kernel's, in one call and never making one.
fn put(file: &Path, value: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).open(file)?.write_all(value.as_bytes())
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn number(file: &Path) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

fn words(file: &Path) -> Vec<String> {
    read(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn made(folder: &Path) -> Result<(), String> {
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(format!("mkdir {}: {e}", folder.display())),
        _ => Ok(()),
    }
}

/// The folders from a mount down to one, the mount first.
fn way<'a>(mount: &Path, folder: &'a Path) -> Vec<&'a Path> {
    let mut all: Vec<&Path> = folder.ancestors().take_while(|a| a.starts_with(mount)).collect();
    all.reverse();
    all
}

fn make_v1(h: &Hierarchy, folder: &Path) -> Result<(), String> {
    let cpuset = h.controllers.iter().any(|c| c == "cpuset");
    for at in way(&h.mount, folder).into_iter().skip(1) {
        made(at)?;
        if !cpuset {
            continue;
        }
        // A new one has none, and nobody can come into it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (own, above) = (at.join(file), at.parent().unwrap_or(at).join(file));
            if read(&own).is_none_or(|t| t.trim().is_empty()) {
                let value = read(&above).unwrap_or_default();
                put(&own, value.trim()).map_err(|e| failed(&own, value.trim(), &e))?;
            }
        }
    }
    Ok(())
}

/// Makes the folder and, on the way there, has controllers given on. What cannot be is seen when it is missed.
fn make_v2(mount: &Path, folder: &Path, controllers: bool) -> Result<(), String> {
    let all = if controllers { words(&mount.join("cgroup.controllers")) } else { Vec::new() };
    let way = way(mount, folder);
    for (n, at) in way.iter().enumerate() {
        if n > 0 {
            made(at)?;
        }
        if n + 1 == way.len() || all.is_empty() {
            continue;
        }
        let file = at.join("cgroup.subtree_control");
        let given = words(&file);
        let missing: Vec<String> = all.iter().filter(|c| !given.contains(c)).map(|c| format!("+{c}")).collect();
        if !missing.is_empty() && put(&file, &missing.join(" ")).is_err() {
            missing.iter().for_each(|one| drop(put(&file, one)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
