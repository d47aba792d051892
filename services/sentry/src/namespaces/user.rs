//! User namespaces, `user_namespaces(7)`: whose ids are which, and how many namespaces a user may make.
//!
//! Inside the Sentry every id is one of the first user namespace (Linux's kuid); it is translated where it comes in or goes out.
//! Owned here: the maps, the rules for writing them, the counts. Never here: what a capability allows (`task::creds`).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Kind, next_id};
use crate::errno::Errno;
use crate::sync::{Mutex, RwLock};
use crate::task::Creds;
use crate::task::creds::cap;

/// What an id without a place in a namespace is shown as (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW: u32 = 65_534;
/// No id.
const NONE: u32 = u32::MAX;
/// Namespaces within one another, the first not counted.
const LEVELS: u32 = 32;
/// Lines of a map.
const EXTENTS: usize = 340;
/// Bytes of a map that is written.
const MAP_BYTES: usize = 4096;
/// Namespaces of a kind that a user may have, unless told otherwise: fewer than Linux has it, for what they cost the Sentry.
const MOST: i32 = 4096;

/// Ids in a row and what they are in the first namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    first: u32,
    kernel: u32,
    count: u32,
}

/// A map of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map(Vec<Extent>);

impl Map {
    /// The first namespace's: all there are, as they are.
    fn whole() -> Self {
        Self(vec![Extent { first: 0, kernel: 0, count: NONE }])
    }

    /// What `count` ids from `id` on are in the first namespace, if that is a row, too.
    fn down(&self, id: u32, count: u32) -> Option<u32> {
        let within = |e: &&Extent| id >= e.first && (id - e.first).checked_add(count).is_some_and(|n| n <= e.count);
        self.0.iter().find(within).and_then(|e| e.kernel.checked_add(id - e.first))
    }

    fn up(&self, kernel: u32) -> Option<u32> {
        let within = |e: &&Extent| kernel >= e.kernel && kernel - e.kernel < e.count;
        self.0.iter().find(within).and_then(|e| e.first.checked_add(kernel - e.kernel))
    }

    /// Takes the lines of a map apart; `kernel` is as yet an id of the parent.
    fn parse(text: &[u8]) -> Result<Self, Errno> {
        let text =
            std::str::from_utf8(text.split(|b| *b == 0).next().unwrap_or_default()).map_err(|_| Errno::EINVAL)?;
        let mut map = Self::default();
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            let number = |s: Option<&str>| -> Result<u32, Errno> {
                let n: u64 = s.ok_or(Errno::EINVAL)?.parse().map_err(|_| Errno::EINVAL)?;
                // As Linux reads it: the upper half is lost.
                Ok(n as u32)
            };
            let mut words = line.split_ascii_whitespace();
            let e =
                Extent { first: number(words.next())?, kernel: number(words.next())?, count: number(words.next())? };
            let rows = [e.first, e.kernel];
            let ends = |from: u32| e.count != 0 && from.checked_add(e.count).is_some();
            if words.next().is_some() || rows.contains(&NONE) || !rows.iter().all(|r| ends(*r)) {
                return Err(Errno::EINVAL);
            }
            let meets = |a: u32, b: u32, n: u32| a < b.saturating_add(n) && b < a.saturating_add(e.count);
            let overlaps = |o: &Extent| meets(e.first, o.first, o.count) || meets(e.kernel, o.kernel, o.count);
            if map.0.iter().any(overlaps) || map.0.len() >= EXTENTS {
                return Err(Errno::EINVAL);
            }
            map.0.push(e);
        }
        Ok(map)
    }
}

/// Which of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Which {
    Users,
    Groups,
    Projects,
}

#[derive(Debug, Default)]
struct Maps {
    users: Map,
    groups: Map,
    projects: Map,
}

impl Maps {
    fn of(&self, which: Which) -> &Map {
        match which {
            Which::Users => &self.users,
            Which::Groups => &self.groups,
            Which::Projects => &self.projects,
        }
    }
}

/// A namespace that its maker's account counts, and those of the makers of the user namespaces around it.
#[derive(Debug, Default)]
pub struct Counted {
    accounts: Vec<(Arc<UserNamespace>, u32)>,
    kind: usize,
}

