//! The client file system against the real Gofer's file server, in one process.

use std::sync::Arc;

use cofferdam_control::sentry::FileAccess;
use cofferdam_gofer::host::{CacheWindow, Export, ExportKind, Host};
use cofferdam_ninep::client::Client;
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;

use super::{Acts, GoferFs, Held};
use crate::errno::Errno;
use crate::memory::store::Store;
use crate::task::Creds;
use crate::task::creds::ALL_CAPABILITIES;
use crate::uio::{Sink, Source};
use crate::vfs::file::flags::*;
use crate::vfs::inode::FileSystem;
use crate::vfs::meeting::Meeting;
use crate::vfs::mount::{Mount, MountFlags};
use crate::vfs::walk::{Resolve, walk};
use crate::vfs::{Caller, FsContext, ops};

struct Rig {
    caller: Caller<'static>,
    dir: std::path::PathBuf,
    window: Window,
    client: Client,
    acts: Acts,
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn rig(name: &str, read_only: bool) -> Rig {
    rig_with(name, read_only, 1000, 1 << 30)
}

/// Of files that the host changes, too.
fn shared_rig(name: &str) -> Rig {
    rig_of(name, false, 1000, 1 << 30, FileAccess::Shared)
}

/// With that many descriptors in the Gofer and that much memory on the host.
fn rig_with(name: &str, read_only: bool, descriptors: usize, memory: u64) -> Rig {
    rig_of(name, read_only, descriptors, memory, FileAccess::Exclusive)
}

fn rig_of(name: &str, read_only: bool, descriptors: usize, memory: u64, access: FileAccess) -> Rig {
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
    let export = Export { name: "root".into(), read_only, kind: ExportKind::Directory, root, beside: None };
    let cache = CacheWindow::new(window.fd().try_clone_to_owned().unwrap()).unwrap();
    let host = Host::new(vec![export], Some(cache), descriptors).unwrap();
    let (near, far) = Channel::pair().unwrap();
    cofferdam_gofer::service::start_workers(Arc::new(Session::new(host, Limits::default())), far, 2).unwrap();
    let client = Client::connect(near, Some(Arc::new(again()))).unwrap();
    let (store, held, acts) = (Arc::new(Store::new(again())), Held::new(memory), Acts::default());
    let (fs, root) = GoferFs::attach((client.clone(), acts.clone()), store, held, "root", access).unwrap();
    assert!(fs.statfs().unwrap().blocks > 0);
    let mount = Mount::new(fs, root, b"root", MountFlags::empty());
    let caller = Caller::kernel(Arc::new(FsContext::new_root(mount)), Creds::root(ALL_CAPABILITIES));
    Rig { caller, dir, window, client, acts }
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

/// The content that a test's large file has at an offset.
fn content(at: u64, n: usize, salt: u8) -> Vec<u8> {
    (at..at + n as u64).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8 ^ salt).collect()
}

const BIG: usize = 24 << 20;

fn with_big(name: &str) -> Rig {
    let r = rig(name, false);
    std::fs::write(r.dir.join("stream"), content(0, BIG, 0)).unwrap();
    r
}

fn open_big(r: &Rig, how: i32) -> Arc<crate::vfs::file::File> {
    ops::open(&r.caller, r.caller.fs.cwd(), b"/stream", how, 0, Resolve::empty()).unwrap()
}

fn next(f: &crate::vfs::file::File, n: usize) -> Vec<u8> {
    let mut v = Vec::new();
    f.read(None, &mut Sink::kernel(&mut v, n)).unwrap();
    v
}

/// Bytes of the window that are there.
fn in_window(r: &Rig) -> i64 {
    rustix::fs::fstat(r.window.fd()).unwrap().st_blocks * 512
}

#[test]
fn large_files_are_streamed_and_not_kept() {
    let r = with_big("stream");
    for step in [4096, 100_003, 1 << 20, 5 << 20] {
        let (one, two) = (open_big(&r, RDONLY), open_big(&r, RDONLY));
        let mut at = 0;
        while at < BIG {
            let want = content(at as u64, step.min(BIG - at), 0);
            assert!(next(&one, step) == want && next(&two, step) == want, "at {at} in steps of {step}");
            at += want.len();
            assert!(in_window(&r) <= 16 << 20, "{} bytes are held", in_window(&r));
        }
        assert!(next(&one, step).is_empty());
    }
}

#[test]
fn a_stream_sees_what_is_written_while_it_is_read() {
    let r = with_big("stream-write");
    let (f, w) = (open_big(&r, RDONLY), open_big(&r, RDWR));
    let mut at = 0u64;
    let mut salts = vec![0; BIG / 4096];
    for round in 1..40u64 {
        for _ in 0..5 {
            let got = next(&f, 100 << 10);
            for (i, page) in got.chunks(4096).enumerate() {
                let page_at = at + i as u64 * 4096;
                let want = content(page_at, page.len(), salts[page_at as usize / 4096]);
                assert!(page == want, "at {page_at} in round {round}");
            }
            at += got.len() as u64;
        }
        // Some pages on, where the Gofer has read already or is reading now; sometimes after the stream has found its pace
        // again.
        if round % 4 != 0 {
            let page = at / 4096 + [1, 3, 100, 255, 256, 511, 700][round as usize % 7];
            salts[page as usize] = round as u8;
            let data = content(page * 4096, 4096, round as u8);
            assert_eq!(w.pwrite(None, page * 4096, &mut Source::kernel(&data)), Ok(4096));
        }
    }
}

#[test]
fn a_stream_ends_where_the_file_does_now() {
    let r = with_big("stream-cut");
    let (f, w) = (open_big(&r, RDONLY), open_big(&r, RDWR));
    let read = |n: u64| assert!(next(&f, n as usize).len() == n as usize);
    read(4 << 20);
    read(1 << 20);
    // Cut within what was asked for, and grown again: zeros.
    w.ops().truncate(&w, (5 << 20) + 10).unwrap();
    assert_eq!(next(&f, 100), content(5 << 20, 10, 0));
    assert!(next(&f, 100).is_empty());
    w.ops().truncate(&w, 12 << 20).unwrap();
    assert_eq!(next(&f, 100), [0; 100]);
    for _ in 0..6 {
        assert!(next(&f, 1 << 20) == vec![0; 1 << 20]);
    }
    // Appended to while its reader is at the end.
    while !next(&f, 1 << 20).is_empty() {}
    let more = content(0, 2 << 20, 9);
    assert_eq!(w.pwrite(None, 12 << 20, &mut Source::kernel(&more)), Ok(2 << 20));
    assert!(next(&f, 4 << 20) == more);
    // Shorter on the host than is known here: zeros, and nothing of what a buffer held before.
    std::fs::OpenOptions::new().write(true).open(r.dir.join("stream")).unwrap().set_len(9 << 20).unwrap();
    let g = open_big(&r, RDONLY);
    let mut at = 0u64;
    while at < 14 << 20 {
        let got = next(&g, 700_000);
        assert!(!got.is_empty());
        let past = got.get((9u64 << 20).saturating_sub(at) as usize..).unwrap_or_default();
        let cached = (12 << 20) - at.min(12 << 20);
        assert!(past.iter().take(cached as usize).all(|b| *b == 0), "at {at}");
        at += got.len() as u64;
    }
}

#[test]
fn what_a_stream_asked_for_before_a_change_is_not_used_after_it() {
    let r = with_big("stream-stale");
    let (f, w) = (open_big(&r, RDONLY), open_big(&r, RDWR));
    assert!(next(&f, 3 << 20) == content(0, 3 << 20, 0));
    // Cut and grown with no read in between.
    w.ops().truncate(&w, (3 << 20) + 5000).unwrap();
    w.ops().truncate(&w, 20 << 20).unwrap();
    let got = next(&f, 1 << 20);
    assert!(got[..5000] == content(3 << 20, 5000, 0) && got[5000..].iter().all(|b| *b == 0));
    assert!(next(&f, 4 << 20) == vec![0; 4 << 20]);
    // Written, and no longer in the cache.
    let data = content(0, 1 << 20, 3);
    assert_eq!(w.pwrite(None, 8 << 20, &mut Source::kernel(&data)), Ok(1 << 20));
    let inode = super::inode_of(f.inode()).unwrap();
    assert!(inode.give_back_pages());
    assert!(next(&f, 1 << 20) == data);
    assert!(next(&f, 1 << 20) == vec![0; 1 << 20]);
}

#[test]
fn what_a_mapping_wrote_comes_before_what_is_streamed() {
    let r = with_big("stream-map");
    let f = open_big(&r, RDWR);
    let o = f.memory_object(true, true).unwrap();
    let mut at = 0u64;
    let read = |at: &mut u64, until: u64| {
        let mut all = Vec::new();
        while *at < until {
            all.extend(next(&f, 256 << 10));
            *at += 256 << 10;
        }
        all
    };
    read(&mut at, 3 << 20);
    // Within the piece that is read, and in the one after it.
    for place in [(3 << 20) + (300 << 10), 4 << 20] {
        let extent = o.populate(place, 4096, true).unwrap()[0];
        r.window.write(extent.host + (place - extent.offset), b"mapped").unwrap();
    }
    let got = read(&mut at, 5 << 20);
    assert_eq!(&got[300 << 10..(300 << 10) + 6], b"mapped");
    assert_eq!(&got[1 << 20..(1 << 20) + 6], b"mapped");
    assert!(got[6 + (1 << 20)..] == content((4 << 20) + 6, (1 << 20) - 6, 0));
}

#[test]
fn streams_stay_few_and_all_that_is_read_is_right() {
    let r = rig_with("streams", false, 1000, 1);
    std::fs::write(r.dir.join("stream"), content(0, BIG, 0)).unwrap();
    let files: Vec<_> = (0..20).map(|_| open_big(&r, RDONLY)).collect();
    std::thread::scope(|s| {
        for (i, f) in files.iter().enumerate().take(4) {
            s.spawn(move || {
                let mut at = 0;
                while at < BIG {
                    let got = next(f, 300_000 + i * 1000);
                    assert!(!got.is_empty() && got == content(at as u64, got.len(), 0), "at {at}");
                    at += got.len();
                }
            });
        }
    });
    for f in &files[4..] {
        for part in 0..3 {
            assert!(next(f, 1 << 20) == content(part << 20, 1 << 20, 0));
        }
    }
    assert!(in_window(&r) <= 28 << 20, "{} bytes are held", in_window(&r));
    drop(files);
    assert!(in_window(&r) <= 20 << 20, "{} bytes are held", in_window(&r));
}

#[test]
fn a_file_that_stays_open_gives_its_pages_back_again_and_again() {
    let r = rig_with("pages-open", false, 1000, 1);
    std::fs::File::create(r.dir.join("stream")).unwrap().set_len(80 << 20).unwrap();
    let f = open_big(&r, RDONLY);
    let mut most = 0;
    // In no order, so that nothing is streamed.
    for at in (0..320u64).map(|n| (319 - n) * (256 << 10)) {
        let mut v = Vec::new();
        f.pread(None, at, &mut Sink::kernel(&mut v, 256 << 10)).unwrap();
        assert_eq!(v.len(), 256 << 10);
        most = most.max(in_window(&r));
    }
    assert!(most <= 20 << 20, "{most} bytes were held");
}

#[test]
fn a_server_that_goes_away_in_the_middle_of_a_stream_fails_the_read() {
    let r = with_big("stream-gone");
    let f = open_big(&r, RDONLY);
    assert_eq!(next(&f, 3 << 20).len(), 3 << 20);
    r.client.close();
    let mut last = Ok(0);
    for _ in 0..20 {
        let mut v = Vec::new();
        last = f.read(None, &mut Sink::kernel(&mut v, 1 << 20));
    }
    assert_eq!(last, Err(Errno::EIO));
}

#[test]
fn a_write_is_not_lost_to_what_is_filled_around_it() {
    let r = rig("write-fill", false);
    const PAGES: u64 = 64;
    let path = r.dir.join("f");
    std::fs::write(&path, vec![0; (PAGES * 4096) as usize]).unwrap();
    let w = ops::open(&r.caller, r.caller.fs.cwd(), b"/f", RDWR, 0, Resolve::empty()).unwrap();
    let inode = super::inode_of(w.inode()).unwrap();
    let end = std::sync::atomic::AtomicBool::new(false);
    let mut lost = Vec::new();
    std::thread::scope(|s| {
        for n in 0..2u64 {
            let (f, end) = (ops::open(&r.caller, r.caller.fs.cwd(), b"/f", RDONLY, 0, Resolve::empty()).unwrap(), &end);
            s.spawn(move || {
                let mut at = n * 7;
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut v = Vec::new();
                    f.pread(None, at % PAGES * 4096, &mut Sink::kernel(&mut v, 4096)).unwrap();
                    at += 13;
                }
            });
        }
        let host = std::fs::File::open(&path).unwrap();
        for round in 1..4000u64 {
            let at = round * 5 % PAGES * 4096;
            let data = vec![round as u8; 4096];
            assert_eq!(w.pwrite(None, at, &mut Source::kernel(&data)), Ok(4096));
            let (mut there, mut seen) = (vec![0; 4096], Vec::new());
            std::os::unix::fs::FileExt::read_exact_at(&host, &mut there, at).unwrap();
            w.pread(None, at, &mut Sink::kernel(&mut seen, 4096)).unwrap();
            if there != data || seen != data {
                lost.push((round, there == data, seen == data));
            }
            // So that there is always something to fill.
            inode.give_back_pages();
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(lost.is_empty(), "round, on the host, in the cache: {:?}", lost.get(..lost.len().min(10)));
}

fn size(r: &Rig, path: &str) -> Result<u64, Errno> {
    Ok(walk(&r.caller, r.caller.fs.cwd(), path.as_bytes(), true)?.dentry.inode().attr()?.size)
}

fn names(r: &Rig, path: &str) -> Vec<String> {
    let d = ops::open(&r.caller, r.caller.fs.cwd(), path.as_bytes(), RDONLY, 0, Resolve::empty()).unwrap();
    let mut names = Vec::new();
    d.list(&r.caller, &mut |e, _| {
        names.push(String::from_utf8(e.name.clone()).unwrap());
        Ok(true)
    })
    .unwrap();
    names.split_off(2)
}

#[test]
fn names_and_attributes_of_shared_files_are_the_hosts_at_each_use() {
    let r = shared_rig("shared-names");
    let on_host = |name: &str| r.dir.join(name);
    assert_eq!(size(&r, "/new").err(), Some(Errno::ENOENT));
    std::fs::write(on_host("new"), b"1").unwrap();
    assert_eq!(size(&r, "/new"), Ok(1));
    std::fs::write(on_host("new"), b"22").unwrap();
    assert_eq!(size(&r, "/new"), Ok(2));
    assert_eq!(names(&r, "/"), ["hello", "link", "new", "sub"]);
    std::fs::rename(on_host("new"), on_host("sub/moved")).unwrap();
    assert_eq!((size(&r, "/new").err(), size(&r, "/sub/moved")), (Some(Errno::ENOENT), Ok(2)));
    assert_eq!(names(&r, "/"), ["hello", "link", "sub"]);
    // A directory is moved with what was looked up in it, and another takes its place.
    std::fs::rename(on_host("sub"), on_host("old")).unwrap();
    std::fs::create_dir_all(on_host("sub/deep")).unwrap();
    assert_eq!((size(&r, "/sub/moved").err(), size(&r, "/old/moved")), (Some(Errno::ENOENT), Ok(2)));
    // The name of a file becomes that of a link, of a directory, and of nothing.
    std::fs::remove_file(on_host("hello")).unwrap();
    std::os::unix::fs::symlink("old/moved", on_host("hello")).unwrap();
    assert_eq!(size(&r, "/hello"), Ok(2));
    std::fs::remove_file(on_host("hello")).unwrap();
    std::os::unix::fs::symlink("old/big", on_host("hello")).unwrap();
    assert_eq!(size(&r, "/hello"), Ok(1_200_000));
    std::fs::remove_file(on_host("hello")).unwrap();
    std::fs::create_dir(on_host("hello")).unwrap();
    assert!(names(&r, "/hello").is_empty());
    std::fs::remove_dir(on_host("hello")).unwrap();
    assert_eq!(size(&r, "/hello").err(), Some(Errno::ENOENT));
    // What the host made first is there when it is made here.
    std::fs::write(on_host("taken"), b"x").unwrap();
    assert_eq!(ops::mkdir(&r.caller, r.caller.fs.cwd(), b"/taken", 0o755), Err(Errno::EEXIST));
    std::fs::remove_file(on_host("taken")).unwrap();
    ops::mkdir(&r.caller, r.caller.fs.cwd(), b"/taken", 0o755).unwrap();
    std::fs::remove_dir(on_host("taken")).unwrap();
    assert_eq!(ops::unlink(&r.caller, r.caller.fs.cwd(), b"/taken", true), Err(Errno::ENOENT));
}

#[test]
fn shared_files_are_read_from_the_host_and_written_there() {
    let r = shared_rig("shared-bytes");
    let (cwd, path) = (|| r.caller.fs.cwd(), r.dir.join("hello"));
    let f = ops::open(&r.caller, cwd(), b"/hello", RDWR, 0, Resolve::empty()).unwrap();
    let read = |at: u64| {
        let mut v = Vec::new();
        f.read_at(at, &mut Sink::kernel(&mut v, 1 << 20)).unwrap();
        v
    };
    assert_eq!(read(0), b"hello world");
    for text in ["HELLO WORLD", "short", "", "longer than it was"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(0), text.as_bytes());
        assert_eq!(f.inode().attr().unwrap().size, text.len() as u64);
    }
    f.pwrite(None, 0, &mut Source::kernel(b"sandbox")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"sandboxthan it was");
    // Both append: the host says where the end is.
    std::fs::write(&path, "host\n").unwrap();
    for _ in 0..3 {
        f.write_with(None, &mut Source::kernel(b"here\n"), true).unwrap();
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"host\n").unwrap();
    }
    assert_eq!(read(0), b"host\nhere\nhost\nhere\nhost\nhere\nhost\n");
    assert_eq!(f.position(), 30);
    // Moved away by the host while it is open, as logs are: it is still what is written.
    std::fs::rename(&path, r.dir.join("hello.1")).unwrap();
    let log = ops::open(&r.caller, cwd(), b"/hello", WRONLY | APPEND | CREAT, 0o644, Resolve::empty()).unwrap();
    std::fs::rename(&path, r.dir.join("hello.2")).unwrap();
    log.write(None, &mut Source::kernel(b"moved\n")).unwrap();
    f.write_with(None, &mut Source::kernel(b"moved\n"), true).unwrap();
    assert_eq!(std::fs::read(r.dir.join("hello.2")).unwrap(), b"moved\n");
    assert!(std::fs::read(r.dir.join("hello.1")).unwrap().ends_with(b"host\nmoved\n"));
    assert_eq!(size(&r, "/hello").err(), Some(Errno::ENOENT));
    std::fs::rename(r.dir.join("hello.1"), &path).unwrap();
    // More than one piece, either way.
    let big = content(0, 3_000_000, 7);
    assert_eq!(f.pwrite(None, 5, &mut Source::kernel(&big)), Ok(big.len()));
    assert!(std::fs::read(&path).unwrap()[5..] == big);
    let mut v = Vec::new();
    f.pread(None, 5, &mut Sink::kernel(&mut v, 4 << 20)).unwrap();
    assert!(v == big);
    // Replaced by another: who has it open keeps it, who opens it gets the new one.
    std::fs::write(r.dir.join("next"), b"next").unwrap();
    std::fs::rename(r.dir.join("next"), &path).unwrap();
    assert!(read(5)[..100] == big[..100]);
    assert_eq!(get(&r, "/hello", 0, 100).unwrap(), b"next");
    std::fs::remove_file(&path).unwrap();
    assert!(read(5)[..100] == big[..100]);
    assert_eq!(f.inode().attr().unwrap().nlink, 0);
}

#[test]
fn mapped_pages_of_shared_files_follow_the_host_where_they_lie() {
    let r = shared_rig("shared-map");
    let (cwd, path) = (|| r.caller.fs.cwd(), r.dir.join("sub/big"));
    let w = ops::open(&r.caller, cwd(), b"/sub/big", RDWR, 0, Resolve::empty()).unwrap();
    let f = ops::open(&r.caller, cwd(), b"/sub/big", RDONLY, 0, Resolve::empty()).unwrap();
    let o = f.memory_object(false, true).unwrap();
    let e = o.populate(8192, 4096, false).unwrap()[0];
    let seen = |at: u64| {
        let mut b = [0; 6];
        r.window.read(e.host + (at - e.offset), &mut b).unwrap();
        b
    };
    assert_eq!(seen(8192), [0, 8, 0, 0, 1, 8]);
    // By the host, seen with the next fault elsewhere; by a write here, at once; by the host right after another change.
    let host = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let write = |text: &[u8]| std::os::unix::fs::FileExt::write_all_at(&host, text, 8192).unwrap();
    write(b"host 1");
    o.populate(1 << 20, 4096, false).unwrap();
    assert_eq!(&seen(8192), b"host 1");
    w.pwrite(None, 8192, &mut Source::kernel(b"here 1")).unwrap();
    assert_eq!(&seen(8192), b"here 1");
    for n in 0..50 {
        let text = format!("fast{n:02}");
        write(text.as_bytes());
        let mut v = Vec::new();
        f.read_at(8192, &mut Sink::kernel(&mut v, 6)).unwrap();
        assert_eq!((v.as_slice(), &seen(8192)[..]), (text.as_bytes(), text.as_bytes()));
    }
    // Cut: what is beyond the end is no longer there, what is before it is.
    super::cut_by_host();
    host.set_len(8195).unwrap();
    assert!(o.populate(1 << 20, 4096, false).unwrap().is_empty());
    assert_eq!((o.size(), &seen(8192)), (8195, b"fas\0\0\0"));
    assert!(super::cut_by_host().iter().any(|(i, size)| *i == o.identity() && *size == 8195));
    // A mapping that may write keeps what it has, and takes it to the host.
    let own = w.memory_object(true, true).unwrap();
    let e = own.populate(0, 4096, true).unwrap()[0];
    r.window.write(e.host, b"mapped").unwrap();
    write(b"ho");
    own.populate(0, 4096, true).unwrap();
    own.sync(0, 4096).unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[..6], b"mapped");
    drop(own);
    o.populate(0, 4096, false).unwrap();
    assert_eq!(&seen(8192), b"hos\0\0\0");
}

