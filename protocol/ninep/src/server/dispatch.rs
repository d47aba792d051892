//! One request, answered.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::Session;
use super::fids::{Fid, XattrTaking};
use super::filesystem::{Entry, Filesystem, check_name};
use crate::codec::{
    Attr, DirWriter, HEADER, IO_HEADER, MAX_TARGET, MAX_XATTR, MIN_MSIZE, Qids, Reply, Request, Steps,
    VERSION_EXTENDED, VERSION_PLAIN, begin, finish,
};
use crate::errno::Errno;

/// Most bytes that one Tfill or Tspill moves.
const MAX_BULK: u32 = 16 << 20;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const XATTR_REPLACE: u32 = 2;
const AT_REMOVEDIR: u32 = 0x200;
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;

impl<F: Filesystem> Session<F> {
    /// Leaves the reply in `out`, or says which error to answer.
    pub(super) fn dispatch(&self, tag: u16, request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), Errno> {
        let fs = &self.fs;
        let msize = self.msize.load(Ordering::Relaxed);
        let iounit = msize.saturating_sub(IO_HEADER);
        if request.code() >= 200 && !self.extended.load(Ordering::Relaxed) {
            return Err(Errno::OPNOTSUPP);
        }
        let reply = match *request {
            Request::Version { msize, version } => self.version(msize, version),
            // "No authentication needed", as diod's server says it and its client tools expect it.
            Request::Auth { .. } => return Err(Errno::NOENT),
            Request::Attach { fid, aname, uid, .. } => {
                self.fids.free(fid)?;
                let Entry { node, attr } = fs.attach(aname, uid)?;
                self.fids.insert(fid, Fid::File(node))?;
                Reply::Attach { qid: attr.qid }
            }
            Request::Flush { .. } => return Err(Errno::INVAL),
            Request::Walk { fid, newfid, ref names } => {
                let steps = self.walk(fid, newfid, names.as_slice())?;
                if let (true, Some(errno)) = (steps.reached.is_empty(), steps.failed) {
                    return Err(errno);
                }
                Reply::Walk { qids: Qids(steps.reached.iter().map(|a| a.qid).collect()) }
            }
            Request::WalkGetattr { fid, newfid, ref names } => {
                let mut steps = self.walk(fid, newfid, names.as_slice())?;
                if names.as_slice().is_empty() {
                    let made = self.fids.get(newfid)?;
                    match fs.getattr(made.file()?) {
                        Ok(attr) => steps.reached.push(attr),
                        Err(errno) => {
                            if newfid != fid {
                                self.fids.remove(newfid);
                            }
                            return Err(errno);
                        }
                    }
                }
                Reply::WalkGetattr { errno: steps.failed.map_or(0, |e| e.0), steps: Steps(steps.reached) }
            }
            Request::Clunk { fid } => {
                self.clunk(fid)?;
                Reply::Clunk {}
            }
            Request::ClunkBatch { ref fids } => {
                for fid in &fids.0 {
                    if let Err(errno) = self.clunk(*fid) {
                        tracing::debug!(fid, %errno, "clunk in a batch");
                    }
                }
                Reply::ClunkBatch {}
            }
            Request::Remove { fid } => {
                // The fid is gone whether or not the file could be removed (9P's remove).
                let file = self.fids.remove(fid).ok_or(Errno::BADF)?;
                let (dir, name) = fs.place(file.file()?)?;
                let is_dir = fs.getattr(file.file()?)?.qid.kind.is_dir();
                fs.unlink(&dir, &name, is_dir)?;
                Reply::Remove {}
            }
            Request::StatFs { fid } => Reply::StatFs { statfs: fs.statfs(self.fids.get(fid)?.file()?)? },
            Request::Lopen { fid, flags } => Reply::Lopen { qid: fs.open(self.fids.get(fid)?.file()?, flags)?, iounit },
            Request::Lcreate { fid, name, flags, mode, gid } => {
                check_name(name)?;
                let dir = self.fids.get(fid)?;
                let Entry { node, attr } = fs.create(dir.file()?, name, flags, mode, gid)?;
                self.fids.replace(fid, &dir, Fid::File(node))?;
                Reply::Lcreate { qid: attr.qid, iounit }
            }
            Request::Symlink { dir, name, target, gid } => {
                check_name(name)?;
                if target.len() > MAX_TARGET {
                    return Err(Errno::NAMETOOLONG);
                }
                if target.is_empty() || target.contains(&0) {
                    return Err(Errno::INVAL);
                }
                Reply::Symlink { qid: fs.symlink(self.fids.get(dir)?.file()?, name, target, gid)? }
            }
            Request::Mknod { dir, name, mode, major, minor, gid } => {
                check_name(name)?;
                Reply::Mknod { qid: fs.mknod(self.fids.get(dir)?.file()?, name, mode, (major, minor), gid)? }
            }
            Request::Mkdir { dir, name, mode, gid } => {
                check_name(name)?;
                Reply::Mkdir { qid: fs.mkdir(self.fids.get(dir)?.file()?, name, mode, gid)? }
            }
            Request::Rename { fid, dir, name } => {
                check_name(name)?;
                let (from, old) = fs.place(self.fids.get(fid)?.file()?)?;
                fs.rename(&from, &old, self.fids.get(dir)?.file()?, name, 0)?;
                Reply::Rename {}
            }
            Request::Renameat { olddir, oldname, newdir, newname } => {
                self.rename(olddir, oldname, newdir, newname, 0)?;
                Reply::Renameat {}
            }
            Request::Renameat2 { olddir, oldname, newdir, newname, flags } => {
                if !matches!(flags, 0 | RENAME_NOREPLACE | RENAME_EXCHANGE) {
                    return Err(Errno::INVAL);
                }
                self.rename(olddir, oldname, newdir, newname, flags)?;
                Reply::Renameat2 {}
            }
            Request::Unlinkat { dir, name, flags } => {
                check_name(name)?;
                if flags & !AT_REMOVEDIR != 0 {
                    return Err(Errno::INVAL);
                }
                fs.unlink(self.fids.get(dir)?.file()?, name, flags & AT_REMOVEDIR != 0)?;
                Reply::Unlinkat {}
            }
            Request::Link { dir, fid, name } => {
                check_name(name)?;
                fs.link(self.fids.get(dir)?.file()?, self.fids.get(fid)?.file()?, name)?;
                Reply::Link {}
            }
            Request::Readlink { fid } => {
                let target = fs.readlink(self.fids.get(fid)?.file()?)?;
                Reply::Readlink { target: &target }.encode(tag, out);
                return Ok(());
            }
            Request::Getattr { fid, .. } => Reply::Getattr { attr: fs.getattr(self.fids.get(fid)?.file()?)? },
            Request::Setattr { fid, ref attr } => {
                fs.setattr(self.fids.get(fid)?.file()?, attr)?;
                Reply::Setattr {}
            }
            Request::XattrWalk { fid, newfid, name } => {
                self.fids.free(newfid)?;
                let file = self.fids.get(fid)?;
                let value = if name.is_empty() {
                    fs.list_xattr(file.file()?)?
                } else {
                    check_xattr_name(name)?;
                    fs.get_xattr(file.file()?, name)?
                };
                let size = value.len() as u64;
                self.fids.insert(newfid, Fid::XattrValue(value))?;
                Reply::XattrWalk { size }
            }
            Request::XattrCreate { fid, name, size, flags } => {
                check_xattr_name(name)?;
                if size > MAX_XATTR || flags > 3 {
                    return Err(Errno::INVAL);
                }
                let file = self.fids.get(fid)?;
                file.file()?;
                let taking = XattrTaking {
                    file: file.clone(),
                    name: name.to_vec(),
                    size: usize::try_from(size).map_err(|_| Errno::INVAL)?,
                    flags,
                    value: Vec::new(),
                };
                self.fids.replace(fid, &file, Fid::XattrTaking(Mutex::new(taking)))?;
                Reply::XattrCreate {}
            }
            Request::Read { fid, offset, count } => {
                let room = msize.saturating_sub(HEADER as u32 + 4);
                return self.read(tag, fid, offset, count.min(room), out);
            }
            Request::Readdir { fid, offset, count } => {
                let room = msize.saturating_sub(HEADER as u32 + 4);
                return self.readdir(tag, (fid, offset, count.min(room)), false, out);
            }
            Request::ReaddirAttr { fid, offset, count } => {
                let room = msize.saturating_sub(HEADER as u32 + 4);
                return self.readdir(tag, (fid, offset, count.min(room)), true, out);
            }
            Request::Write { fid, offset, ref data } => Reply::Write { count: self.write(fid, offset, data.0)? },
            Request::Fsync { fid, ref datasync } => {
                fs.fsync(self.fids.get(fid)?.file()?, datasync.0 != 0)?;
                Reply::Fsync {}
            }
            Request::Lock { fid, kind, range, .. } => {
                let granted = fs.lock(self.fids.get(fid)?.file()?, kind, &range)?;
                Reply::Lock { status: u8::from(!granted) }
            }
            Request::Getlock { fid, kind, range, client } => {
                let (kind, range) = fs.getlock(self.fids.get(fid)?.file()?, kind, &range)?;
                Reply::Getlock { kind, range, client }.encode(tag, out);
                return Ok(());
            }
            Request::Fill { fid, offset, count, window } => {
                Reply::Fill { count: fs.fill(self.fids.get(fid)?.file()?, offset, count.min(MAX_BULK), window)? }
            }
            Request::Refill { fid, offset, count, window } => {
                let count = fs.refill(self.fids.get(fid)?.file()?, offset, count.min(MAX_BULK), window)?;
                Reply::Refill { count }
            }
            Request::Spill { fid, offset, count, window } => {
                Reply::Spill { count: fs.spill(self.fids.get(fid)?.file()?, offset, count.min(MAX_BULK), window)? }
            }
            Request::OpenFill { fid, newfid, name, count, window } => {
                self.open_fill(fid, newfid, name, count.min(MAX_BULK), window)?
            }
            Request::TtySize { .. } => return Err(Errno::NOTTY),
            Request::Allocate { fid, mode, offset, length } => {
                fs.allocate(self.fids.get(fid)?.file()?, mode, offset, length)?;
                Reply::Allocate {}
            }
        };
        reply.encode(tag, out);
        Ok(())
    }

