//! Our client over our server over real files: what each request does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::Arc;

use cofferdam_ninep::Errno;
use cofferdam_ninep::client::{Client, Fid};
use cofferdam_ninep::codec::{Lock, LockKind, NONUNAME, Qid, QidKind, Reply, Request, SetAttr, SetAttrMask, Time};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;
use files::{Scratch, serve};

const WRONLY: u32 = 1;
const RDWR: u32 = 2;

/// Runs a test against the extension and against plain 9P2000.L.
fn both(test: impl Fn(&Scratch, &Client, &Fid)) {
    let dir = Scratch::new();
    let served = serve(dir.path(), false);
    assert!(served.client.extended());
    test(&dir, &served.client, &served.root);
    drop(served);
    let dir = Scratch::new();
    let exports = vec![files::export("root", dir.path(), false)];
    let (channel, _session) = files::raw(exports, None, Default::default(), 4096);
    let client = Client::connect_plain(channel).unwrap();
    assert!(!client.extended());
    let (root, _) = client.attach(b"root", b"", NONUNAME).unwrap();
    test(&dir, &client, &root);
}

#[test]
fn create_write_read_and_attributes_are_the_hosts() {
    both(|dir, c, root| {
        let file = c.walk(root, &[]).unwrap();
        c.lcreate(&file, b"f\xff\n", RDWR, 0o640, NONUNAME).unwrap();
        assert_eq!(c.write(&file, 0, b"hello world").unwrap(), 11);
        let mut back = [0; 64];
        assert_eq!(c.read(&file, 6, &mut back).unwrap(), 5);
        assert_eq!(&back[..5], b"world");
        assert_eq!(c.read(&file, 100, &mut back).unwrap(), 0);
        let host = std::fs::symlink_metadata(dir.path().join(std::ffi::OsStr::from_bytes(b"f\xff\n"))).unwrap();
        let attr = c.getattr(&file).unwrap();
        assert_eq!((attr.mode, attr.size, attr.uid, attr.nlink), (host.mode(), 11, host.uid(), host.nlink()));
        assert_eq!(attr.mode, 0o100_640);
        assert_eq!((attr.mtime.sec, attr.mtime.nsec), (host.mtime() as u64, host.mtime_nsec() as u64));
        assert_eq!(attr.qid.path, host.ino());
        c.fsync(&file, true).unwrap();
        c.clunk(file).unwrap();
    });
}

#[test]
fn walk_getattr_tells_how_far_it_came_and_why() {
    both(|dir, c, root| {
        std::fs::create_dir_all(dir.join("a/b/c")).unwrap();
        std::fs::write(dir.join("a/f"), "x").unwrap();
        std::os::unix::fs::symlink("a", dir.join("l")).unwrap();
        let whole = c.walk_getattr(root, &[b"a", b"b", b"c"]).unwrap();
        assert_eq!(whole.steps.len(), 3);
        assert!(whole.steps.iter().all(|a| a.qid.kind == QidKind::DIR) && whole.error.is_none());
        assert_eq!(c.getattr(whole.fid.as_ref().unwrap()).unwrap().qid, whole.steps[2].qid);
        let part = c.walk_getattr(root, &[b"a", b"none", b"c"]).unwrap();
        assert_eq!((part.steps.len(), part.error), (1, Some(Errno::NOENT)));
        assert!(part.fid.is_none());
        let through_file = c.walk_getattr(root, &[b"a", b"f", b"c"]).unwrap();
        assert_eq!(through_file.steps.len(), 2);
        let link = c.walk_getattr(root, &[b"l", b"b"]).unwrap();
        assert_eq!((link.steps.len(), link.steps[0].qid.kind), (1, QidKind::SYMLINK));
        let own = c.walk_getattr(root, &[]).unwrap();
        assert_eq!((own.steps.len(), own.steps[0].qid.kind), (1, QidKind::DIR));
        let deep: Vec<&[u8]> = [&b"a"[..], b"b", b"..", b".."].into_iter().cycle().take(40).collect();
        assert!(c.walk(root, &deep).is_ok());
    });
}

