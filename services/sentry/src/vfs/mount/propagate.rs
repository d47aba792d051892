//! What is mounted elsewhere because of a mount here: peer groups and slaves, `mount_namespaces(7)`, "Shared subtrees".
//!
//! Mounts of one group get what is mounted on any of them; slaves of a group get that, too, and give nothing back. Everything here
//! runs under the lock of the table of mounts. Owned here: who gets what. Never here: the table itself.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Mount, MountNamespace, PathRef, copy_tree};
use crate::errno::Errno;
use crate::sync::Mutex;
use crate::vfs::dentry::Dentry;

/// How a mount is to take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum How {
    Shared,
    Slave,
    Private,
    Unbindable,
}

/// How a copy is tied to what it is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the same group, a slave of the same.
    Alike,
    /// As [`Alike`](Self::Alike), but a slave of what is shared.
    SharedToSlave,
    /// A slave, of a group of its own if told so.
    Slave(bool),
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Mounts that get what is mounted on any of them.
pub struct Group {
    /// Its number.
    id: u64,
    members: Mutex<Vec<Weak<Mount>>>,
    slaves: Mutex<Vec<Weak<Mount>>>,
}

fn living(list: &Mutex<Vec<Weak<Mount>>>) -> Vec<Arc<Mount>> {
    list.lock().iter().filter_map(Weak::upgrade).collect()
}

fn leave(list: &Mutex<Vec<Weak<Mount>>>, mount: &Mount) {
    list.lock().retain(|m| !std::ptr::eq(m.as_ptr(), mount) && m.strong_count() > 0);
}

/// Numbers of the groups that a mount has to do with.
pub struct Groups {
    /// Of its peers.
    pub group: Option<u64>,
    /// The one that it is a slave of.
    pub master: Option<u64>,
    /// The nearest above of which something can be seen.
    pub nearest: Option<u64>,
}

/// The groups that a mount has to do with.
#[derive(Default)]
pub struct Ties {
    group: Option<Arc<Group>>,
    master: Option<Arc<Group>>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        super::ALIVE.fetch_sub(1, Ordering::Relaxed);
        // One that was never mounted, or was let go of in an error: groups know it no longer, only its slaves' master is looked after.
        let ties = std::mem::take(&mut *self.ties.lock());
        if let Some(g) = &ties.group {
            leave(&g.members, self);
        }
        if let Some(m) = &ties.master {
            leave(&m.slaves, self);
        }
        // Mounts on mounts may be many thousands: one after the other, not one within the other.
        let mut above = self.parent.write().take();
        while let Some(at) = above {
            above = Arc::into_inner(at.mount).and_then(|m| m.parent.write().take());
        }
    }
}

impl Mount {
    fn group(&self) -> Option<Arc<Group>> {
        self.ties.lock().group.clone()
    }

    fn master(&self) -> Option<Arc<Group>> {
        self.ties.lock().master.clone()
    }

    /// Whether it is in a peer group.
    pub fn is_shared(&self) -> bool {
        self.ties.lock().group.is_some()
    }

    /// Whether it gets what is mounted elsewhere.
    pub fn is_slave(&self) -> bool {
        self.ties.lock().master.is_some()
    }

    /// The groups it has to do with, as they are told to someone who sees what `sees` says.
    pub fn groups(&self, namespace: &MountNamespace, sees: impl Fn(&Arc<Mount>) -> bool) -> Groups {
        let (group, master) = {
            let ties = self.ties.lock();
            (ties.group.as_ref().map(|g| g.id), ties.master.clone())
        };
        let mut nearest = None;
        let mut at = master.clone();
        while let Some(g) = at {
            let members = living(&g.members);
            if members.iter().any(|m| namespace.has(m) && sees(m)) {
                nearest = Some(g.id);
                break;
            }
            at = members.first().and_then(|m| m.master());
        }
        Groups { group, master: master.map(|m| m.id), nearest }
    }

    /// As `/proc/PID/mountinfo` tells of it to someone who sees what `sees` says, each with a space before it.
    pub fn optional_fields(&self, namespace: &MountNamespace, sees: impl Fn(&Arc<Mount>) -> bool) -> String {
        let groups = self.groups(namespace, sees);
        let mut out = groups.group.map(|g| format!(" shared:{g}")).unwrap_or_default();
        if let Some(master) = groups.master {
            out.push_str(&format!(" master:{master}"));
            let above = groups.nearest.filter(|n| *n != master);
            out.push_str(&above.map(|n| format!(" propagate_from:{n}")).unwrap_or_default());
        }
        if self.is_unbindable() {
            out.push_str(" unbindable");
        }
        out
    }
}