    fn version(&self, theirs: u32, version: &[u8]) -> Reply<'static> {
        self.fids.clear();
        let msize = theirs.min(self.limits.msize);
        let version = match version {
            VERSION_EXTENDED => VERSION_EXTENDED,
            // Dialects of 9P2000.L that we do not know fall back to it (version(5): up to the first dot is the family).
            v if v.starts_with(VERSION_PLAIN) => VERSION_PLAIN,
            _ => b"unknown",
        };
        if msize < MIN_MSIZE || version == b"unknown" {
            return Reply::Version { msize: msize.max(MIN_MSIZE), version: b"unknown" };
        }
        self.extended.store(version == VERSION_EXTENDED, Ordering::Relaxed);
        self.msize.store(msize, Ordering::Relaxed);
        Reply::Version { msize, version }
    }

    /// Walks, and makes `newfid` where every step was reached.
    fn walk(&self, fid: u32, newfid: u32, names: &[&[u8]]) -> Result<Walked, Errno> {
        let start = self.fids.get(fid)?;
        if newfid != fid {
            self.fids.free(newfid)?;
        }
        let from = start.file()?;
        let mut walked = Walked { reached: Vec::with_capacity(names.len().max(1)), failed: None };
        let mut at = None;
        for name in names {
            // "." is no step in 9P, but diod's tools take it.
            let step = if matches!(*name, b"." | b"..") { Ok(()) } else { check_name(name) };
            match step.and_then(|()| self.fs.walk(at.as_ref().unwrap_or(from), name)) {
                Ok(Entry { node, attr }) => {
                    walked.reached.push(attr);
                    at = Some(node);
                }
                Err(errno) => {
                    walked.failed = Some(errno);
                    return Ok(walked);
                }
            }
        }
        match at {
            None if newfid == fid => {}
            None => self.fids.insert(newfid, Fid::File(self.fs.clone_node(from)?))?,
            Some(node) if newfid == fid => self.fids.replace(fid, &start, Fid::File(node))?,
            Some(node) => self.fids.insert(newfid, Fid::File(node))?,
        }
        Ok(walked)
    }

    fn open_fill(&self, fid: u32, newfid: u32, name: &[u8], count: u32, window: u64) -> Result<Reply<'static>, Errno> {
        check_name(name)?;
        self.fids.free(newfid)?;
        let from = self.fids.get(fid)?;
        let Entry { node, attr } = self.fs.walk(from.file()?, name)?;
        let (mut opened, mut errno, mut filled) = (0, 0, 0);
        if attr.mode & S_IFMT == S_IFREG {
            match self.fs.open(&node, 0) {
                Ok(_) => {
                    opened = 1;
                    let want = u32::try_from(attr.size).unwrap_or(u32::MAX).min(count);
                    if want > 0 {
                        match self.fs.fill(&node, 0, want, window) {
                            Ok(n) => filled = n,
                            Err(e) => errno = e.0,
                        }
                    }
                }
                Err(e) => errno = e.0,
            }
        }
        self.fids.insert(newfid, Fid::File(node))?;
        Ok(Reply::OpenFill { attr, opened, errno, count: filled })
    }

    fn rename(&self, olddir: u32, oldname: &[u8], newdir: u32, newname: &[u8], flags: u32) -> Result<(), Errno> {
        check_name(oldname)?;
        check_name(newname)?;
        let (from, to) = (self.fids.get(olddir)?, self.fids.get(newdir)?);
        self.fs.rename(from.file()?, oldname, to.file()?, newname, flags)
    }

    fn clunk(&self, fid: u32) -> Result<(), Errno> {
        let gone = self.fids.remove(fid).ok_or(Errno::BADF)?;
        let Fid::XattrTaking(taking) = &*gone else { return Ok(()) };
        let taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
        let file = taking.file.file()?;
        if taking.size == 0 && taking.flags & XATTR_REPLACE != 0 {
            // What 9P2000.L clients send for removexattr(2).
            return self.fs.remove_xattr(file, &taking.name);
        }
        if taking.value.len() != taking.size {
            return Err(Errno::INVAL);
        }
        self.fs.set_xattr(file, &taking.name, &taking.value, taking.flags)
    }

    fn read(&self, tag: u16, fid: u32, offset: u64, count: u32, out: &mut Vec<u8>) -> Result<(), Errno> {
        let file = self.fids.get(fid)?;
        begin(out, 117, tag);
        out.extend_from_slice(&[0; 4]);
        match &*file {
            Fid::File(node) => {
                out.reserve(count as usize);
                self.fs.read(node, offset, count, out)?;
            }
            Fid::XattrValue(value) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
                let rest = value.get(from..).unwrap_or_default();
                out.extend_from_slice(rest.get(..rest.len().min(count as usize)).unwrap_or_default());
            }
            Fid::XattrTaking(_) => return Err(Errno::INVAL),
        }
        counted(out);
        Ok(())
    }

    fn readdir(
        &self,
        tag: u16,
        (fid, offset, count): (u32, u64, u32),
        with_attr: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let dir = self.fids.get(fid)?;
        begin(out, if with_attr { 203 } else { 41 }, tag);
        out.extend_from_slice(&[0; 4]);
        self.fs.readdir(dir.file()?, offset, &mut DirWriter::new(out, count as usize, with_attr))?;
        counted(out);
        Ok(())
    }

    fn write(&self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        match &*self.fids.get(fid)? {
            Fid::File(node) => self.fs.write(node, offset, data),
            Fid::XattrValue(_) => Err(Errno::INVAL),
            Fid::XattrTaking(taking) => {
                let mut taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
                let end = taking.value.len().checked_add(data.len()).ok_or(Errno::FBIG)?;
                if offset != taking.value.len() as u64 || end > taking.size {
                    return Err(Errno::INVAL);
                }
                taking.value.extend_from_slice(data);
                u32::try_from(data.len()).map_err(|_| Errno::FBIG)
            }
        }
    }
}

/// How far a walk came.
struct Walked {
    reached: Vec<Attr>,
    failed: Option<Errno>,
}

/// Writes the count of the data that follows it, and the message's length.
fn counted(out: &mut [u8]) {
    let count = u32::try_from(out.len().saturating_sub(HEADER + 4)).unwrap_or(0);
    if let Some(word) = out.get_mut(HEADER..HEADER + 4) {
        word.copy_from_slice(&count.to_le_bytes());
    }
    finish(out);
}

fn check_xattr_name(name: &[u8]) -> Result<(), Errno> {
    // XATTR_NAME_MAX is 255 as NAME_MAX is, and the answer for more is ERANGE (setxattr(2)).
    if name.len() > crate::codec::MAX_NAME {
        Err(Errno::RANGE)
    } else if name.is_empty() || name.contains(&0) {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}