/// Names move between exports only where both may be written and the one was given as the other's side.
#[test]
fn names_move_between_exports_that_belong_together() {
    let dir = Scratch::new();
    for name in ["upper", "work", "lower", "other"] {
        std::fs::create_dir(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join("f"), name).unwrap();
    }
    let export = |name: &str, read_only, beside: Option<&str>| cofferdam_gofer::host::Export {
        beside: beside.map(str::to_owned),
        ..files::export(name, &dir.join(name), read_only)
    };
    // One that is only read stays apart, even if it is said to belong there: a link would make its file writable.
    let exports = vec![
        export("upper", false, None),
        export("work", false, Some("upper")),
        export("lower", true, Some("upper")),
        export("other", false, None),
    ];
    let (channel, _session) = files::raw(exports, None, Default::default(), 4096);
    let c = Client::connect(channel, None).unwrap();
    let root = |name: &str| c.attach(format!("export/{name}").as_bytes(), b"", NONUNAME).unwrap().0;
    let (upper, work, lower, other) = (root("upper"), root("work"), root("lower"), root("other"));
    c.mkdir(&work, b"d", 0o755, NONUNAME).unwrap();
    c.renameat(&work, b"d", &upper, b"d", 0).unwrap();
    assert!(dir.join("upper/d").is_dir());
    c.renameat(&work, b"f", &upper, b"f", 2).unwrap();
    assert_eq!(std::fs::read(dir.join("upper/f")).unwrap(), b"work");
    c.link(&work, &c.walk(&upper, &[b"f"]).unwrap(), b"linked").unwrap();
    assert_eq!(std::fs::read(dir.join("work/linked")).unwrap(), b"work");
    // A directory that was moved leads up to where it is now, and no further.
    let up = c.walk(&c.walk(&upper, &[b"d"]).unwrap(), &[b"..", b".."]).unwrap();
    assert_eq!(c.getattr(&up).unwrap().qid, c.getattr(&upper).unwrap().qid);
    for (from, to) in [(&other, &upper), (&upper, &other)] {
        assert_eq!(c.renameat(from, b"f", to, b"moved", 0).unwrap_err(), Errno::XDEV);
        assert_eq!(c.link(to, &c.walk(from, &[b"f"]).unwrap(), b"moved").unwrap_err(), Errno::XDEV);
    }
    assert_eq!(c.link(&upper, &c.walk(&lower, &[b"f"]).unwrap(), b"stolen").unwrap_err(), Errno::XDEV);
    assert_eq!(c.renameat(&lower, b"f", &upper, b"stolen", 0).unwrap_err(), Errno::ROFS);
    assert_eq!(c.renameat(&upper, b"f", &lower, b"in", 0).unwrap_err(), Errno::ROFS);
}

