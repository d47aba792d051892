//! The requests of 9P2000.L, typed.

use super::{Client, Fid};
use crate::codec::{
    Attr, AttrMask, Data, DataSync, DirEntries, IO_HEADER, Lock, LockKind, MAX_WALK, NOFID, Names, Qid, Reply, Request,
    SetAttr, StatFs,
};
use crate::errno::Errno;

/// How far a walk came.
#[derive(Debug)]
pub struct WalkOutcome {
    /// Attributes of each step reached; of the file itself where no name was given.
    pub steps: Vec<Attr>,
    /// The end of the walk, where every step was reached.
    pub fid: Option<Fid>,
    /// Why the next step was not reached.
    pub error: Option<Errno>,
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Identity.
    pub qid: Qid,
    /// Where reading goes on after this entry.
    pub offset: u64,
    /// DT_*.
    pub kind: u8,
    /// Name.
    pub name: Vec<u8>,
    /// Attributes, where the server sent them.
    pub attr: Option<Attr>,
}

impl Client {
    fn io(&self) -> u32 {
        self.rpc.msize.saturating_sub(IO_HEADER)
    }

    /// A request that makes `newfid`.
    pub(super) fn making<T>(
        &self,
        make: impl FnOnce(u32) -> Result<(T, bool), Errno>,
    ) -> Result<(T, Option<Fid>), Errno> {
        let fid = Fid::new(&self.rpc, self.rpc.new_fid());
        match make(fid.number()) {
            Ok((value, true)) => Ok((value, Some(fid))),
            Ok((value, false)) => {
                fid.forget();
                Ok((value, None))
            }
            Err(e) => {
                fid.forget();
                Err(e)
            }
        }
    }

    /// The root of a tree as user `uid` ([`crate::codec::NONUNAME`]: none in particular).
    pub fn attach(&self, aname: &[u8], uname: &[u8], uid: u32) -> Result<(Fid, Qid), Errno> {
        let (qid, fid) = self.making(|fid| {
            let request = Request::Attach { fid, afid: NOFID, uname, aname, uid };
            let qid = self.rpc.call(&request, |r| if let Reply::Attach { qid } = r { Some(qid) } else { None })?;
            Ok((qid, true))
        })?;
        Ok((fid.ok_or(Errno::IO)?, qid))
    }

