//! What there is to know of mounts, by their unique numbers: `statmount`, `listmount`.

use std::sync::Arc;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{Entry, SysResult, UserPtr, done, mount_api, value};
use crate::entry;
use crate::errno::Errno;
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::inode::split_dev;
use crate::vfs::mount::{FIRST_UNIQUE, Mount, MountNamespace, PathRef};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        457,
        "statmount",
        Partial,
        "of the caller's own namespace",
        statmount(UserPtr<Request>, UserPtr<u8>, usize, u32)
    ),
    entry!(
        458,
        "listmount",
        Partial,
        "of the caller's own namespace",
        listmount(UserPtr<Request>, UserPtr<u64>, usize, u32)
    ),
];

/// `struct mnt_id_req`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Request {
    size: u32,
    namespace_fd: u32,
    mount: u64,
    /// What is asked for; of `listmount` the number after which to begin.
    param: u64,
    namespace: u64,
}

/// Its size before it could name a namespace.
const REQUEST_FIRST: usize = 24;

/// What is asked; and the namespace, which can only be the caller's own.
fn request(task: &Arc<Task>, at: UserPtr<Request>) -> Result<(Request, Arc<MountNamespace>), Errno> {
    let size = at.cast::<u32>().read(task)? as usize;
    let r = at.read_grown(task, size, REQUEST_FIRST)?;
    if r.namespace_fd != 0 && r.namespace != 0 || r.mount <= FIRST_UNIQUE {
        return Err(Errno::EINVAL);
    }
    let own = task.fs().namespace();
    if r.namespace_fd != 0 || r.namespace != 0 && r.namespace != own.base.id {
        return Err(Errno::ENOENT);
    }
    Ok((r, own))
}

/// Whether a mount can be seen from a place.
fn seen_from(mount: &Arc<Mount>, from: &PathRef) -> bool {
    let mut at = PathRef::root_of(mount);
    while !Arc::ptr_eq(&at.mount, &from.mount) {
        match at.mount.parent() {
            Some(up) => at = up,
            None => return false,
        }
    }
    at.dentry.is_below(&from.dentry)
}