#[test]
fn links_nodes_directories_and_renames() {
    both(|dir, c, root| {
        c.mkdir(root, b"d", 0o751, NONUNAME).unwrap();
        assert_eq!(std::fs::metadata(dir.join("d")).unwrap().permissions().mode() & 0o7777, 0o751);
        assert_eq!(c.mkdir(root, b"d", 0o751, NONUNAME).unwrap_err(), Errno::EXIST);
        c.symlink(root, b"s", b"../etc/\xfe", NONUNAME).unwrap();
        let s = c.walk(root, &[b"s"]).unwrap();
        assert_eq!(c.readlink(&s).unwrap(), b"../etc/\xfe");
        c.mknod(root, b"p", 0o010_600, (0, 0), NONUNAME).unwrap();
        assert!(std::fs::symlink_metadata(dir.join("p")).unwrap().file_type().is_fifo());
        assert_eq!(c.mknod(root, b"dev", 0o020_600, (1, 3), NONUNAME).unwrap_err(), Errno::PERM);
        assert_eq!(c.mknod(root, b"dev", 0o060_600, (0, 0), NONUNAME).unwrap_err(), Errno::PERM);
        // A whiteout is no device.
        c.mknod(root, b"white", 0o020_000, (0, 0), NONUNAME).unwrap();
        assert_eq!(c.getattr(&c.walk(root, &[b"white"]).unwrap()).unwrap().rdev, 0);
        std::fs::write(dir.join("f"), "content").unwrap();
        let f = c.walk(root, &[b"f"]).unwrap();
        let d = c.walk(root, &[b"d"]).unwrap();
        c.link(&d, &f, b"hard").unwrap();
        assert_eq!(c.getattr(&f).unwrap().nlink, 2);
        c.renameat(root, b"f", &d, b"g", 0).unwrap();
        // A fid found under the old name opens under the new one.
        c.lopen(&f, 0).unwrap();
        let mut b = [0; 7];
        assert_eq!((c.read(&f, 0, &mut b).unwrap(), &b), (7, b"content"));
        if c.extended() {
            assert_eq!(c.renameat(&d, b"g", &d, b"hard", 1).unwrap_err(), Errno::EXIST);
            c.renameat(root, b"s", &d, b"g", 2).unwrap();
            assert!(std::fs::symlink_metadata(dir.join("d/g")).unwrap().is_symlink());
        }
        assert_eq!(c.unlinkat(root, b"d", 0x200).unwrap_err(), Errno::NOTEMPTY);
        c.unlinkat(&d, b"g", 0).unwrap();
        c.unlinkat(&d, b"hard", 0).unwrap();
        c.unlinkat(root, b"d", 0x200).unwrap();
        assert!(!dir.join("d").exists());
    });
}

#[test]
fn setattr_changes_what_it_names() {
    both(|dir, c, root| {
        std::fs::write(dir.join("f"), "0123456789").unwrap();
        let f = c.walk(root, &[b"f"]).unwrap();
        let at = Time { sec: 1_000_000_000, nsec: 5 };
        let valid = SetAttrMask::MODE | SetAttrMask::SIZE | SetAttrMask::MTIME | SetAttrMask::MTIME_SET;
        c.setattr(&f, &SetAttr { valid, mode: 0o604, size: 3, mtime: at, ..SetAttr::default() }).unwrap();
        let host = std::fs::metadata(dir.join("f")).unwrap();
        assert_eq!((host.mode() & 0o7777, host.len(), host.mtime(), host.mtime_nsec()), (0o604, 3, 1_000_000_000, 5));
        if rustix::process::geteuid().is_root() {
            let valid = SetAttrMask::UID | SetAttrMask::GID;
            c.setattr(&f, &SetAttr { valid, uid: 12, gid: 34, ..SetAttr::default() }).unwrap();
            let host = std::fs::metadata(dir.join("f")).unwrap();
            assert_eq!((host.uid(), host.gid()), (12, 34));
        }
        let bad = SetAttr {
            valid: SetAttrMask::MTIME | SetAttrMask::MTIME_SET,
            mtime: Time { sec: 0, nsec: u64::MAX },
            ..SetAttr::default()
        };
        assert_eq!(c.setattr(&f, &bad).unwrap_err(), Errno::INVAL);
    });
}