    /// Walks all the names or fails; no name clones the fid (not its open state).
    pub fn walk(&self, from: &Fid, names: &[&[u8]]) -> Result<Fid, Errno> {
        let mut at: Option<Fid> = None;
        let mut rest = names;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_WALK));
            let names = Names::new(now).ok_or(Errno::INVAL)?;
            let fid = at.as_ref().unwrap_or(from).number();
            let (_, made) = self.making(|newfid| {
                let reached = self.rpc.call(&Request::Walk { fid, newfid, names }, |r| match r {
                    Reply::Walk { qids } if qids.0.len() <= now.len() => Some(qids.0.len()),
                    _ => None,
                })?;
                // A walk that stops part way does so for want of the name, as far as plain 9P tells.
                if reached == now.len() { Ok(((), true)) } else { Err(Errno::NOENT) }
            })?;
            at = made;
            rest = later;
            if rest.is_empty() {
                return at.ok_or(Errno::IO);
            }
        }
    }

    /// Walks as far as there is a way, with the attributes of every step.
    pub fn walk_getattr(&self, from: &Fid, names: &[&[u8]]) -> Result<WalkOutcome, Errno> {
        if !self.extended() {
            return self.walk_getattr_plain(from, names);
        }
        let mut all = WalkOutcome { steps: Vec::with_capacity(names.len().max(1)), fid: None, error: None };
        let mut rest = names;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_WALK));
            let names = Names::new(now).ok_or(Errno::INVAL)?;
            let fid = all.fid.as_ref().unwrap_or(from).number();
            let want = now.len().max(1);
            let ((errno, mut steps), made) = self.making(|newfid| {
                let (errno, steps) = self.rpc.call(&Request::WalkGetattr { fid, newfid, names }, |r| match r {
                    Reply::WalkGetattr { errno, steps } if steps.0.len() <= want => Some((errno, steps.0)),
                    _ => None,
                })?;
                let whole = steps.len() == want;
                Ok(((errno, steps), whole))
            })?;
            all.steps.append(&mut steps);
            all.fid = made;
            rest = later;
            if all.fid.is_none() {
                all.error = Some(if errno == 0 { Errno::NOENT } else { Errno(errno) });
                return Ok(all);
            }
            if rest.is_empty() {
                return Ok(all);
            }
        }
    }

    fn walk_getattr_plain(&self, from: &Fid, names: &[&[u8]]) -> Result<WalkOutcome, Errno> {
        let mut all = WalkOutcome { steps: Vec::new(), fid: None, error: None };
        if names.is_empty() {
            let fid = self.walk(from, &[])?;
            all.steps.push(self.getattr(&fid)?);
            all.fid = Some(fid);
            return Ok(all);
        }
        for name in names {
            let step = self.walk(all.fid.as_ref().unwrap_or(from), &[name]);
            match step.and_then(|fid| Ok((self.getattr(&fid)?, fid))) {
                Ok((attr, fid)) => {
                    all.steps.push(attr);
                    all.fid = Some(fid);
                }
                Err(e) => {
                    all.fid = None;
                    all.error = Some(e);
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Attributes (stat(2)).
    pub fn getattr(&self, fid: &Fid) -> Result<Attr, Errno> {
        let request = Request::Getattr { fid: fid.number(), mask: AttrMask::BASIC | AttrMask::BTIME };
        self.rpc.call(&request, |r| if let Reply::Getattr { attr } = r { Some(attr) } else { None })
    }

    /// Changes attributes.
    pub fn setattr(&self, fid: &Fid, attr: &SetAttr) -> Result<(), Errno> {
        let request = Request::Setattr { fid: fid.number(), attr: *attr };
        self.rpc.call(&request, |r| matches!(r, Reply::Setattr {}).then_some(()))
    }

    /// Opens the fid itself; `flags` of open(2).
    pub fn lopen(&self, fid: &Fid, flags: u32) -> Result<Qid, Errno> {
        let request = Request::Lopen { fid: fid.number(), flags };
        self.rpc.call(&request, |r| if let Reply::Lopen { qid, .. } = r { Some(qid) } else { None })
    }

    /// Creates a regular file in the directory `fid`, which becomes the new file, open.
    pub fn lcreate(&self, fid: &Fid, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Qid, Errno> {
        let request = Request::Lcreate { fid: fid.number(), name, flags, mode, gid };
        self.rpc.call(&request, |r| if let Reply::Lcreate { qid, .. } = r { Some(qid) } else { None })
    }

    /// Reads at most one message's worth; gives the count, 0 at the end.
    pub fn read(&self, fid: &Fid, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let count = u32::try_from(to.len()).unwrap_or(u32::MAX).min(self.io());
        self.rpc.call(&Request::Read { fid: fid.number(), offset, count }, |r| match r {
            Reply::Read { data } if data.0.len() <= count as usize => {
                to.get_mut(..data.0.len())?.copy_from_slice(data.0);
                Some(data.0.len())
            }
            _ => None,
        })
    }

    /// Writes at most one message's worth; gives the count.
    pub fn write(&self, fid: &Fid, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let data = data.get(..data.len().min(self.io() as usize)).unwrap_or_default();
        self.rpc.call(&Request::Write { fid: fid.number(), offset, data: Data(data) }, |r| match r {
            Reply::Write { count } if count as usize <= data.len() => Some(count as usize),
            _ => None,
        })
    }

    /// Entries of the open directory from `offset` (0 or an entry's) on; none at the end.
    pub fn readdir(&self, fid: &Fid, offset: u64) -> Result<Vec<Entry>, Errno> {
        let request = Request::Readdir { fid: fid.number(), offset, count: self.io() };
        self.rpc.call(&request, |r| if let Reply::Readdir { data } = r { entries(data.0, false) } else { None })
    }

    /// As [`Client::readdir`], with attributes where the server speaks the extension.
    pub fn readdir_attr(&self, fid: &Fid, offset: u64) -> Result<Vec<Entry>, Errno> {
        if !self.extended() {
            return self.readdir(fid, offset);
        }
        let request = Request::ReaddirAttr { fid: fid.number(), offset, count: self.io() };
        self.rpc.call(&request, |r| if let Reply::ReaddirAttr { data } = r { entries(data.0, true) } else { None })
    }

    /// A symbolic link's target.
    pub fn readlink(&self, fid: &Fid) -> Result<Vec<u8>, Errno> {
        self.rpc.call(&Request::Readlink { fid: fid.number() }, |r| match r {
            Reply::Readlink { target } => Some(target.to_vec()),
            _ => None,
        })
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, dir: &Fid, name: &[u8], target: &[u8], gid: u32) -> Result<Qid, Errno> {
        let request = Request::Symlink { dir: dir.number(), name, target, gid };
        self.rpc.call(&request, |r| if let Reply::Symlink { qid } = r { Some(qid) } else { None })
    }

    /// Makes a directory.
    pub fn mkdir(&self, dir: &Fid, name: &[u8], mode: u32, gid: u32) -> Result<Qid, Errno> {
        let request = Request::Mkdir { dir: dir.number(), name, mode, gid };
        self.rpc.call(&request, |r| if let Reply::Mkdir { qid } = r { Some(qid) } else { None })
    }

    /// Makes a node; `device` is major and minor.
    pub fn mknod(&self, dir: &Fid, name: &[u8], mode: u32, device: (u32, u32), gid: u32) -> Result<Qid, Errno> {
        let request = Request::Mknod { dir: dir.number(), name, mode, major: device.0, minor: device.1, gid };
        self.rpc.call(&request, |r| if let Reply::Mknod { qid } = r { Some(qid) } else { None })
    }

    /// Makes a hard link to `fid`.
    pub fn link(&self, dir: &Fid, fid: &Fid, name: &[u8]) -> Result<(), Errno> {
        let request = Request::Link { dir: dir.number(), fid: fid.number(), name };
        self.rpc.call(&request, |r| matches!(r, Reply::Link {}).then_some(()))
    }

    /// Renames; `flags` of renameat2(2) need the extension (EINVAL without, as from a file system that has none).
    pub fn renameat(&self, from: &Fid, old: &[u8], to: &Fid, new: &[u8], flags: u32) -> Result<(), Errno> {
        let (olddir, newdir) = (from.number(), to.number());
        if flags == 0 {
            let request = Request::Renameat { olddir, oldname: old, newdir, newname: new };
            let done = self.rpc.call(&request, |r| matches!(r, Reply::Renameat {}).then_some(()));
            if done != Err(Errno::OPNOTSUPP) || self.extended() {
                return done;
            }
            // Older servers (diod 1.0.24) know only the rename of a fid.
            let moved = self.walk(from, &[old])?;
            let request = Request::Rename { fid: moved.number(), dir: newdir, name: new };
            return self.rpc.call(&request, |r| matches!(r, Reply::Rename {}).then_some(()));
        }
        if !self.extended() {
            return Err(Errno::INVAL);
        }
        let request = Request::Renameat2 { olddir, oldname: old, newdir, newname: new, flags };
        self.rpc.call(&request, |r| matches!(r, Reply::Renameat2 {}).then_some(()))
    }

    /// Removes a name; `flags` 0x200 (AT_REMOVEDIR) for a directory.
    pub fn unlinkat(&self, dir: &Fid, name: &[u8], flags: u32) -> Result<(), Errno> {
        let request = Request::Unlinkat { dir: dir.number(), name, flags };
        let done = self.rpc.call(&request, |r| matches!(r, Reply::Unlinkat {}).then_some(()));
        if done != Err(Errno::OPNOTSUPP) || self.extended() {
            return done;
        }
        // Older servers know only the removal of a fid, which says nothing of files and directories.
        let gone = self.walk(dir, &[name])?;
        let is_dir = self.getattr(&gone)?.qid.kind.is_dir();
        match (is_dir, flags & 0x200 != 0) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            _ => {}
        }
        let request = Request::Remove { fid: gone.number() };
        let done = self.rpc.call(&request, |r| matches!(r, Reply::Remove {}).then_some(()));
        gone.forget();
        done
    }

    /// To the disk; `data_only` as fdatasync(2).
    pub fn fsync(&self, fid: &Fid, data_only: bool) -> Result<(), Errno> {
        let request = Request::Fsync { fid: fid.number(), datasync: DataSync(u32::from(data_only)) };
        self.rpc.call(&request, |r| matches!(r, Reply::Fsync {}).then_some(()))
    }

    /// Figures of the file system.
    pub fn statfs(&self, fid: &Fid) -> Result<StatFs, Errno> {
        let request = Request::StatFs { fid: fid.number() };
        self.rpc.call(&request, |r| if let Reply::StatFs { statfs } = r { Some(statfs) } else { None })
    }

    /// A fid that reads the value of an extended attribute (empty name: the list of names), and its size.
    pub fn xattrwalk(&self, fid: &Fid, name: &[u8]) -> Result<(Fid, u64), Errno> {
        let (size, made) = self.making(|newfid| {
            let request = Request::XattrWalk { fid: fid.number(), newfid, name };
            let size =
                self.rpc.call(&request, |r| if let Reply::XattrWalk { size } = r { Some(size) } else { None })?;
            Ok((size, true))
        })?;
        Ok((made.ok_or(Errno::IO)?, size))
    }

    /// Makes `fid` take the value of an extended attribute; it is set when the fid is clunked ([`Client::clunk`]).
    pub fn xattrcreate(&self, fid: &Fid, name: &[u8], size: u64, flags: u32) -> Result<(), Errno> {
        let request = Request::XattrCreate { fid: fid.number(), name, size, flags };
        self.rpc.call(&request, |r| matches!(r, Reply::XattrCreate {}).then_some(()))
    }

    /// The whole value of an extended attribute, or the list of names: walk, read, clunk.
    pub fn get_xattr(&self, fid: &Fid, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let (value_fid, size) = self.xattrwalk(fid, name)?;
        if size > crate::codec::MAX_XATTR {
            return Err(Errno::OVERFLOW);
        }
        let mut value = vec![0; usize::try_from(size).map_err(|_| Errno::OVERFLOW)?];
        let mut at = 0;
        while at < value.len() {
            match self.read(&value_fid, at as u64, value.get_mut(at..).unwrap_or_default())? {
                0 => break,
                n => at += n,
            }
        }
        value.truncate(at);
        Ok(value)
    }

    /// Sets an extended attribute: clone, create, write, clunk. `flags` of setxattr(2).
    pub fn set_xattr(&self, fid: &Fid, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let taking = self.walk(fid, &[])?;
        self.xattrcreate(&taking, name, value.len() as u64, flags)?;
        let mut at = 0;
        while at < value.len() {
            match self.write(&taking, at as u64, value.get(at..).unwrap_or_default())? {
                0 => return Err(Errno::IO),
                n => at += n,
            }
        }
        self.clunk(taking)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, fid: &Fid, name: &[u8]) -> Result<(), Errno> {
        let taking = self.walk(fid, &[])?;
        self.xattrcreate(&taking, name, 0, 2)?;
        self.clunk(taking)
    }

    /// Sets or clears a record lock: false where another's stands in the way.
    pub fn lock(&self, fid: &Fid, kind: LockKind, range: Lock, client: &[u8]) -> Result<bool, Errno> {
        let request = Request::Lock { fid: fid.number(), kind, flags: 0, range, client };
        match self.rpc.call(&request, |r| if let Reply::Lock { status } = r { Some(status) } else { None })? {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(Errno::IO),
        }
    }

    /// The lock that stands in the way of one like this ([`LockKind::UNLOCK`]: none).
    pub fn getlock(&self, fid: &Fid, kind: LockKind, range: Lock, client: &[u8]) -> Result<(LockKind, Lock), Errno> {
        let request = Request::Getlock { fid: fid.number(), kind, range, client };
        self.rpc.call(&request, |r| match r {
            Reply::Getlock { kind, range, .. } => Some((kind, range)),
            _ => None,
        })
    }

    /// Gives a fid back now and tells of errors.
    pub fn clunk(&self, fid: Fid) -> Result<(), Errno> {
        let result =
            self.rpc.call(&Request::Clunk { fid: fid.number() }, |r| matches!(r, Reply::Clunk {}).then_some(()));
        fid.forget();
        result
    }

    /// Gives back every fid dropped so far; does not wait for the answer.
    pub fn clunk_batch(&self) {
        self.rpc.clunk_batch();
    }

    /// fallocate(2) on an open file; EOPNOTSUPP without the extension.
    pub fn allocate(&self, fid: &Fid, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        if !self.extended() {
            return Err(Errno::OPNOTSUPP);
        }
        let request = Request::Allocate { fid: fid.number(), mode, offset, length };
        self.rpc.call(&request, |r| matches!(r, Reply::Allocate {}).then_some(()))
    }

    /// Rows and columns of a terminal; ENOTTY where the file is none.
    pub fn tty_size(&self, fid: &Fid) -> Result<(u16, u16), Errno> {
        if !self.extended() {
            return Err(Errno::NOTTY);
        }
        let answer = self.rpc.call(&Request::TtySize { fid: fid.number() }, |r| match r {
            Reply::TtySize { terminal, rows, columns } => Some((terminal != 0, rows, columns)),
            _ => None,
        })?;
        if answer.0 { Ok((answer.1, answer.2)) } else { Err(Errno::NOTTY) }
    }
}

fn entries(data: &[u8], with_attr: bool) -> Option<Vec<Entry>> {
    DirEntries::new(data, with_attr)
        .map(|e| e.map(|e| Entry { qid: e.qid, offset: e.offset, kind: e.kind, name: e.name.to_vec(), attr: e.attr }))
        .collect::<Result<_, _>>()
        .ok()
}