#[test]
fn paths_that_are_asked_for_at_once_lead_where_each_step_would() {
    let r = shared_rig("shared-paths");
    let deep: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let deep = deep.join("/");
    std::fs::create_dir_all(r.dir.join(&deep)).unwrap();
    std::fs::write(r.dir.join(&deep).join("end"), b"end").unwrap();
    std::os::unix::fs::symlink("n0/n1", r.dir.join("way")).unwrap();
    std::os::unix::fs::symlink("../../way/n2", r.dir.join("n0/n1/up")).unwrap();
    for (path, want) in [
        (format!("/{deep}/end"), Ok(3)),
        (format!("//{}//end", deep.replace('/', "//")), Ok(3)),
        (format!("/{deep}/none"), Err(Errno::ENOENT)),
        (format!("/{deep}/none/more/names"), Err(Errno::ENOENT)),
        (format!("/{deep}/end/more"), Err(Errno::ENOTDIR)),
        (format!("/{deep}/end/more/names"), Err(Errno::ENOTDIR)),
        (format!("/{deep}/end/"), Err(Errno::ENOTDIR)),
        (format!("/way/../n1/./n2/../../n1/{}/end", &deep["n0/n1/".len()..]), Ok(3)),
        (format!("/way/{}/end", &deep["n0/n1/".len()..]), Ok(3)),
        (format!("/n0/n1/up/{}/end", &deep["n0/n1/n2/".len()..]), Ok(3)),
        ("/sub/deep/../big".into(), Ok(1_200_000)),
        ("/sub/hello/hello".into(), Err(Errno::ENOENT)),
        ("/sub/../hello".into(), Ok(11)),
    ] {
        // The first time nothing is known, the second time everything.
        for _ in 0..2 {
            assert_eq!(size(&r, &path), want, "{path}");
        }
    }
    // What is made is found, and found gone, by the names before it.
    let made = format!("/{deep}/a/b/c");
    assert_eq!(size(&r, &made), Err(Errno::ENOENT));
    std::fs::create_dir_all(r.dir.join(&made[1..])).unwrap();
    assert!(size(&r, &made).is_ok());
    std::fs::remove_dir_all(r.dir.join(&deep).join("a")).unwrap();
    assert_eq!(size(&r, &made), Err(Errno::ENOENT));
    ops::mkdir(&r.caller, r.caller.fs.cwd(), format!("/{deep}/a").as_bytes(), 0o755).unwrap();
    assert!(r.dir.join(&deep).join("a").is_dir());
}

