//! The client file system against the real Gofer's file server, in one process.

use std::sync::Arc;

use cofferdam_gofer::host::{CacheWindow, Export, ExportKind, Host};
use cofferdam_ninep::client::Client;
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;

use super::{GoferFs, Held};
use crate::errno::Errno;
use crate::memory::store::Store;
use crate::task::Creds;
use crate::task::creds::ALL_CAPABILITIES;
use crate::uio::{Sink, Source};
use crate::vfs::file::flags::*;
use crate::vfs::inode::FileSystem;
use crate::vfs::mount::{Mount, MountFlags};
use crate::vfs::walk::{Resolve, walk};
use crate::vfs::{Caller, FsContext, ops};

struct Rig {
    caller: Caller<'static>,
    dir: std::path::PathBuf,
    window: Window,
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn rig(name: &str, read_only: bool) -> Rig {
    rig_with(name, read_only, 1000, 1 << 30)
}

/// With that many descriptors in the Gofer and that much memory on the host.
fn rig_with(name: &str, read_only: bool, descriptors: usize, memory: u64) -> Rig {
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let dir = std::env::temp_dir().join(format!("cofferdam-gofer-fs-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&dir).ok();
    std::fs::create_dir_all(dir.join("sub/deep")).unwrap();
    std::fs::write(dir.join("hello"), b"hello world").unwrap();
    std::fs::write(dir.join("sub/big"), (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    std::os::unix::fs::symlink("sub/big", dir.join("link")).unwrap();
    let window = Window::create("cache", 1 << 36).unwrap();
    let again = || Window::from_peer(window.fd().try_clone_to_owned().unwrap(), 1 << 36).unwrap();
    let path = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open(&dir, path, rustix::fs::Mode::empty()).unwrap();
    let export = Export { name: "root".into(), read_only, kind: ExportKind::Directory, root };
    let cache = CacheWindow::new(window.fd().try_clone_to_owned().unwrap()).unwrap();
    let host = Host::new(vec![export], Some(cache), descriptors).unwrap();
    let (near, far) = Channel::pair().unwrap();
    cofferdam_gofer::service::start_workers(Arc::new(Session::new(host, Limits::default())), far, 2).unwrap();
    let client = Client::connect(near, Some(Arc::new(again()))).unwrap();
    let (fs, root) = GoferFs::attach(client, Arc::new(Store::new(again())), Held::new(memory), "root").unwrap();
    assert!(fs.statfs().unwrap().blocks > 0);
    let mount = Mount::new(fs, root, b"root", MountFlags::empty());
    let caller = Caller::kernel(Arc::new(FsContext::new_root(mount)), Creds::root(ALL_CAPABILITIES));
    Rig { caller, dir, window }
}

fn get(r: &Rig, path: &str, at: u64, n: usize) -> Result<Vec<u8>, Errno> {
    let f = ops::open(&r.caller, r.caller.fs.cwd(), path.as_bytes(), RDONLY, 0, Resolve::empty())?;
    let mut v = Vec::new();
    f.read_at(at, &mut Sink::kernel(&mut v, n))?;
    Ok(v)
}

#[test]
fn files_are_read_through_the_cache() {
    let r = rig("read", true);
    assert_eq!(get(&r, "/hello", 0, 100).unwrap(), b"hello world");
    assert_eq!(get(&r, "/hello", 6, 100).unwrap(), b"world");
    assert_eq!(get(&r, "/hello", 60, 100).unwrap(), b"");
    assert_eq!(get(&r, "/none", 0, 1).err(), Some(Errno::ENOENT));
    let all = get(&r, "/link", 0, 2 << 20).unwrap();
    assert_eq!(all, std::fs::read(r.dir.join("sub/big")).unwrap());
    assert_eq!(get(&r, "/sub/big", 1_000_001, 3).unwrap(), all[1_000_001..1_000_004]);
    // Nothing is asked again: the host's file can go.
    std::fs::remove_file(r.dir.join("hello")).unwrap();
    assert_eq!(get(&r, "/hello", 0, 100).unwrap(), b"hello world");
}

#[test]
fn mapped_pages_hold_the_file() {
    let r = rig("map", true);
    let f = ops::open(&r.caller, r.caller.fs.cwd(), b"/sub/big", RDONLY, 0, Resolve::empty()).unwrap();
    let o = f.memory_object(false, false).unwrap();
    let e = o.populate(1 << 20, 1, false).unwrap();
    let mut b = [0; 4];
    r.window.read(e[0].host + ((1 << 20) - e[0].offset), &mut b).unwrap();
    assert_eq!(u32::from_le_bytes(b), 1 << 18);
    assert!(o.populate(o.size() + 4096, 1, false).unwrap().is_empty());
    assert_eq!(o.path(), b"/sub/big");
    assert_eq!(f.memory_object(true, true).err(), Some(Errno::EACCES));
}

#[test]
fn writes_reach_the_host() {
    let r = rig("write", false);
    let c = &r.caller;
    let cwd = || c.fs.cwd();
    let f = ops::open(c, cwd(), b"/new", CREAT | RDWR, 0o640, Resolve::empty()).unwrap();
    let big = vec![5u8; 200_000];
    assert_eq!(f.write(None, &mut Source::kernel(&big)), Ok(200_000));
    f.pwrite(None, 3, &mut Source::kernel(b"abc")).unwrap();
    let mut on_host = std::fs::read(r.dir.join("new")).unwrap();
    assert_eq!(&on_host[..7], &[5, 5, 5, b'a', b'b', b'c', 5]);
    assert_eq!(on_host.len(), 200_000);
    let mut v = Vec::new();
    f.read_at(0, &mut Sink::kernel(&mut v, 1 << 20)).unwrap();
    assert!(v == on_host);
    f.ops().truncate(&f, 10).unwrap();
    f.ops().truncate(&f, 5000).unwrap();
    v.clear();
    f.read_at(0, &mut Sink::kernel(&mut v, 1 << 20)).unwrap();
    on_host = std::fs::read(r.dir.join("new")).unwrap();
    assert!(v == on_host && v.len() == 5000 && v[10] == 0);
    ops::mkdir(c, cwd(), b"/d", 0o755).unwrap();
    ops::rename(c, (cwd(), b"/new"), (cwd(), b"/d/moved"), 0).unwrap();
    assert!(r.dir.join("d/moved").exists() && !r.dir.join("new").exists());
    assert_eq!(walk(c, cwd(), b"/new", true).err(), Some(Errno::ENOENT));
    assert_eq!(ops::unlink(c, cwd(), b"/d", true), Err(Errno::ENOTEMPTY));
    ops::unlink(c, cwd(), b"/d/moved", false).unwrap();
    v.clear();
    f.read_at(0, &mut Sink::kernel(&mut v, 9)).unwrap();
    assert_eq!(v.len(), 9, "an open file lives on without its name");
}

#[test]
fn listings_bring_attributes() {
    let r = rig("list", true);
    let d = ops::open(&r.caller, r.caller.fs.cwd(), b"/", RDONLY, 0, Resolve::empty()).unwrap();
    let mut names = Vec::new();
    d.list(&r.caller, &mut |e, _| {
        names.push(String::from_utf8(e.name.clone()).unwrap());
        Ok(true)
    })
    .unwrap();
    assert_eq!(names, [".", "..", "hello", "link", "sub"]);
    std::fs::remove_file(r.dir.join("hello")).unwrap();
    let a = walk(&r.caller, r.caller.fs.cwd(), b"/hello", true).unwrap().dentry.inode().attr().unwrap();
    assert_eq!(a.size, 11, "attributes came with the listing");
}

#[test]
fn more_files_than_the_gofer_has_descriptors_can_be_read_and_open() {
    let r = rig_with("many", false, 200, 1 << 30);
    std::fs::create_dir(r.dir.join("many")).unwrap();
    for i in 0..600 {
        std::fs::write(r.dir.join(format!("many/{i}")), vec![b'a' + (i % 26) as u8; 100_000]).unwrap();
    }
    for round in 0..2 {
        for i in 0..600 {
            let got = get(&r, &format!("/many/{i}"), 99_990, 100).unwrap();
            assert_eq!(got, vec![b'a' + (i % 26) as u8; 10], "file {i}, round {round}");
        }
    }
}

#[test]
fn renamed_files_are_found_again_after_their_descriptors_were_given_back() {
    let r = rig_with("moved", false, 150, 1 << 30);
    for i in 0..300 {
        std::fs::write(r.dir.join(format!("f{i}")), vec![i as u8; 200_000]).unwrap();
    }
    for i in 0..300 {
        let (from, to, cwd) = (format!("/f{i}"), format!("/sub/deep/g{i}"), || r.caller.fs.cwd());
        ops::rename(&r.caller, (cwd(), from.as_bytes()), (cwd(), to.as_bytes()), 0).unwrap();
    }
    for i in 0..300 {
        assert_eq!(get(&r, &format!("/sub/deep/g{i}"), 199_999, 5).unwrap(), [i as u8]);
        assert_eq!(get(&r, &format!("/f{i}"), 0, 1), Err(Errno::ENOENT));
    }
}

#[test]
fn the_page_cache_keeps_to_its_part_of_memory() {
    // 16 MiB, the least there is.
    let r = rig_with("trim", false, 1000, 1);
    let big: Vec<u8> = (0..40u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(r.dir.join("bigger"), &big).unwrap();
    for round in 0..2 {
        let mut at = 0;
        while at < big.len() {
            let got = get(&r, "/bigger", at as u64, 1 << 20).unwrap();
            assert!(!got.is_empty() && got == big[at..at + got.len()], "at {at}, round {round}");
            at += got.len();
        }
        let pages = rustix::fs::fstat(r.window.fd()).unwrap().st_blocks / 8;
        assert!(pages <= 20 << 8, "{pages} pages are held");
    }
}