#[test]
fn an_unlinked_open_file_keeps_working() {
    both(|dir, c, root| {
        std::fs::write(dir.join("f"), "old").unwrap();
        let f = c.walk(root, &[b"f"]).unwrap();
        c.lopen(&f, RDWR).unwrap();
        c.unlinkat(root, b"f", 0).unwrap();
        assert_eq!(c.write(&f, 3, b"er").unwrap(), 2);
        let mut b = [0; 8];
        assert_eq!(c.read(&f, 0, &mut b).unwrap(), 5);
        assert_eq!(&b[..5], b"older");
        assert_eq!((c.getattr(&f).unwrap().nlink, c.getattr(&f).unwrap().size), (0, 5));
        c.setattr(
            &f,
            &SetAttr { valid: SetAttrMask::SIZE | SetAttrMask::MODE, mode: 0o600, size: 1, ..SetAttr::default() },
        )
        .unwrap();
        assert_eq!(c.getattr(&f).unwrap().size, 1);
        c.set_xattr(&f, b"user.x", b"y", 0).unwrap_or_else(|e| assert_eq!(e, Errno::OPNOTSUPP));
        // A second fid of it that is not open cannot be opened any more.
        let again = c.walk(&f, &[]).unwrap();
        assert_eq!(c.lopen(&again, 0).unwrap_err(), Errno::STALE);
    });
}

#[test]
fn extended_attributes_are_set_listed_read_and_removed() {
    both(|dir, c, root| {
        std::fs::write(dir.join("f"), "").unwrap();
        let f = c.walk(root, &[b"f"]).unwrap();
        let value = vec![0xa5; 3000];
        c.set_xattr(&f, b"user.one", &value, 0).unwrap();
        assert_eq!(c.set_xattr(&f, b"user.one", b"", 1).unwrap_err(), Errno::EXIST);
        c.set_xattr(&f, b"user.two", b"", 0).unwrap();
        assert_eq!(c.get_xattr(&f, b"user.one").unwrap(), value);
        let mut names: Vec<_> = c.get_xattr(&f, b"").unwrap().split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        names.sort();
        assert_eq!(names, [b"".to_vec(), b"user.one".to_vec(), b"user.two".to_vec()]);
        c.remove_xattr(&f, b"user.one").unwrap();
        assert_eq!(c.get_xattr(&f, b"user.one").unwrap_err(), Errno::NODATA);
        assert_eq!(c.set_xattr(&f, b"trusted.overlay.opaque", b"y", 0).unwrap_err(), Errno::OPNOTSUPP);
        assert_eq!(c.set_xattr(&f, b"security.selinux", b"y", 0).unwrap_err(), Errno::OPNOTSUPP);
    });
}

#[test]
fn record_locks_of_two_fids_stand_in_each_others_way() {
    both(|dir, c, root| {
        std::fs::write(dir.join("f"), "0123456789").unwrap();
        let (a, b) = (c.walk(root, &[b"f"]).unwrap(), c.walk(root, &[b"f"]).unwrap());
        c.lopen(&a, RDWR).unwrap();
        c.lopen(&b, RDWR).unwrap();
        let range = |start, length| Lock { start, length, process: 1 };
        assert!(c.lock(&a, LockKind::WRITE, range(2, 3), b"me").unwrap());
        assert!(!c.lock(&b, LockKind::READ, range(4, 1), b"me").unwrap());
        assert!(c.lock(&b, LockKind::WRITE, range(5, 0), b"me").unwrap());
        let (kind, place) = c.getlock(&b, LockKind::WRITE, range(0, 4), b"me").unwrap();
        assert_eq!((kind, place.start, place.length), (LockKind::WRITE, 2, 3));
        assert!(c.lock(&a, LockKind::UNLOCK, range(0, 0), b"me").unwrap());
        assert!(c.lock(&b, LockKind::READ, range(4, 1), b"me").unwrap());
        assert_eq!(c.lock(&b, LockKind::READ, range(u64::MAX, 1), b"me").unwrap_err(), Errno::INVAL);
    });
}