#[test]
fn what_two_exports_show_is_one_file() {
    let r = rig("met", false);
    let window = Window::from_peer(r.window.fd().try_clone_to_owned().unwrap(), 1 << 36).unwrap();
    let (store, held) = (Arc::new(Store::new(window)), Held::new(1 << 30));
    let attached = |access| {
        let (fs, root) =
            GoferFs::attach((r.client.clone(), r.acts.clone()), store.clone(), held.clone(), "root", access).unwrap();
        let mount = Mount::new(fs, root, b"root", MountFlags::empty());
        Caller::kernel(Arc::new(FsContext::new_root(mount)), Creds::root(ALL_CAPABILITIES))
    };
    let [a, b] = [(); 2].map(|()| attached(FileAccess::Shared));
    let open = |c: &Caller<'_>| ops::open(c, c.fs.cwd(), b"/sub/big", RDWR, 0, Resolve::empty()).unwrap();
    let (of_a, of_b) = (open(&a), open(&b));
    let file = of_a.inode().host_file().unwrap();
    assert!(Arc::ptr_eq(of_a.inode().meeting(), of_b.inode().meeting()));

    // What an export has to itself is another file, as far as locks and pages go.
    let alone = open(&attached(FileAccess::Exclusive));
    assert!(alone.inode().host_file().is_none() && !Arc::ptr_eq(alone.inode().meeting(), of_a.inode().meeting()));
    drop(alone);

    let (seen_by_a, seen_by_b) = (of_a.memory_object(true, true).unwrap(), of_b.memory_object(false, true).unwrap());
    assert_eq!(seen_by_a.identity(), seen_by_b.identity());
    let place = seen_by_a.populate(8192, 4096, true).unwrap()[0];
    assert_eq!(seen_by_b.populate(8192, 4096, false).unwrap()[0], place);
    r.window.write(place.host, b"mapped").unwrap();
    let mut read = Vec::new();
    of_b.read_at(8192, &mut Sink::kernel(&mut read, 6)).unwrap();
    assert_eq!(read, b"mapped");
    of_b.pwrite(None, 8192 + 3, &mut Source::kernel(b"B")).unwrap();
    let mut page = [0; 6];
    r.window.read(place.host, &mut page).unwrap();
    assert_eq!(&page, b"mapBed");
    // Cut by one, it is so for the other; so is what is put there afterwards.
    ops::truncate(&b, of_b.path_ref(), 8193).unwrap();
    assert_eq!(of_b.inode().mapped_as(), Some(seen_by_a.identity()));
    assert_eq!(seen_by_a.populate(8192, 4096, true).unwrap().len(), 1);
    r.window.read(place.host, &mut page).unwrap();
    assert_eq!((seen_by_a.size(), &page), (8193, b"m\0\0\0\0\0"));
    assert!(seen_by_a.populate(12288, 4096, true).unwrap().is_empty());
    of_a.pwrite(None, 12288, &mut Source::kernel(b"more")).unwrap();
    assert_eq!(seen_by_b.populate(12288, 4096, false).unwrap().len(), 1);

    // One goes with all it had; the other goes on, and then nothing is left.
    drop((seen_by_a, of_a, a));
    assert!(Meeting::known(file).is_some());
    seen_by_b.populate(0, 4096, false).unwrap();
    assert!(held.bytes() > 0);
    drop((seen_by_b, of_b, b));
    assert!(Meeting::known(file).is_none());
    assert_eq!(held.bytes(), 0);
}