impl Counted {
    /// Counts one more of a kind in for a user; ENOSPC if there may be no more.
    pub fn new(owner: &Arc<UserNamespace>, user: u32, kind: Kind) -> Result<Self, Errno> {
        let mut counted = Self { accounts: Vec::new(), kind: kind as usize };
        let mut at = Some((owner.clone(), user));
        while let Some((ns, user)) = at {
            let most = ns.limits.get(counted.kind).map_or(0, |l| l.load(Ordering::Relaxed));
            {
                let mut counts = ns.counts.lock();
                let count = counts.entry((user, counted.kind)).or_insert(0);
                if *count >= most {
                    // What was counted so far goes with `counted`.
                    return Err(Errno::ENOSPC);
                }
                *count += 1;
            }
            at = ns.parent.clone().map(|p| (p, ns.owner));
            counted.accounts.push((ns, user));
        }
        Ok(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for (ns, user) in &self.accounts {
            let mut counts = ns.counts.lock();
            if let Some(count) = counts.get_mut(&(*user, self.kind)) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&(*user, self.kind));
                }
            }
        }
    }
}

/// A user namespace.
pub struct UserNamespace {
    /// Its number.
    pub id: u64,
    /// The one it was made in; `None` for the first.
    pub parent: Option<Arc<UserNamespace>>,
    level: u32,
    /// Who made it: the effective user.
    pub owner: u32,
    maps: RwLock<Maps>,
    /// Whether `setgroups(2)` may be called once there is a map of groups.
    setgroups: AtomicBool,
    /// Its maker had CAP_SETFCAP.
    setfcap: bool,
    limits: [AtomicI32; Kind::COUNT],
    counts: Mutex<HashMap<(u32, usize), i32>>,
    _counted: Counted,
}

impl std::fmt::Debug for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user:[{}]", self.id)
    }
}

impl PartialEq for UserNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for UserNamespace {}

impl UserNamespace {
    /// The first, which the sandbox begins in.
    pub fn initial() -> Arc<Self> {
        static INITIAL: OnceLock<Arc<UserNamespace>> = OnceLock::new();
        let make = || {
            Arc::new(Self {
                id: Kind::User.first_id(),
                parent: None,
                level: 0,
                owner: 0,
                maps: RwLock::new(Maps { users: Map::whole(), groups: Map::whole(), projects: Map::whole() }),
                setgroups: AtomicBool::new(true),
                setfcap: true,
                limits: [const { AtomicI32::new(MOST) }; Kind::COUNT],
                counts: Mutex::default(),
                _counted: Counted::default(),
            })
        };
        INITIAL.get_or_init(make).clone()
    }

    /// Makes one within that of `creds`, without maps; `creds` have all capabilities in it (`clone(2)`, CLONE_NEWUSER).
    pub fn enter_new(creds: &mut Creds) -> Result<(), Errno> {
        let parent = creds.user_ns.clone();
        if parent.level > LEVELS {
            return Err(Errno::ENOSPC);
        }
        let counted = Counted::new(&parent, creds.euid, Kind::User)?;
        if parent.uid(creds.euid).is_none() || parent.gid(creds.egid).is_none() {
            return Err(Errno::EPERM);
        }
        let new = Arc::new(Self {
            id: next_id(),
            level: parent.level + 1,
            owner: creds.euid,
            maps: RwLock::default(),
            setgroups: AtomicBool::new(parent.setgroups.load(Ordering::Relaxed)),
            setfcap: creds.has(cap::SETFCAP),
            limits: [const { AtomicI32::new(i32::MAX) }; Kind::COUNT],
            counts: Mutex::default(),
            _counted: counted,
            parent: Some(parent),
        });
        creds.enter(new);
        Ok(())
    }

    /// Whether it is the first.
    pub fn is_initial(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether it is `other` or lies within it.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut at = Some(self);
        while let Some(ns) = at {
            if ns == other {
                return true;
            }
            at = ns.parent.as_deref();
        }
        false
    }

    fn map<T>(&self, which: Which, look: impl FnOnce(&Map) -> T) -> T {
        look(self.maps.read().of(which))
    }

    /// What a user of the first namespace is here; `None` if nobody.
    pub fn uid(&self, kernel: u32) -> Option<u32> {
        if self.is_initial() { Some(kernel) } else { self.map(Which::Users, |m| m.up(kernel)) }
    }