fn join(mount: &Arc<Mount>, group: Arc<Group>) {
    group.members.lock().push(Arc::downgrade(mount));
    mount.ties.lock().group = Some(group);
}

fn serve(mount: &Arc<Mount>, master: Arc<Group>) {
    master.slaves.lock().push(Arc::downgrade(mount));
    mount.ties.lock().master = Some(master);
}

fn share(mount: &Arc<Mount>) {
    if mount.is_shared() {
        return;
    }
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    join(mount, Arc::new(Group { id, members: Mutex::default(), slaves: Mutex::default() }));
}

/// Leaves the peer group; who was a slave of its last member becomes one of that one's master. The group, if it goes on.
fn leave_group(mount: &Mount) -> Option<Arc<Group>> {
    let group = mount.ties.lock().group.take()?;
    leave(&group.members, mount);
    if !living(&group.members).is_empty() {
        return Some(group);
    }
    let master = mount.master();
    for slave in living(&group.slaves) {
        slave.ties.lock().master = None;
        if let Some(master) = &master {
            serve(&slave, master.clone());
        }
    }
    None
}

/// Leaves everything.
pub(super) fn make_private(mount: &Mount) {
    leave_group(mount);
    let master = mount.ties.lock().master.take();
    if let Some(master) = master {
        leave(&master.slaves, mount);
    }
}

/// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
pub(super) fn set(mount: &Arc<Mount>, how: How) {
    match how {
        How::Shared => {
            share(mount);
            mount.set_unbindable(false);
        }
        How::Slave => {
            if let Some(group) = leave_group(mount) {
                let before = mount.ties.lock().master.take();
                if let Some(before) = before {
                    leave(&before.slaves, mount);
                }
                serve(mount, group);
            }
        }
        How::Private | How::Unbindable => {
            make_private(mount);
            mount.set_unbindable(how == How::Unbindable);
        }
    }
}

/// Ties a copy of a mount as asked for.
pub(super) fn tie(of: &Arc<Mount>, copy: &Arc<Mount>, way: Way) {
    let (group, master) = (of.group(), of.master());
    match (way, group) {
        (Way::SharedToSlave | Way::Slave(_), Some(group)) => serve(copy, group),
        (_, group) => {
            if let Some(group) = group {
                join(copy, group);
            }
            if let Some(master) = master {
                serve(copy, master);
            }
        }
    }
    if way == Way::Slave(true) {
        share(copy);
    }
}

/// Whether what is mounted on `from` at a directory would be mounted on the root of `on`, too.
pub(super) fn reaches(from: &Arc<Mount>, on: &Arc<Mount>, at: &Arc<Dentry>) -> bool {
    let mut found = false;
    walk(from, |m| found |= Arc::ptr_eq(m, on) && Arc::ptr_eq(at, &m.root));
    found
}

/// Visits all others that get what is mounted on a mount.
fn walk(first: &Arc<Mount>, mut visit: impl FnMut(&Arc<Mount>)) {
    let Some(group) = first.group() else { return };
    let mut seen = HashSet::from([first.id]);
    let mut groups = vec![group];
    while let Some(group) = groups.pop() {
        for m in living(&group.members) {
            if seen.insert(m.id) {
                visit(&m);
            }
        }
        for s in living(&group.slaves) {
            match s.group() {
                Some(g) if !seen.contains(&s.id) => groups.push(g),
                None if seen.insert(s.id) => visit(&s),
                _ => {}
            }
        }
    }
}

/// Mounts, parents first.
type Tree = Vec<Arc<Mount>>;
type Planted = (PathRef, Tree);

