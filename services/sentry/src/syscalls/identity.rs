//! Who a task is: user and group ids, capabilities. `credentials(7)`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::task::creds::{cap, secure};
use crate::task::{Creds, Task};

/// "No change" in the set*id calls.
const KEEP: u32 = u32::MAX;

fn getuid(task: &Arc<Task>) -> SysResult {
    let c = task.creds();
    value(c.shown_uid(c.ruid))
}
fn geteuid(task: &Arc<Task>) -> SysResult {
    let c = task.creds();
    value(c.shown_uid(c.euid))
}
fn getgid(task: &Arc<Task>) -> SysResult {
    let c = task.creds();
    value(c.shown_gid(c.rgid))
}
fn getegid(task: &Arc<Task>) -> SysResult {
    let c = task.creds();
    value(c.shown_gid(c.egid))
}

fn getresuid(task: &Arc<Task>, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> SysResult {
    let c = task.creds();
    r.write(task, &c.shown_uid(c.ruid))?;
    e.write(task, &c.shown_uid(c.euid))?;
    s.write(task, &c.shown_uid(c.suid))?;
    done()
}

fn getresgid(task: &Arc<Task>, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> SysResult {
    let c = task.creds();
    r.write(task, &c.shown_gid(c.rgid))?;
    e.write(task, &c.shown_gid(c.egid))?;
    s.write(task, &c.shown_gid(c.sgid))?;
    done()
}

/// Ids as the caller has them, of which [`KEEP`] is none.
fn kernel_ids<const N: usize>(ids: [u32; N], of: impl Fn(u32) -> Option<u32>) -> Result<[u32; N], Errno> {
    let mut out = ids;
    for id in out.iter_mut().filter(|id| **id != KEEP) {
        *id = of(*id).ok_or(Errno::EINVAL)?;
    }
    Ok(out)
}

fn kernel_uids<const N: usize>(task: &Task, ids: [u32; N]) -> Result<[u32; N], Errno> {
    let ns = task.creds().user_ns.clone();
    kernel_ids(ids, |id| ns.kernel_uid(id))
}

fn kernel_gids<const N: usize>(task: &Task, ids: [u32; N]) -> Result<[u32; N], Errno> {
    let ns = task.creds().user_ns.clone();
    kernel_ids(ids, |id| ns.kernel_gid(id))
}

/// What changing user ids does to capabilities (`capabilities(7)`, "Effect of user ID changes").
fn fix_capabilities(old: &Creds, new: &mut Creds) {
    if new.securebits & secure::NO_SETUID_FIXUP != 0 {
        return;
    }
    let had_root = [old.ruid, old.euid, old.suid].iter().any(|u| old.is_root(*u));
    let has_root = [new.ruid, new.euid, new.suid].iter().any(|u| old.is_root(*u));
    if had_root && !has_root {
        if new.securebits & secure::KEEP_CAPS == 0 {
            new.permitted = 0;
            new.effective = 0;
        }
        // Whatever is kept: programs of a user get nothing by themselves.
        new.ambient = 0;
    }
    if old.is_root(old.euid) && !old.is_root(new.euid) {
        new.effective = 0;
    }
    if !old.is_root(old.euid) && old.is_root(new.euid) {
        new.effective = new.permitted;
    }
}

fn change(task: &Task, f: impl FnOnce(&Creds, &mut Creds) -> Result<(), Errno>) -> SysResult {
    let old = task.creds();
    let mut new = Creds::clone(&old);
    f(&old, &mut new)?;
    fix_capabilities(&old, &mut new);
    task.set_creds(new);
    done()
}

fn setuid(task: &Arc<Task>, uid: u32) -> SysResult {
    let uid = task.creds().user_ns.kernel_uid(uid).ok_or(Errno::EINVAL)?;
    change(task, |old, new| {
        if old.has(cap::SETUID) {
            (new.ruid, new.suid) = (uid, uid);
        } else if uid != old.ruid && uid != old.suid {
            return Err(Errno::EPERM);
        }
        (new.euid, new.fsuid) = (uid, uid);
        Ok(())
    })
}

fn setgid(task: &Arc<Task>, gid: u32) -> SysResult {
    let gid = task.creds().user_ns.kernel_gid(gid).ok_or(Errno::EINVAL)?;
    change(task, |old, new| {
        if old.has(cap::SETGID) {
            (new.rgid, new.sgid) = (gid, gid);
        } else if gid != old.rgid && gid != old.sgid {
            return Err(Errno::EPERM);
        }
        (new.egid, new.fsgid) = (gid, gid);
        Ok(())
    })
}

fn setreuid(task: &Arc<Task>, r: u32, e: u32) -> SysResult {
    let [r, e] = kernel_uids(task, [r, e])?;
    change(task, |old, new| {
        let free = old.has(cap::SETUID);
        if !free && r != KEEP && r != old.ruid && r != old.euid {
            return Err(Errno::EPERM);
        }
        if !free && e != KEEP && e != old.ruid && e != old.euid && e != old.suid {
            return Err(Errno::EPERM);
        }
        if r != KEEP {
            new.ruid = r;
        }
        if e != KEEP {
            new.euid = e;
        }
        if r != KEEP || (e != KEEP && e != old.ruid) {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

fn setregid(task: &Arc<Task>, r: u32, e: u32) -> SysResult {
    let [r, e] = kernel_gids(task, [r, e])?;
    change(task, |old, new| {
        let free = old.has(cap::SETGID);
        if !free && r != KEEP && r != old.rgid && r != old.egid {
            return Err(Errno::EPERM);
        }
        if !free && e != KEEP && e != old.rgid && e != old.egid && e != old.sgid {
            return Err(Errno::EPERM);
        }
        if r != KEEP {
            new.rgid = r;
        }
        if e != KEEP {
            new.egid = e;
        }
        if r != KEEP || (e != KEEP && e != old.rgid) {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

fn setresuid(task: &Arc<Task>, r: u32, e: u32, s: u32) -> SysResult {
    let [r, e, s] = kernel_uids(task, [r, e, s])?;
    change(task, |old, new| {
        let own = |id: u32| id == KEEP || id == old.ruid || id == old.euid || id == old.suid;
        if !(old.has(cap::SETUID) || own(r) && own(e) && own(s)) {
            return Err(Errno::EPERM);
        }
        for (id, to) in [(r, &mut new.ruid), (e, &mut new.euid), (s, &mut new.suid)] {
            if id != KEEP {
                *to = id;
            }
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

fn setresgid(task: &Arc<Task>, r: u32, e: u32, s: u32) -> SysResult {
    let [r, e, s] = kernel_gids(task, [r, e, s])?;
    change(task, |old, new| {
        let own = |id: u32| id == KEEP || id == old.rgid || id == old.egid || id == old.sgid;
        if !(old.has(cap::SETGID) || own(r) && own(e) && own(s)) {
            return Err(Errno::EPERM);
        }
        for (id, to) in [(r, &mut new.rgid), (e, &mut new.egid), (s, &mut new.sgid)] {
            if id != KEEP {
                *to = id;
            }
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

fn setfsuid(task: &Arc<Task>, uid: u32) -> SysResult {
    let old = task.creds();
    let uid = old.user_ns.kernel_uid(uid).unwrap_or(KEEP);
    let own = [old.ruid, old.euid, old.suid, old.fsuid].contains(&uid);
    if uid != KEEP && (own || old.has(cap::SETUID)) {
        let mut new = Creds::clone(&old);
        new.fsuid = uid;
        // Root's rights over files go and come with its file system id (capabilities(7)).
        if new.securebits & secure::NO_SETUID_FIXUP == 0 {
            match (old.is_root(old.fsuid), old.is_root(uid)) {
                (true, false) => new.effective &= !cap::FILES,
                (false, true) => new.effective |= new.permitted & cap::FILES,
                _ => {}
            }
        }
        task.set_creds(new);
    }
    value(old.shown_uid(old.fsuid))
}

fn setfsgid(task: &Arc<Task>, gid: u32) -> SysResult {
    let old = task.creds();
    let gid = old.user_ns.kernel_gid(gid).unwrap_or(KEEP);
    let own = [old.rgid, old.egid, old.sgid, old.fsgid].contains(&gid);
    if gid != KEEP && (own || old.has(cap::SETGID)) {
        let mut new = Creds::clone(&old);
        new.fsgid = gid;
        task.set_creds(new);
    }
    value(old.shown_gid(old.fsgid))
}

/// `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65536;

fn getgroups(task: &Arc<Task>, size: i32, to: UserPtr<u32>) -> SysResult {
    let c = task.creds();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size != 0 {
        if size < c.groups.len() {
            return Err(Errno::EINVAL);
        }
        to.write_array(task, &c.groups.iter().map(|g| c.shown_gid(*g)).collect::<Vec<_>>())?;
    }
    value(c.groups.len())
}

fn setgroups(task: &Arc<Task>, size: i32, from: UserPtr<u32>) -> SysResult {
    let ns = task.creds().user_ns.clone();
    if !task.creds().has(cap::SETGID) || !ns.may_set_groups() {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let groups = from.read_array(task, size, MAX_GROUPS)?;
    let mut groups = groups.into_iter().map(|g| ns.kernel_gid(g)).collect::<Option<Vec<u32>>>().ok_or(Errno::EINVAL)?;
    groups.sort_unstable();
    let mut new = (*task.creds()).clone();
    new.groups = groups;
    task.set_creds(new);
    done()
}

const V1: u32 = 0x1998_0330;
const V2: u32 = 0x2007_1026;
const V3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// How many data structures the version has; writes the preferred version back if it is unknown.
fn cap_count(task: &Arc<Task>, header: UserPtr<CapHeader>, h: CapHeader) -> Result<usize, Errno> {
    match h.version {
        V1 => Ok(1),
        V2 | V3 => Ok(2),
        _ => {
            header.write(task, &CapHeader { version: V3, pid: h.pid })?;
            Err(Errno::EINVAL)
        }
    }
}

fn capget(task: &Arc<Task>, header: UserPtr<CapHeader>, data: UserPtr<CapData>) -> SysResult {
    let h = header.read(task)?;
    let count = match cap_count(task, header, h) {
        Err(Errno::EINVAL) if data.is_null() => return done(),
        r => r?,
    };
    if h.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let pid = task.id_of(h.pid);
    let c = if pid == 0 || pid == task.tid() {
        task.creds()
    } else {
        task.kernel().tree.lock().task(pid).ok_or(Errno::ESRCH)?.creds()
    };
    let part = |shift: u32| CapData {
        effective: (c.effective >> shift) as u32,
        permitted: (c.permitted >> shift) as u32,
        inheritable: (c.inheritable >> shift) as u32,
    };
    if !data.is_null() {
        let all = [part(0), part(32)];
        data.write_array(task, all.get(..count).unwrap_or_default())?;
    }
    done()
}

fn capset(task: &Arc<Task>, header: UserPtr<CapHeader>, data: UserPtr<CapData>) -> SysResult {
    let h = header.read(task)?;
    let count = cap_count(task, header, h)?;
    if h.pid != 0 && task.id_of(h.pid) != task.tid() {
        return Err(Errno::EPERM);
    }
    let d = data.read_array(task, count, 2)?;
    let join =
        |f: fn(&CapData) -> u32| d.iter().enumerate().fold(0u64, |all, (i, part)| all | u64::from(f(part)) << (32 * i));
    let (e, p, i) = (join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable));
    let old = task.creds();
    let mut new = Creds::clone(&old);
    if p & !old.permitted != 0 || e & !p != 0 {
        return Err(Errno::EPERM);
    }
    let allowed = if old.has(cap::SETPCAP) { old.inheritable | old.bounding } else { old.inheritable | old.permitted };
    if i & !allowed != 0 || i & !(old.inheritable | old.bounding) != 0 {
        return Err(Errno::EPERM);
    }
    (new.effective, new.permitted, new.inheritable) = (e, p, i);
    new.ambient &= p & i;
    task.set_creds(new);
    done()
}

/// The identity calls.
pub const TABLE: &[Entry] = &[
    entry!(102, "getuid", Full, "", getuid()),
    entry!(104, "getgid", Full, "", getgid()),
    entry!(105, "setuid", Full, "", setuid(u32)),
    entry!(106, "setgid", Full, "", setgid(u32)),
    entry!(107, "geteuid", Full, "", geteuid()),
    entry!(108, "getegid", Full, "", getegid()),
    entry!(113, "setreuid", Full, "", setreuid(u32, u32)),
    entry!(114, "setregid", Full, "", setregid(u32, u32)),
    entry!(115, "getgroups", Full, "", getgroups(i32, UserPtr<u32>)),
    entry!(116, "setgroups", Full, "", setgroups(i32, UserPtr<u32>)),
    entry!(117, "setresuid", Full, "", setresuid(u32, u32, u32)),
    entry!(118, "getresuid", Full, "", getresuid(UserPtr<u32>, UserPtr<u32>, UserPtr<u32>)),
    entry!(119, "setresgid", Full, "", setresgid(u32, u32, u32)),
    entry!(120, "getresgid", Full, "", getresgid(UserPtr<u32>, UserPtr<u32>, UserPtr<u32>)),
    entry!(122, "setfsuid", Full, "", setfsuid(u32)),
    entry!(123, "setfsgid", Full, "", setfsgid(u32)),
    entry!(125, "capget", Full, "", capget(UserPtr<CapHeader>, UserPtr<CapData>)),
    entry!(126, "capset", Full, "", capset(UserPtr<CapHeader>, UserPtr<CapData>)),
];