    /// The same of a group.
    pub fn gid(&self, kernel: u32) -> Option<u32> {
        if self.is_initial() { Some(kernel) } else { self.map(Which::Groups, |m| m.up(kernel)) }
    }

    /// As [`uid`](Self::uid), for showing.
    pub fn shown_uid(&self, kernel: u32) -> u32 {
        self.uid(kernel).unwrap_or(OVERFLOW)
    }

    /// As [`gid`](Self::gid), for showing.
    pub fn shown_gid(&self, kernel: u32) -> u32 {
        self.gid(kernel).unwrap_or(OVERFLOW)
    }

    /// What a user of this namespace is in the first; `None` if it is nobody.
    pub fn kernel_uid(&self, uid: u32) -> Option<u32> {
        if self.is_initial() { (uid != NONE).then_some(uid) } else { self.map(Which::Users, |m| m.down(uid, 1)) }
    }

    /// The same of a group.
    pub fn kernel_gid(&self, gid: u32) -> Option<u32> {
        if self.is_initial() { (gid != NONE).then_some(gid) } else { self.map(Which::Groups, |m| m.down(gid, 1)) }
    }

    /// Whether this user of the first namespace is the root here, or in a namespace around this one.
    pub fn has_root(&self, kernel: u32) -> bool {
        let mut at = Some(self);
        while let Some(ns) = at {
            if ns.uid(kernel) == Some(0) {
                return true;
            }
            at = ns.parent.as_deref();
        }
        false
    }

    /// Whether `setgroups(2)` may be called at all.
    pub fn may_set_groups(&self) -> bool {
        self.setgroups.load(Ordering::Relaxed) && self.map(Which::Groups, |m| !m.0.is_empty())
    }