/// Copies of a tree for all members of a group and for what its slaves are; the groups of slaves, and what theirs are copies of.
fn plant(
    group: &Arc<Group>,
    at: &Arc<Dentry>,
    tree: &Tree,
    seen: &mut HashSet<u64>,
    out: &mut Vec<Planted>,
) -> Result<Vec<(Arc<Group>, Tree)>, Errno> {
    let mut copy = |m: &Arc<Mount>, of: &[Arc<Mount>], way: Way| {
        let Some(root) = of.first().map(|m| m.root.clone()) else { return Ok(None) };
        if !at.is_below(&m.root) || m.adrift.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // A few binds of what is shared would be more than there is memory for.
        super::check_room(of.len())?;
        let made = copy_tree(of, root, way, false);
        out.push((PathRef { mount: m.clone(), dentry: at.clone() }, made.clone()));
        Ok::<_, Errno>(Some(made))
    };
    for m in living(&group.members) {
        if seen.insert(m.id) {
            copy(&m, tree, Way::Alike)?;
        }
    }
    let mut next: Vec<(Arc<Group>, Option<Tree>)> = Vec::new();
    for s in living(&group.slaves) {
        if !seen.insert(s.id) {
            continue;
        }
        let Some(group) = s.group() else {
            copy(&s, tree, Way::Slave(false))?;
            continue;
        };
        // What the first of a group gets is a slave of what is mounted above; what the others get is its peer.
        match next.iter_mut().find(|n| n.0.id == group.id) {
            Some((_, Some(of))) => {
                copy(&s, of, Way::Alike)?;
            }
            Some((_, none)) => *none = copy(&s, tree, Way::Slave(true))?,
            None => {
                let made = copy(&s, tree, Way::Slave(true))?;
                next.push((group, made));
            }
        }
    }
    Ok(next.into_iter().map(|(group, of)| (group, of.unwrap_or_else(|| tree.clone()))).collect())
}

/// The copies, and their places, that a tree mounted at a place is mounted as elsewhere. The tree itself is shared by that.
pub(super) fn copies(at: &PathRef, tree: &[Arc<Mount>]) -> Result<Vec<Planted>, Errno> {
    let Some(group) = at.mount.group() else { return Ok(Vec::new()) };
    tree.iter().for_each(share);
    let mut out = Vec::new();
    let mut seen = HashSet::from([at.mount.id]);
    // Slaves of slaves may be many: they are worked through, not called for.
    let mut left = vec![(group, tree.to_vec())];
    while let Some((group, tree)) = left.pop() {
        left.extend(plant(&group, &at.dentry, &tree, &mut seen, &mut out)?.into_iter().rev());
    }
    Ok(out)
}

/// The mounts that are to go because these go: what is mounted at the same place of those that get what is mounted on the parents.
/// `look`: what is mounted at a place. `keep` keeps namespaces for the time of the change.
pub(super) fn followers(
    gone: &[Arc<Mount>],
    look: impl Fn(&PathRef) -> Option<Arc<Mount>>,
    keep: &mut Vec<Arc<MountNamespace>>,
) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    let mut going = super::numbers(gone);
    for m in gone {
        let Some(at) = m.parent() else { continue };
        walk(&at.mount, |other| {
            let there = look(&PathRef { mount: other.clone(), dentry: at.dentry.clone() });
            if let Some(there) = there.filter(|t| going.insert(t.id)) {
                found.push(there);
            }
        });
    }
    // What is mounted on each, by number; namespaces that are asked are kept: the last reference takes the lock that we hold.
    let mut on: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut asked: Vec<Arc<MountNamespace>> = Vec::new();
    for ns in found.iter().filter_map(|m| m.namespace()) {
        if !asked.iter().any(|a| Arc::ptr_eq(a, &ns)) {
            for m in ns.order.read().iter() {
                on.entry(m.parent().map_or(0, |p| p.mount.id)).or_default().push(m.id);
            }
            asked.push(ns);
        }
    }
    keep.extend(asked);
    // Those stay that something else is mounted on, and those that are locked to what they lie on.
    loop {
        let stays = |m: &Arc<Mount>| {
            on.get(&m.id).is_some_and(|on| on.iter().any(|i| !going.contains(i)))
                || m.is_locked() && m.parent().is_some_and(|p| !going.contains(&p.mount.id))
        };
        let staying: Vec<u64> = found.iter().filter(|m| stays(m)).map(|m| m.id).collect();
        if staying.is_empty() {
            return found;
        }
        staying.iter().for_each(|id| {
            going.remove(id);
        });
        found.retain(|m| going.contains(&m.id));
    }
}