fn may_see(task: &Arc<Task>, ns: &MountNamespace, seen: bool) -> Result<(), Errno> {
    if seen || task.creds().capable_in(&ns.base.owner, cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

const LISTMOUNT_REVERSE: u32 = 1;
/// `LSMT_ROOT`: all below the caller's root.
const ROOT: u64 = u64::MAX;
const LIST_MAX: usize = 1_000_000;

fn listmount(task: &Arc<Task>, req: UserPtr<Request>, to: UserPtr<u64>, room: usize, options: u32) -> SysResult {
    if options & !LISTMOUNT_REVERSE != 0 {
        return Err(Errno::EINVAL);
    }
    if room > LIST_MAX {
        return Err(Errno::EOVERFLOW);
    }
    let (r, ns) = request(task, req)?;
    if r.param != 0 && r.param <= FIRST_UNIQUE {
        return Err(Errno::EINVAL);
    }
    let root = task.fs().root();
    let mut all = ns.mounts();
    let from = match r.mount {
        ROOT => root.clone(),
        id => PathRef::root_of(all.iter().find(|m| m.unique() == id).ok_or(Errno::ENOENT)?),
    };
    let reachable = Arc::ptr_eq(&from.mount, &root.mount) && from.dentry.is_below(&root.dentry);
    may_see(task, &ns, reachable || seen_from(&from.mount, &root))?;
    all.sort_by_key(|m| m.id);
    let reverse = options & LISTMOUNT_REVERSE != 0;
    if reverse {
        all.reverse();
    }
    let after = |m: &Arc<Mount>| r.param == 0 || if reverse { m.unique() < r.param } else { m.unique() > r.param };
    let listed = all.iter().filter(|m| after(m) && m.unique() != r.mount && seen_from(m, &from));
    let ids: Vec<u64> = listed.map(|m| m.unique()).take(room).collect();
    to.write_array(task, &ids)?;
    value(ids.len())
}

mod what {
    pub const SB_BASIC: u64 = 1;
    pub const MNT_BASIC: u64 = 2;
    pub const PROPAGATE_FROM: u64 = 4;
    pub const MNT_ROOT: u64 = 8;
    pub const MNT_POINT: u64 = 0x10;
    pub const FS_TYPE: u64 = 0x20;
    pub const MNT_NS_ID: u64 = 0x40;
    pub const MNT_OPTS: u64 = 0x80;
    pub const SB_SOURCE: u64 = 0x200;
    pub const OPT_ARRAY: u64 = 0x400;
    pub const SUPPORTED_MASK: u64 = 0x1000;
    /// All that Linux 6.18 knows.
    pub const ALL: u64 = 0x7fff;
}

/// `struct statmount`, without its texts.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct StatMount {
    size: u32,
    options: u32,
    mask: u64,
    sb_dev: [u32; 2],
    sb_magic: u64,
    sb_flags: u32,
    fs_type: u32,
    id: u64,
    parent_id: u64,
    id_old: u32,
    parent_id_old: u32,
    attr: u64,
    propagation: u64,
    peer_group: u64,
    master: u64,
    propagate_from: u64,
    root: u32,
    point: u32,
    namespace: u64,
    subtype: u32,
    source: u32,
    options_count: u32,
    options_array: u32,
    security: [u32; 2],
    supported: u64,
    maps: [u32; 4],
    spare: [u64; 43],
}

const _: () = assert!(size_of::<StatMount>() == 512);

fn statmount(task: &Arc<Task>, req: UserPtr<Request>, to: UserPtr<u8>, room: usize, options: u32) -> SysResult {
    if options != 0 {
        return Err(Errno::EINVAL);
    }
    let (r, ns) = request(task, req)?;
    let mount = ns.mounts().into_iter().find(|m| m.unique() == r.mount).ok_or(Errno::ENOENT)?;
    let root = task.fs().root();
    may_see(task, &ns, seen_from(&mount, &root))?;
    let wants = |bit: u64| r.param & bit != 0;
    let mut s = StatMount::new_zeroed();
    let mut texts: Vec<u8> = Vec::new();
    // Where a text begins, 0 for none: the offset 0 is an empty one.
    let mut text = |mask: &mut u64, bit: u64, bytes: &[u8]| -> u32 {
        if !wants(bit) || bytes.is_empty() {
            return 0;
        }
        if texts.is_empty() {
            texts.push(0);
        }
        let at = texts.len() as u32;
        texts.extend_from_slice(bytes);
        texts.push(0);
        *mask |= bit;
        at
    };
    let fs = &mount.fs;
    let mut mask = 0;
    let fs_options = fs.options();
    s.fs_type = text(&mut mask, what::FS_TYPE, fs.name().as_bytes());
    s.root = text(&mut mask, what::MNT_ROOT, &mount.shown());
    let (point, seen) = PathRef::root_of(&mount).path_from(&root);
    s.point = text(&mut mask, what::MNT_POINT, if seen { &point } else { b"" });
    s.options = text(&mut mask, what::MNT_OPTS, fs_options.as_bytes());
    s.source = text(&mut mask, what::SB_SOURCE, &mount.source);
    let array: Vec<u8> = fs_options.bytes().map(|b| if b == b',' { 0 } else { b }).collect();
    s.options_array = text(&mut mask, what::OPT_ARRAY, &array);
    s.options_count = if mask & what::OPT_ARRAY != 0 { fs_options.split(',').count() as u32 } else { 0 };
    if wants(what::SB_BASIC) {
        mask |= what::SB_BASIC;
        let (major, minor) = split_dev(fs.dev());
        s.sb_dev = [major, minor];
        s.sb_magic = fs.statfs()?.kind;
        s.sb_flags = u32::from(mount.all_read_only());
    }
    let sees = |m: &Arc<Mount>| PathRef::root_of(m).path_from(&root).1;
    let ties = mount.groups(&ns, sees);
    if wants(what::MNT_BASIC) {
        mask |= what::MNT_BASIC;
        let parent = mount.parent().map_or(mount.clone(), |p| p.mount);
        (s.id, s.parent_id) = (mount.unique(), parent.unique());
        (s.id_old, s.parent_id_old) = (mount.id as u32, parent.id as u32);
        s.attr = mount_api::shown(mount.flags());
        s.propagation =
            [(ties.group.is_some(), 1 << 20), (ties.master.is_some(), 1 << 19), (mount.is_unbindable(), 1 << 17)]
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, bit)| bit)
                .sum();
        if s.propagation == 0 {
            s.propagation = 1 << 18;
        }
        (s.peer_group, s.master) = (ties.group.unwrap_or(0), ties.master.unwrap_or(0));
    }
    if wants(what::PROPAGATE_FROM) {
        mask |= what::PROPAGATE_FROM;
        s.propagate_from = ties.nearest.unwrap_or(0);
    }
    if wants(what::MNT_NS_ID) {
        mask |= what::MNT_NS_ID;
        s.namespace = ns.base.id;
    }
    if wants(what::SUPPORTED_MASK) {
        mask |= what::SUPPORTED_MASK;
        s.supported = what::ALL;
    }
    s.mask = mask;
    let head = size_of::<StatMount>();
    if !texts.is_empty() && room < head + texts.len() {
        return Err(Errno::EOVERFLOW);
    }
    s.size = (head.min(room) + texts.len()) as u32;
    task.write_exact(to.address(), s.as_bytes().get(..head.min(room)).unwrap_or_default())?;
    if !texts.is_empty() {
        task.write_exact(to.offset(head as u64)?.address(), &texts)?;
    }
    done()
}