#[test]
fn a_hundred_thousand_entries_stream_with_and_without_attributes() {
    let dir = Scratch::new();
    const COUNT: usize = 100_000;
    for i in 0..COUNT {
        std::fs::File::create(dir.join(&format!("entry-{i:06}"))).unwrap();
    }
    let served = serve(dir.path(), true);
    let c = &served.client;
    for with_attr in [false, true] {
        let d = c.walk(&served.root, &[]).unwrap();
        c.lopen(&d, 0).unwrap();
        let mut seen = std::collections::HashSet::new();
        let mut offset = 0;
        loop {
            let entries = if with_attr { c.readdir_attr(&d, offset) } else { c.readdir(&d, offset) }.unwrap();
            let Some(last) = entries.last() else { break };
            offset = last.offset;
            for e in entries {
                if e.name != b"." && e.name != b".." {
                    assert_eq!(e.attr.map(|a| a.mode & 0o170_000), with_attr.then_some(0o100_000));
                    assert!(seen.insert(e.name));
                }
            }
        }
        assert_eq!(seen.len(), COUNT);
    }
}

#[test]
fn fill_and_spill_move_content_through_the_window() {
    let dir = Scratch::new();
    let content: Vec<u8> = (0..1_000_003u32).map(|i| (i * 7 + i / 251) as u8).collect();
    std::fs::write(dir.join("f"), &content).unwrap();
    let served = serve(dir.path(), false);
    let (c, w) = (&served.client, &served.window);
    let f = c.walk(&served.root, &[b"f"]).unwrap();
    c.lopen(&f, 0).unwrap();
    assert_eq!(c.fill(&f, 0, 2 << 20, 8192).unwrap() as usize, content.len());
    let mut back = vec![0; content.len()];
    w.read(8192, &mut back).unwrap();
    assert!(back == content);
    assert_eq!(c.fill(&f, 1_000_000, 4096, 0).unwrap(), 3);
    assert_eq!(c.fill(&f, 2_000_000, 4096, 0).unwrap(), 0);
    assert_eq!(c.fill(&f, 0, 4096, (1 << 30) - 4095).unwrap_err(), Errno::INVAL);
    assert_eq!(c.fill(&f, 0, 4096, u64::MAX).unwrap_err(), Errno::INVAL);
    assert_eq!(c.fill(&f, u64::MAX - 5, 4096, 0).unwrap_err(), Errno::INVAL);
    assert_eq!(c.spill(&f, 0, 4096, 0).unwrap_err(), Errno::BADF);
    let g = c.walk(&served.root, &[]).unwrap();
    c.lcreate(&g, b"g", WRONLY, 0o600, NONUNAME).unwrap();
    assert_eq!(c.spill(&g, 0, content.len() as u32, 8192).unwrap() as usize, content.len());
    assert!(std::fs::read(dir.join("g")).unwrap() == content);
    assert_eq!(c.fill(&g, 0, 10, 0).unwrap_err(), Errno::BADF);
}

#[test]
fn refills_are_asked_for_ahead_and_fetched_in_any_order_or_never() {
    let dir = Scratch::new();
    let content: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    std::fs::write(dir.join("f"), &content).unwrap();
    let served = serve(dir.path(), false);
    let (c, w) = (&served.client, &served.window);
    let f = c.walk(&served.root, &[b"f"]).unwrap();
    c.lopen(&f, 0).unwrap();
    let keep = Arc::new(());
    for _ in 0..3 {
        let ask = |i: u64| c.post_refill(&f, i * 1000, 1000, i * 4096, keep.clone());
        let asked: Vec<_> = (0..64).map(|i| ask(i).unwrap()).collect();
        assert_eq!(ask(64).unwrap_err(), Errno::AGAIN);
        assert_eq!(c.getattr(&f).unwrap().size, 100_000);
        for (i, asked) in asked.into_iter().enumerate().rev() {
            if i % 3 == 0 {
                continue;
            }
            assert_eq!(asked.finish(), Ok(1000));
            let mut back = [0; 1000];
            w.read(i as u64 * 4096, &mut back).unwrap();
            assert!(back == content[i * 1000..][..1000]);
        }
        // The server answers in no order: what nobody came for is received along with later answers.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while Arc::strong_count(&keep) > 1 {
            assert!(std::time::Instant::now() < end);
            c.getattr(&f).unwrap();
        }
    }
    let ask = |at, count, window| c.post_refill(&f, at, count, window, keep.clone()).unwrap().finish();
    assert_eq!(ask(99_990, 4096, 8192), Ok(10));
    assert_eq!(ask(200_000, 4096, 8192), Ok(0));
    assert_eq!(ask(0, 4096, (1 << 30) - 4095), Err(Errno::INVAL));
    assert_eq!(ask(0, 4096, u64::MAX), Err(Errno::INVAL));
    assert_eq!(ask(u64::MAX - 5, 4096, 0), Err(Errno::INVAL));
    let d = c.walk(&served.root, &[]).unwrap();
    assert_eq!(c.post_refill(&d, 0, 1, 0, keep.clone()).unwrap().finish(), Err(Errno::BADF));
    let left = c.post_refill(&f, 0, 10, 0, keep.clone()).unwrap();
    c.close();
    assert_eq!(left.finish(), Err(Errno::IO));
    assert!(c.post_refill(&f, 0, 10, 0, keep).is_err());
}

