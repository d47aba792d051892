//! A directory served by the crate rs9p: another implementation for our client to meet.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use async_trait::async_trait;
use rs9p::srv::{FId, Filesystem};
use rs9p::{Data, DirEntry, DirEntryData, FCall, GetAttrMask, QId, Result, SetAttr, SetAttrMask, Stat, StatFs};

#[derive(Clone)]
struct Tree {
    root: PathBuf,
}

#[derive(Default)]
struct Aux {
    path: RwLock<PathBuf>,
    file: Mutex<Option<File>>,
}

impl Aux {
    fn path(&self) -> PathBuf {
        self.path.read().unwrap().clone()
    }
}

fn qid(meta: &Metadata) -> QId {
    QId { typ: From::from(meta.file_type()), version: 0, path: meta.ino() }
}

fn qid_of(path: &Path) -> Result<QId> {
    Ok(qid(&fs::symlink_metadata(path)?))
}

fn options(flags: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(matches!(flags & 3, 0 | 2)).write(matches!(flags & 3, 1 | 2));
    options
}

fn not_open() -> Error {
    Error::from(ErrorKind::InvalidInput)
}

#[async_trait]
impl Filesystem for Tree {
    type FId = Aux;

    async fn rattach(
        &self,
        fid: &FId<Aux>,
        _afid: Option<&FId<Aux>>,
        _uname: &str,
        _aname: &str,
        _n_uname: u32,
    ) -> Result<FCall> {
        *fid.aux.path.write().unwrap() = self.root.clone();
        Ok(FCall::RAttach { qid: qid_of(&self.root)? })
    }

    async fn rwalk(&self, fid: &FId<Aux>, new: &FId<Aux>, names: &[String]) -> Result<FCall> {
        let mut path = fid.aux.path();
        let mut wqids = Vec::new();
        for (i, name) in names.iter().enumerate() {
            path.push(name);
            match qid_of(&path) {
                Ok(qid) => wqids.push(qid),
                Err(e) if i == 0 => return Err(e),
                Err(_) => break,
            }
        }
        *new.aux.path.write().unwrap() = path;
        Ok(FCall::RWalk { wqids })
    }

    async fn rgetattr(&self, fid: &FId<Aux>, mask: GetAttrMask) -> Result<FCall> {
        let meta = fs::symlink_metadata(fid.aux.path())?;
        Ok(FCall::RGetAttr { valid: mask, qid: qid(&meta), stat: Stat::from(&meta) })
    }

    async fn rsetattr(&self, fid: &FId<Aux>, valid: SetAttrMask, stat: &SetAttr) -> Result<FCall> {
        if valid.contains(SetAttrMask::SIZE) {
            OpenOptions::new().write(true).open(fid.aux.path())?.set_len(stat.size)?;
        }
        Ok(FCall::RSetAttr)
    }

    async fn rlopen(&self, fid: &FId<Aux>, flags: u32) -> Result<FCall> {
        let qid = qid_of(&fid.aux.path())?;
        *fid.aux.file.lock().unwrap() = Some(options(flags).open(fid.aux.path())?);
        Ok(FCall::RlOpen { qid, iounit: 0 })
    }

    async fn rlcreate(&self, fid: &FId<Aux>, name: &str, flags: u32, mode: u32, _gid: u32) -> Result<FCall> {
        let path = fid.aux.path().join(name);
        *fid.aux.file.lock().unwrap() = Some(options(flags).create_new(true).mode(mode).open(&path)?);
        let qid = qid_of(&path)?;
        *fid.aux.path.write().unwrap() = path;
        Ok(FCall::RlCreate { qid, iounit: 0 })
    }

    async fn rread(&self, fid: &FId<Aux>, offset: u64, count: u32) -> Result<FCall> {
        let mut data = vec![0; count as usize];
        let n = fid.aux.file.lock().unwrap().as_ref().ok_or_else(not_open)?.read_at(&mut data, offset)?;
        data.truncate(n);
        Ok(FCall::RRead { data: Data(data) })
    }

