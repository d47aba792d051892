//! The VFS over tmpfs and overlay, driven without any platform.

use std::sync::Arc;

use cofferdam_shm::Window;

use crate::errno::Errno;
use crate::filesystems::tree::{Tmpfs, Tree};
use crate::memory::store::Store;
use crate::namespaces::{Base, Kind};
use crate::task::Creds;
use crate::task::creds::ALL_CAPABILITIES;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, flags::*};
use crate::vfs::mount::{Mount, MountFlags, PathRef};
use crate::vfs::walk::{Resolve, walk};
use crate::vfs::{Caller, FsContext, ops};

pub(crate) fn store() -> Arc<Store> {
    Arc::new(Store::new(Window::create("test", 1 << 36).unwrap()))
}

fn caller(root: Arc<Mount>) -> Caller<'static> {
    Caller::kernel(Arc::new(FsContext::new_root(root)), Creds::root(ALL_CAPABILITIES))
}

fn tmpfs() -> Caller<'static> {
    let (fs, root) = Tree::tmpfs(store(), &Tmpfs::new(1 << 30, 0o755));
    caller(Mount::new(fs, root, b"tmpfs", MountFlags::empty()))
}

fn open(c: &Caller<'_>, path: &str, flags: i32) -> Result<Arc<File>, Errno> {
    ops::open(c, c.fs.cwd(), path.as_bytes(), flags, 0o644, Resolve::empty())
}

fn put(c: &Caller<'_>, path: &str, data: &[u8]) {
    open(c, path, CREAT | WRONLY | TRUNC).unwrap().write(None, &mut Source::kernel(data)).unwrap();
}

fn get(c: &Caller<'_>, path: &str) -> Result<Vec<u8>, Errno> {
    let mut v = Vec::new();
    open(c, path, RDONLY)?.read(None, &mut Sink::kernel(&mut v, 1 << 20))?;
    Ok(v)
}

fn names(c: &Caller<'_>, path: &str) -> Vec<String> {
    let d = open(c, path, RDONLY | DIRECTORY).unwrap();
    let mut v = Vec::new();
    d.list(c, &mut |e, _| {
        v.push(String::from_utf8(e.name.clone()).unwrap());
        Ok(true)
    })
    .unwrap();
    v.retain(|n| n != "." && n != "..");
    v.sort();
    v
}

fn mkdir(c: &Caller<'_>, p: &str) -> Result<(), Errno> {
    ops::mkdir(c, c.fs.cwd(), p.as_bytes(), 0o755)
}

fn rename(c: &Caller<'_>, a: &str, b: &str) -> Result<(), Errno> {
    ops::rename(c, (c.fs.cwd(), a.as_bytes()), (c.fs.cwd(), b.as_bytes()), 0)
}

fn unlink(c: &Caller<'_>, p: &str, dir: bool) -> Result<(), Errno> {
    ops::unlink(c, c.fs.cwd(), p.as_bytes(), dir)
}

fn find(c: &Caller<'_>, p: &str) -> Result<PathRef, Errno> {
    walk(c, c.fs.cwd(), p.as_bytes(), true)
}

#[test]
fn files_are_made_written_and_read() {
    let c = tmpfs();
    put(&c, "/a", b"hello");
    assert_eq!(get(&c, "a").unwrap(), b"hello");
    assert_eq!(get(&c, "/b").err(), Some(Errno::ENOENT));
    assert_eq!(open(&c, "/a", CREAT | EXCL | RDWR).err(), Some(Errno::EEXIST));
    assert_eq!(open(&c, "/a/", RDONLY).err(), Some(Errno::ENOTDIR));
    assert_eq!(open(&c, "/a", DIRECTORY).err(), Some(Errno::ENOTDIR));
    assert_eq!(open(&c, "/", WRONLY).err(), Some(Errno::EISDIR));
    assert_eq!(open(&c, "/new/", CREAT | WRONLY).err(), Some(Errno::EISDIR));
    let f = open(&c, "/a", RDWR | APPEND).unwrap();
    f.write(None, &mut Source::kernel(b"!")).unwrap();
    assert_eq!(get(&c, "a").unwrap(), b"hello!");
    unlink(&c, "/a", false).unwrap();
    assert_eq!(f.path_ref().full(), b"/a (deleted)");
    assert_eq!(f.inode().attr().unwrap().nlink, 0);
    assert_eq!(find(&c, "/a").err(), Some(Errno::ENOENT));
}