    /// `/proc/PID/setgroups`.
    pub fn setgroups(&self) -> &'static str {
        if self.setgroups.load(Ordering::Relaxed) { "allow\n" } else { "deny\n" }
    }

    /// A write to that.
    pub fn write_setgroups(&self, text: &[u8]) -> Result<(), Errno> {
        let allow = match text.trim_ascii_end() {
            _ if text.len() >= 8 => return Err(Errno::EINVAL),
            b"allow" => true,
            b"deny" => false,
            _ => return Err(Errno::EINVAL),
        };
        let maps = self.maps.write();
        if allow {
            return if self.setgroups.load(Ordering::Relaxed) { Ok(()) } else { Err(Errno::EPERM) };
        }
        if !maps.groups.0.is_empty() {
            return Err(Errno::EPERM);
        }
        self.setgroups.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// `/proc/PID/uid_map` and its like, as someone in the namespace `reader` sees it.
    pub fn show_map(&self, which: Which, reader: &Self) -> String {
        let lower = match &self.parent {
            Some(p) if reader == self => p,
            _ => reader,
        };
        let mut out = String::new();
        for e in &self.maps.read().of(which).0.clone() {
            let below = if lower.is_initial() { Some(e.kernel) } else { lower.map(which, |m| m.up(e.kernel)) };
            writeln!(out, "{:>10} {:>10} {:>10}", e.first, below.unwrap_or(NONE), e.count).ok();
        }
        out
    }

    /// A write to that: `writer` writes to what `opener` opened.
    pub fn write_map(&self, which: Which, text: &[u8], opener: &Creds, writer: &Creds) -> Result<(), Errno> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        if *opener.user_ns != *self && opener.user_ns != *parent {
            return Err(Errno::EPERM);
        }
        if text.len() >= MAP_BYTES {
            return Err(Errno::EINVAL);
        }
        let mut maps = self.maps.write();
        let free = which == Which::Projects;
        if !maps.of(which).0.is_empty() || !free && !opener.capable_in(self, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let mut new = Map::parse(text)?;
        if !free && !self.permitted(parent, which, &new, opener, writer) {
            return Err(Errno::EPERM);
        }
        for e in &mut new.0 {
            e.kernel = parent.map(which, |m| m.down(e.kernel, e.count)).ok_or(Errno::EPERM)?;
        }
        match which {
            Which::Users => maps.users = new,
            Which::Groups => maps.groups = new,
            Which::Projects => maps.projects = new,
        }
        Ok(())
    }

    /// Whether a map may be made by who wants to make it: one of just himself, or any by who may become anyone in the parent.
    fn permitted(&self, parent: &Arc<Self>, which: Which, new: &Map, opener: &Creds, writer: &Creds) -> bool {
        let root = which == Which::Users && new.0.iter().any(|e| e.kernel == 0);
        let may_root = if *opener.user_ns == *self { self.setfcap } else { opener.capable_in(parent, cap::SETFCAP) };
        if root && !may_root {
            return false;
        }
        if let [Extent { kernel, count: 1, .. }] = new.0.as_slice()
            && self.owner == opener.euid
        {
            let own = match which {
                Which::Users => parent.kernel_uid(*kernel) == Some(opener.euid),
                _ => parent.kernel_gid(*kernel) == Some(opener.egid) && !self.setgroups.load(Ordering::Relaxed),
            };
            if own {
                return true;
            }
        }
        let needs = if which == Which::Users { cap::SETUID } else { cap::SETGID };
        writer.capable_in(parent, needs) && opener.capable_in(parent, needs)
    }

    /// How many namespaces of a kind a user may have (`/proc/sys/user`).
    pub fn limit(&self, kind: Kind) -> &AtomicI32 {
        self.limits.get(kind as usize).unwrap_or(&self.limits[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::creds::ALL_CAPABILITIES;

    #[test]
    fn maps_are_checked_as_by_linux() {
        let ok = |t: &str| Map::parse(t.as_bytes()).map(|m| m.0.len());
        assert_eq!(ok("0 1000 1"), Ok(1));
        assert_eq!(ok("0 1000 1\n1 100000 65536\n"), Ok(2));
        for bad in ["", "\n", "0 0", "0 0 0", "a 0 1", "0 0 1 x", "4294967295 0 1", "0 4294967295 1", "1 1 4294967295"]
        {
            assert_eq!(ok(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(ok("0 0 10\n9 100 1"), Err(Errno::EINVAL));
        assert_eq!(ok("0 0 10\n10 9 1"), Err(Errno::EINVAL));
    }

    #[test]
    fn ids_go_down_and_up() {
        let mut root = Creds::root(ALL_CAPABILITIES);
        let outer = root.clone();
        UserNamespace::enter_new(&mut root).unwrap();
        let ns = root.user_ns.clone();
        assert_eq!(ns.shown_uid(0), OVERFLOW);
        assert_eq!(ns.write_map(Which::Users, b"0 1000 10", &outer, &outer), Ok(()));
        assert_eq!(ns.write_map(Which::Users, b"0 1000 10", &outer, &outer), Err(Errno::EPERM));
        assert_eq!(
            (ns.uid(1003), ns.kernel_uid(3), ns.uid(1010), ns.kernel_uid(10)),
            (Some(3), Some(1003), None, None)
        );
        assert_eq!(ns.show_map(Which::Users, &ns), "         0       1000         10\n");
        let mut user = Creds::user(5, 5, Vec::new(), 0);
        UserNamespace::enter_new(&mut user).unwrap();
        let ns = user.user_ns.clone();
        assert_eq!(ns.write_map(Which::Users, b"0 6 1", &user, &user), Err(Errno::EPERM));
        assert_eq!(ns.write_map(Which::Users, b"0 5 1", &user, &user), Ok(()));
        assert_eq!(ns.write_map(Which::Groups, b"0 5 1", &user, &user), Err(Errno::EPERM));
        assert_eq!(ns.write_setgroups(b"deny"), Ok(()));
        assert_eq!(ns.write_map(Which::Groups, b"0 5 1", &user, &user), Ok(()));
        assert!(!ns.may_set_groups() && user.capable_in(&ns, cap::SETUID) && !user.capable(cap::SETUID));
    }

    #[test]
    fn a_user_has_so_many() {
        let mut deep = Creds::user(77, 77, Vec::new(), 0);
        UserNamespace::enter_new(&mut deep).unwrap();
        let ns = deep.user_ns.clone();
        ns.limit(Kind::Uts).store(2, Ordering::Relaxed);
        let one = Counted::new(&ns, 77, Kind::Uts).unwrap();
        let _two = Counted::new(&ns, 77, Kind::Uts).unwrap();
        assert_eq!(Counted::new(&ns, 77, Kind::Uts).err(), Some(Errno::ENOSPC));
        drop(one);
        assert!(Counted::new(&ns, 77, Kind::Uts).is_ok());
    }
}