/// A client, and a fid, of a server that answers the first request after Tattach with `answer`, and no other.
fn lying_server(answer: Reply<'static>) -> (Client, Fid) {
    let (near, far) = Channel::pair().unwrap();
    std::thread::spawn(move || {
        let (mut packet, mut out) = (Vec::new(), Vec::new());
        let msize = cofferdam_ninep::codec::MAX_MSIZE;
        let version = Reply::Version { msize, version: cofferdam_ninep::codec::VERSION_EXTENDED };
        let attach = Reply::Attach { qid: Qid { kind: QidKind::FILE, version: 0, path: 1 } };
        for answer in [version, attach, answer] {
            far.recv(&mut packet, 1 << 20).unwrap();
            let (tag, _) = Request::decode(&packet).unwrap();
            answer.encode(tag, &mut out);
            far.send(&out).unwrap();
        }
        while far.recv(&mut packet, 1 << 20).is_ok() {}
    });
    let client = Client::connect(near, Some(Arc::new(Window::create("lied-to", 1 << 20).unwrap()))).unwrap();
    let (fid, _) = client.attach(b"", b"", NONUNAME).unwrap();
    (client, fid)
}

#[test]
fn wrong_answers_to_a_refill_end_the_connection_and_late_ones_find_nobody() {
    for answer in [Reply::Refill { count: 11 }, Reply::Fill { count: 10 }, Reply::Clunk {}] {
        let (c, f) = lying_server(answer);
        let (one, two) = (c.post_refill(&f, 0, 10, 0, Arc::new(())), c.post_refill(&f, 0, 10, 0, Arc::new(())));
        assert_eq!(one.unwrap().finish(), Err(Errno::IO));
        assert_eq!(two.unwrap().finish(), Err(Errno::IO));
        assert_eq!(c.getattr(&f).unwrap_err(), Errno::IO);
    }
    // An answer to what was given up is nobody's: the next request gets none, and ends with the connection.
    let (c, f) = lying_server(Reply::Refill { count: 1 << 31 });
    let keep = Arc::new(());
    drop(c.post_refill(&f, 0, 10, 0, keep.clone()).unwrap());
    let closer = {
        let c = c.clone();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            c.close();
        })
    };
    assert_eq!(c.getattr(&f).unwrap_err(), Errno::IO);
    assert_eq!(Arc::strong_count(&keep), 1);
    closer.join().unwrap();
}

#[test]
fn open_fill_opens_reads_and_describes_in_one_message() {
    let dir = Scratch::new();
    std::fs::write(dir.join("f"), "some text").unwrap();
    std::fs::create_dir(dir.join("d")).unwrap();
    let served = serve(dir.path(), false);
    let c = &served.client;
    let found = c.open_fill(&served.root, b"f", 4096, 0).unwrap();
    assert_eq!((found.open, found.filled, found.attr.size, found.error), (true, 9, 9, None));
    let mut text = [0; 9];
    served.window.read(0, &mut text).unwrap();
    assert_eq!(&text, b"some text");
    assert_eq!(c.read(&found.fid, 5, &mut text).unwrap(), 4);
    let found = c.open_fill(&served.root, b"d", 4096, 0).unwrap();
    assert_eq!((found.open, found.filled, found.attr.qid.kind), (false, 0, QidKind::DIR));
    assert_eq!(c.open_fill(&served.root, b"none", 4096, 0).unwrap_err(), Errno::NOENT);
}