#[test]
fn links_are_followed_and_loops_end() {
    let c = tmpfs();
    mkdir(&c, "/d").unwrap();
    mkdir(&c, "/d/e").unwrap();
    put(&c, "/d/f", b"x");
    let link = |t: &str, p: &str| ops::symlink(&c, t.as_bytes(), c.fs.cwd(), p.as_bytes()).unwrap();
    link("d/e/..", "/l");
    link("loop", "/loop");
    link("/l/f", "/d/abs");
    assert_eq!(get(&c, "/l/f").unwrap(), b"x");
    assert_eq!(get(&c, "/d/abs").unwrap(), b"x");
    assert_eq!(get(&c, "/../../d/f").unwrap(), b"x");
    assert_eq!(find(&c, "/loop").err(), Some(Errno::ELOOP));
    assert_eq!(open(&c, "/d/abs", NOFOLLOW).err(), Some(Errno::ELOOP));
    assert_eq!(find(&c, "/d/f/x").err(), Some(Errno::ENOTDIR));
    assert_eq!(find(&c, &"n".repeat(256)).err(), Some(Errno::ENAMETOOLONG));
    link("dangling", "/dl");
    put(&c, "/dl", b"made");
    assert_eq!(get(&c, "/dangling").unwrap(), b"made");
}

#[test]
fn directories_move_but_not_into_themselves() {
    let c = tmpfs();
    for d in ["/a", "/a/b", "/x"] {
        mkdir(&c, d).unwrap();
    }
    put(&c, "/a/b/f", b"1");
    assert_eq!(rename(&c, "/a", "/a/b/c"), Err(Errno::EINVAL));
    assert_eq!(rename(&c, "/x", "/a"), Err(Errno::ENOTEMPTY));
    assert_eq!(rename(&c, "/a/b/f", "/x"), Err(Errno::EISDIR));
    assert_eq!(rename(&c, "/x", "/a/b/f"), Err(Errno::ENOTDIR));
    let f = open(&c, "/a/b/f", RDONLY).unwrap();
    rename(&c, "/a/b", "/x").unwrap();
    assert_eq!(f.path_ref().full(), b"/x/f");
    assert_eq!(get(&c, "/x/f").unwrap(), b"1");
    assert_eq!(names(&c, "/a"), Vec::<String>::new());
    assert_eq!(unlink(&c, "/x", true), Err(Errno::ENOTEMPTY));
    assert_eq!(unlink(&c, "/x", false), Err(Errno::EISDIR));
    unlink(&c, "/a", true).unwrap();
    assert_eq!(names(&c, "/"), ["x"]);
    assert_eq!(find(&c, "/").unwrap().dentry.inode().attr().unwrap().nlink, 3);
}

#[test]
fn permissions_are_checked() {
    let c = tmpfs();
    mkdir(&c, "/pub").unwrap();
    ops::chmod(&c, &find(&c, "/pub").unwrap(), 0o1777).unwrap();
    put(&c, "/pub/root", b"");
    ops::chmod(&c, &find(&c, "/pub/root").unwrap(), 0o600).unwrap();
    let u = Caller::kernel(c.fs.clone(), Creds::user(1000, 1000, vec![], 0));
    assert_eq!(open(&u, "/pub/root", RDONLY).err(), Some(Errno::EACCES));
    assert_eq!(open(&u, "/new", CREAT | WRONLY).err(), Some(Errno::EACCES));
    put(&u, "/pub/mine", b"m");
    assert_eq!(unlink(&u, "/pub/root", false), Err(Errno::EPERM));
    assert_eq!(ops::chown(&u, &find(&u, "/pub/mine").unwrap(), Some(0), None), Err(Errno::EPERM));
    unlink(&u, "/pub/mine", false).unwrap();
}

fn overlay() -> (Caller<'static>, Caller<'static>) {
    let low = tmpfs();
    for d in ["/etc", "/etc/sub", "/usr"] {
        mkdir(&low, d).unwrap();
    }
    put(&low, "/etc/passwd", b"root");
    put(&low, "/etc/sub/deep", b"deep");
    ops::link(&low, &find(&low, "/etc/passwd").unwrap(), low.fs.cwd(), b"/usr/hard").unwrap();
    let lower = low.fs.root().dentry.inode().clone();
    let (fs, root) = Tree::overlay(store(), 1 << 30, lower).unwrap();
    (caller(Mount::new(fs, root, b"overlay", MountFlags::empty())), low)
}