    async fn rwrite(&self, fid: &FId<Aux>, offset: u64, data: &Data) -> Result<FCall> {
        let n = fid.aux.file.lock().unwrap().as_ref().ok_or_else(not_open)?.write_at(&data.0, offset)?;
        Ok(FCall::RWrite { count: n as u32 })
    }

    async fn rreaddir(&self, fid: &FId<Aux>, offset: u64, count: u32) -> Result<FCall> {
        let mut entries = DirEntryData::new();
        // Sorted, so that an offset means the same entry at every call.
        let mut all = fs::read_dir(fid.aux.path())?.collect::<std::io::Result<Vec<_>>>()?;
        all.sort_by_key(|e| e.file_name());
        for (i, e) in all.into_iter().enumerate().skip(offset as usize) {
            let kind = e.file_type()?;
            let typ = if kind.is_dir() {
                4
            } else if kind.is_symlink() {
                10
            } else if kind.is_fifo() {
                1
            } else {
                8
            };
            let name = e.file_name().into_string().map_err(|_| not_open())?;
            let entry = DirEntry { qid: qid_of(&e.path())?, offset: i as u64 + 1, typ, name };
            if entries.size() + entry.size() > count {
                break;
            }
            entries.push(entry);
        }
        Ok(FCall::RReadDir { data: entries })
    }

    async fn rreadlink(&self, fid: &FId<Aux>) -> Result<FCall> {
        let target = fs::read_link(fid.aux.path())?.into_os_string().into_string().map_err(|_| not_open())?;
        Ok(FCall::RReadLink { target })
    }

    async fn rmkdir(&self, dir: &FId<Aux>, name: &str, mode: u32, _gid: u32) -> Result<FCall> {
        let path = dir.aux.path().join(name);
        fs::DirBuilder::new().mode(mode).create(&path)?;
        Ok(FCall::RMkDir { qid: qid_of(&path)? })
    }

    async fn rsymlink(&self, dir: &FId<Aux>, name: &str, target: &str, _gid: u32) -> Result<FCall> {
        let path = dir.aux.path().join(name);
        std::os::unix::fs::symlink(target, &path)?;
        Ok(FCall::RSymlink { qid: qid_of(&path)? })
    }

    async fn rrenameat(&self, old: &FId<Aux>, from: &str, new: &FId<Aux>, to: &str) -> Result<FCall> {
        fs::rename(old.aux.path().join(from), new.aux.path().join(to))?;
        Ok(FCall::RRenameAt)
    }

    async fn runlinkat(&self, dir: &FId<Aux>, name: &str, flags: u32) -> Result<FCall> {
        let path = dir.aux.path().join(name);
        if flags & 0x200 != 0 {
            fs::remove_dir(path)?
        } else {
            fs::remove_file(path)?
        }
        Ok(FCall::RUnlinkAt)
    }

    async fn rfsync(&self, fid: &FId<Aux>) -> Result<FCall> {
        fid.aux.file.lock().unwrap().as_ref().ok_or_else(not_open)?.sync_all()?;
        Ok(FCall::RFSync)
    }

    async fn rstatfs(&self, _fid: &FId<Aux>) -> Result<FCall> {
        let s = rustix::fs::statfs(&self.root).map_err(Error::from)?;
        let statfs = StatFs {
            typ: 0,
            bsize: s.f_bsize as u32,
            blocks: s.f_blocks,
            bfree: s.f_bfree,
            bavail: s.f_bavail,
            files: s.f_files,
            ffree: s.f_ffree,
            fsid: 0,
            namelen: 255,
        };
        Ok(FCall::RStatFs { statfs })
    }

    async fn rclunk(&self, _fid: &FId<Aux>) -> Result<FCall> {
        Ok(FCall::RClunk)
    }
}

/// Serves `root` on a Unix socket for the life of the process.
pub fn start(root: &Path, socket: &Path) {
    let (tree, socket) = (Tree { root: root.to_owned() }, socket.to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(rs9p::srv::srv_async_unix(tree, socket)).unwrap();
    });
}