#[test]
fn dropped_fids_are_given_back_in_batches() {
    both(|dir, c, root| {
        std::fs::write(dir.join("f"), "x").unwrap();
        for _ in 0..20_000 {
            drop(c.walk(root, &[b"f"]).unwrap());
        }
        c.clunk_batch();
        let next = c.walk(root, &[b"f"]).unwrap();
        assert!(next.number() < 4096, "fid {}", next.number());
    });
}

#[test]
fn many_threads_share_one_connection() {
    let dir = Scratch::new();
    for i in 0..16 {
        std::fs::write(dir.join(&format!("f{i}")), vec![i as u8; 5000 + i]).unwrap();
    }
    let served = serve(dir.path(), false);
    let (c, root) = (served.client.clone(), Arc::new(served.root));
    let threads: Vec<_> = (0..16usize)
        .map(|i| {
            let (c, root) = (c.clone(), root.clone());
            std::thread::spawn(move || {
                let name = format!("f{i}");
                for _ in 0..300 {
                    let w = c.walk_getattr(&root, &[name.as_bytes()]).unwrap();
                    assert_eq!(w.steps[0].size as usize, 5000 + i);
                    let f = w.fid.unwrap();
                    c.lopen(&f, 0).unwrap();
                    let mut b = vec![0; 6000];
                    assert_eq!(c.read(&f, 0, &mut b).unwrap(), 5000 + i);
                    assert!(b[..5000 + i].iter().all(|x| *x == i as u8));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn statfs_and_allocate() {
    let dir = Scratch::new();
    let served = serve(dir.path(), false);
    let c = &served.client;
    let s = c.statfs(&served.root).unwrap();
    assert!(s.namelen == 255 && s.blocks > 0);
    let f = c.walk(&served.root, &[]).unwrap();
    c.lcreate(&f, b"f", RDWR, 0o600, NONUNAME).unwrap();
    c.allocate(&f, 0, 0, 10_000).unwrap();
    assert_eq!(c.getattr(&f).unwrap().size, 10_000);
    assert_eq!(c.allocate(&f, 0x80, 0, 10).unwrap_err(), Errno::OPNOTSUPP);
}

#[test]
fn a_file_export_is_a_root_that_is_a_file() {
    let dir = Scratch::new();
    std::fs::write(dir.join("f"), "bound").unwrap();
    let fd = rustix::fs::open(dir.join("f"), rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
    let kind = cofferdam_gofer::host::ExportKind::File;
    let exports =
        vec![cofferdam_gofer::host::Export { name: "f".into(), read_only: false, kind, root: fd, beside: None }];
    let (channel, _session) = files::raw(exports, None, Default::default(), 100);
    let c = Client::connect(channel, None).unwrap();
    let (root, qid) = c.attach(b"export/f", b"", NONUNAME).unwrap();
    assert_eq!(qid.kind, QidKind::FILE);
    let f = c.walk(&root, &[]).unwrap();
    c.lopen(&f, RDWR).unwrap();
    assert_eq!(c.write(&f, 5, b"ary").unwrap(), 3);
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"boundary");
    assert_eq!(c.walk(&root, &[b".."]).unwrap_err(), Errno::NOTDIR);
    assert_eq!(c.walk(&root, &[b"x"]).unwrap_err(), Errno::NOTDIR);
    c.setattr(&root, &SetAttr { valid: SetAttrMask::SIZE, size: 2, ..SetAttr::default() }).unwrap();
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"bo");
}