#[test]
fn an_overlay_changes_without_touching_the_lower_layer() {
    let (c, low) = overlay();
    assert_eq!(get(&c, "/etc/passwd").unwrap(), b"root");
    let ino = find(&c, "/etc/passwd").unwrap().dentry.inode().attr().unwrap().ino;
    let reader = open(&c, "/etc/passwd", RDONLY).unwrap();
    open(&c, "/etc/passwd", WRONLY | APPEND).unwrap().write(None, &mut Source::kernel(b"+")).unwrap();
    assert_eq!(get(&c, "/etc/passwd").unwrap(), b"root+");
    let mut v = Vec::new();
    reader.read(None, &mut Sink::kernel(&mut v, 9)).unwrap();
    assert_eq!(v, b"root+", "an open file sees the change");
    assert_eq!(get(&c, "/usr/hard").unwrap(), b"root+", "hard links stay links");
    assert_eq!(find(&c, "/usr/hard").unwrap().dentry.inode().attr().unwrap().ino, ino);
    assert_eq!(get(&low, "/etc/passwd").unwrap(), b"root");
    unlink(&c, "/usr/hard", false).unwrap();
    assert_eq!(names(&c, "/usr"), Vec::<String>::new());
    put(&c, "/usr/hard", b"new");
    assert_eq!(names(&c, "/usr"), ["hard"]);
    assert_eq!(get(&c, "/usr/hard").unwrap(), b"new");
}

#[test]
fn an_overlay_directory_moves_with_its_lower_names() {
    let (c, low) = overlay();
    put(&c, "/etc/sub/own", b"o");
    rename(&c, "/etc/sub", "/moved").unwrap();
    assert_eq!(get(&c, "/moved/deep").unwrap(), b"deep");
    assert_eq!(names(&c, "/moved"), ["deep", "own"]);
    assert_eq!(find(&c, "/etc/sub").err(), Some(Errno::ENOENT));
    mkdir(&c, "/etc/sub").unwrap();
    assert_eq!(names(&c, "/etc/sub"), Vec::<String>::new(), "a new directory is opaque");
    assert_eq!(unlink(&c, "/moved", true), Err(Errno::ENOTEMPTY));
    unlink(&c, "/moved/deep", false).unwrap();
    unlink(&c, "/moved/own", false).unwrap();
    unlink(&c, "/moved", true).unwrap();
    assert_eq!(get(&low, "/etc/sub/deep").unwrap(), b"deep");
}

#[test]
fn mounts_are_crossed_both_ways() {
    let c = tmpfs();
    mkdir(&c, "/m").unwrap();
    put(&c, "/m/hidden", b"");
    let (fs, root) = Tree::tmpfs(store(), &Tmpfs::new(1 << 20, 0o755));
    let m = Mount::new(fs, root, b"t", MountFlags::READ_ONLY);
    c.fs.namespace().attach(find(&c, "/m").unwrap(), &m).unwrap();
    assert_eq!(names(&c, "/m"), Vec::<String>::new());
    assert_eq!(open(&c, "/m/x", CREAT | WRONLY).err(), Some(Errno::EROFS));
    assert_eq!(names(&c, "/m/.."), ["m"]);
    assert_eq!(unlink(&c, "/m", true), Err(Errno::EBUSY));
    let copy = c.fs.fork();
    copy.unshare_mounts(Base::first(Kind::Mount)).unwrap();
    c.fs.namespace().detach(&m, false).unwrap();
    assert_eq!(names(&c, "/m"), ["hidden"]);
    let other = Caller::kernel(copy, Creds::root(ALL_CAPABILITIES));
    assert_eq!(names(&other, "/m"), Vec::<String>::new());
}

#[test]
fn descriptors_are_the_lowest_free() {
    let c = tmpfs();
    let t = crate::vfs::FdTable::default();
    let f = open(&c, "/", RDONLY).unwrap();
    for n in 0..5 {
        assert_eq!(t.add(f.clone(), n % 2 == 0, 100), Ok(n));
    }
    t.close(1).unwrap();
    t.close(3).unwrap();
    assert_eq!(t.close(3), Err(Errno::EBADF));
    assert_eq!(t.add_from(f.clone(), false, 2, 100), Ok(3));
    assert_eq!(t.add(f.clone(), false, 100), Ok(1));
    assert_eq!(t.add(f.clone(), false, 5), Err(Errno::EMFILE));
    let copy = t.fork();
    copy.close_on_exec();
    assert_eq!(copy.all().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(t.put(100, f, false, 100), Err(Errno::EBADF));
}

/// Not a test of speed, but of what costs: a warm walk must stay far below a microsecond even unoptimized by much.
#[test]
fn a_warm_stat_is_cheap() {
    let (c, _low) = overlay();
    find(&c, "/etc/sub/deep").unwrap().dentry.inode().attr().unwrap();
    let start = std::time::Instant::now();
    const N: u32 = 10_000;
    for _ in 0..N {
        find(&c, "/etc/sub/deep").unwrap().dentry.inode().attr().unwrap();
    }
    let each = start.elapsed() / N;
    println!("warm stat: {each:?}");
    assert!(each < std::time::Duration::from_micros(20), "{each:?}");
}