#[test]
fn what_the_host_changed_under_an_exclusive_root_is_seen_once_somebody_acts() {
    let r = rig("acts", false);
    let host = |name: &str| r.dir.join(name);
    let cwd = || r.caller.fs.cwd();
    std::fs::write(host("mapped"), content(0, 10_000, 1)).unwrap();
    std::fs::write(host("own"), b"own").unwrap();
    let open = |path: &[u8], how: i32| ops::open(&r.caller, cwd(), path, how, 0, Resolve::empty()).unwrap();
    // Known: content, attributes, a missing name, a listing, a link, a mapping, and a file that is open to be written.
    let all = |r: &Rig| {
        let first = get(r, "/hello", 0, 64).unwrap();
        let link = walk(&r.caller, cwd(), b"/link", false).unwrap().dentry.inode().readlink(&r.caller).unwrap();
        let second = get(r, "/sub/new", 0, 64).ok();
        (first, size(r, "/hello").unwrap(), second, names(r, "/sub"), link)
    };
    let before = all(&r);
    let mapped = open(b"/mapped", RDONLY);
    let object = mapped.memory_object(false, false).unwrap();
    let place = object.populate(0, 4096, false).unwrap()[0].host;
    let shown = || {
        let mut bytes = vec![0; 4096];
        r.window.read(place, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(shown(), content(0, 4096, 1));
    let own = open(b"/own", RDWR);
    let write = |at: u64, text: &[u8]| own.pwrite(None, at, &mut Source::kernel(text)).unwrap();
    write(3, b" words");
    let old = open(b"/hello", RDONLY);

    std::fs::remove_file(host("hello")).unwrap();
    std::fs::write(host("hello"), b"another file").unwrap();
    std::fs::write(host("sub/new"), b"new").unwrap();
    std::fs::remove_file(host("link")).unwrap();
    std::os::unix::fs::symlink("hello", host("link")).unwrap();
    std::fs::write(host("mapped"), content(0, 10_000, 2)).unwrap();
    assert_eq!(all(&r), before, "nobody has acted");
    r.acts.add();
    let after = all(&r);
    let names = vec!["big".to_owned(), "deep".to_owned(), "new".to_owned()];
    assert_eq!(after, (b"another file".to_vec(), 12, Some(b"new".to_vec()), names, b"hello".to_vec()));
    // What is open is what was opened, and what is mapped is filled anew where it lies.
    let mut was = Vec::new();
    old.read_at(0, &mut Sink::kernel(&mut was, 64)).unwrap();
    assert_eq!(was, b"hello world");
    object.populate(0, 4096, false).unwrap();
    assert_eq!(shown(), content(0, 4096, 2));
    // What was written here is there, and goes on.
    write(9, b" more");
    assert_eq!(get(&r, "/own", 0, 64).unwrap(), b"own words more");
    assert_eq!(std::fs::read(host("own")).unwrap(), b"own words more");
    // All of this is known now.
    std::fs::write(host("hello"), b"unseen").unwrap();
    std::fs::remove_file(host("sub/new")).unwrap();
    assert_eq!(all(&r), after);
    r.acts.add();
    assert_eq!(get(&r, "/hello", 0, 64).unwrap(), b"unseen");
    assert_eq!(get(&r, "/sub/new", 0, 64).err(), Some(Errno::ENOENT));
}

/// A writer whose file is asked for anew all the time never loses what it wrote.
#[test]
fn a_file_that_is_written_keeps_its_size_while_others_act() {
    let r = rig("acts-write", false);
    let cwd = || r.caller.fs.cwd();
    std::fs::write(r.dir.join("log"), b"").unwrap();
    let f = ops::open(&r.caller, cwd(), b"/log", RDWR | APPEND, 0, Resolve::empty()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                r.acts.add();
                size(&r, "/log").unwrap();
                get(&r, "/log", 0, 100).unwrap();
            }
        });
        for n in 0..2000u32 {
            f.write(None, &mut Source::kernel(&n.to_le_bytes())).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let want: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(std::fs::read(r.dir.join("log")).unwrap(), want);
    assert_eq!(get(&r, "/log", 0, 8000).unwrap(), want);
}
