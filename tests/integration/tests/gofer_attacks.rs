//! A hostile client against the Gofer: what it must not get, told in a table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cofferdam_ninep::Errno;
use cofferdam_ninep::client::Client;
use cofferdam_ninep::codec::{
    Data, Fids, MAX_MSIZE, NOFID, NONUNAME, Names, QidKind, Reply, Request, SetAttr, SetAttrMask, VERSION_EXTENDED,
};
use cofferdam_ninep::server::Limits;
use cofferdam_transport::{Channel, TransportError};
use files::{Scratch, serve};

/// A client that says whatever it likes.
struct Raw {
    channel: Channel,
    packet: Vec<u8>,
}

impl Raw {
    fn new(channel: Channel) -> Self {
        let mut raw = Self { channel, packet: Vec::new() };
        raw.ask(u16::MAX, &Request::Version { msize: MAX_MSIZE, version: VERSION_EXTENDED }).unwrap();
        let root = Request::Attach { fid: 0, afid: NOFID, uname: b"", aname: b"export/root", uid: NONUNAME };
        raw.ask(1, &root).unwrap();
        raw
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.channel.send(bytes)?;
        self.channel.recv(&mut self.packet, MAX_MSIZE as usize)
    }

    /// Ok(type) of the answer or the errno in it; panics where the connection is gone.
    fn ask(&mut self, tag: u16, request: &Request<'_>) -> Result<u8, Errno> {
        let mut bytes = Vec::new();
        request.encode(tag, &mut bytes);
        self.say(&bytes).unwrap();
        match Reply::decode(&self.packet).unwrap() {
            (t, Reply::Lerror { errno }) if t == tag => Err(Errno(errno)),
            (t, reply) => {
                assert_eq!(t, tag);
                Ok(reply.code())
            }
        }
    }
}

fn hostile(dir: &Scratch, read_only: bool, limits: Limits, descriptors: usize) -> Raw {
    let (channel, _) = files::raw(vec![files::export("root", dir.path(), read_only)], None, limits, descriptors);
    Raw::new(channel)
}

#[test]
fn no_name_leads_out_of_an_export() {
    let outer = Scratch::new();
    std::fs::create_dir_all(outer.join("in/sub")).unwrap();
    std::fs::write(outer.join("secret"), "s").unwrap();
    for (link, target) in [("abs", "/etc"), ("up", ".."), ("secret", "../secret"), ("proc", "/proc/self/root")] {
        std::os::unix::fs::symlink(target, outer.join("in").join(link)).unwrap();
    }
    let served = serve(&outer.join("in"), false);
    let (c, root) = (&served.client, &served.root);
    let own = c.getattr(root).unwrap().qid.path;
    let up = c.walk(root, &[b".."]).unwrap();
    assert_eq!(c.getattr(&up).unwrap().qid.path, own);
    let up = c.walk(root, &[b"sub", b"..", b"..", b".."]).unwrap();
    assert_eq!(c.getattr(&up).unwrap().qid.path, own);
    let mut table = Vec::new();
    let long = [b'x'; 256];
    let names: [&[u8]; 7] = [b"../secret", b"/etc", b"sub/../..", b"", b"a\0b", &long, b"\0"];
    for name in names {
        table.push((
            format!("walk {:?}", String::from_utf8_lossy(&name[..name.len().min(20)])),
            c.walk(root, &[name]).err(),
        ));
        table.push(("mkdir".into(), c.mkdir(root, name, 0o700, NONUNAME).err()));
        table.push(("symlink".into(), c.symlink(root, name, b"x", NONUNAME).err()));
        table.push(("mknod".into(), c.mknod(root, name, 0o100_600, (0, 0), NONUNAME).err()));
        table.push(("unlink".into(), c.unlinkat(root, name, 0).err()));
        table.push(("rename to".into(), c.renameat(root, b"abs", root, name, 0).err()));
        table.push(("rename from".into(), c.renameat(root, name, root, b"abs", 0).err()));
        let f = c.walk(root, &[]).unwrap();
        table.push(("create".into(), c.lcreate(&f, name, 2, 0o600, NONUNAME).err()));
        table.push(("link".into(), c.link(root, root, name).err()));
        table.push(("open_fill".into(), c.open_fill(root, name, 1, 0).err()));
    }
    for dots in [&b"."[..], b".."] {
        table.push(("rename to dots".into(), c.renameat(root, b"abs", root, dots, 0).err()));
        table.push(("symlink at dots".into(), c.symlink(root, dots, b"x", NONUNAME).err()));
        table.push(("open_fill of dots".into(), c.open_fill(root, dots, 1, 0).err()));
    }
    for op in ["mkdir", "unlink"] {
        let gone = if op == "mkdir" {
            c.mkdir(root, b"..", 0o700, NONUNAME).err()
        } else {
            c.unlinkat(root, b"..", 0x200).err()
        };
        table.push((format!("{op} .."), gone));
    }
    for link in [&b"abs"[..], b"up", b"secret", b"proc"] {
        table.push(("walk through a link".into(), c.walk(root, &[link, b"passwd"]).err()));
        table.push(("walk through a link and up".into(), c.walk(root, &[link, b".."]).err()));
        let fid = c.walk(root, &[link]).unwrap();
        table.push(("open a link".into(), c.lopen(&fid, 0).err()));
        table.push(("list a link".into(), c.readdir(&fid, 0).err()));
        table.push(("create in a link".into(), c.mkdir(&fid, b"x", 0o700, NONUNAME).err()));
        table.push(("xattr of a link".into(), c.set_xattr(&fid, b"user.x", b"y", 0).err()));
        let attr = SetAttr { valid: SetAttrMask::MODE, mode: 0o777, ..SetAttr::default() };
        table.push(("chmod of a link".into(), c.setattr(&fid, &attr).err()));
        let attr = SetAttr { valid: SetAttrMask::SIZE, size: 0, ..SetAttr::default() };
        table.push(("truncate a link".into(), c.setattr(&fid, &attr).err()));
    }
    for (what, refused) in &table {
        println!("{what:40} {}", refused.map_or("GOT THROUGH".into(), |e| e.to_string()));
    }
    assert!(table.iter().all(|(_, refused)| refused.is_some()));
    assert_eq!(std::fs::read(outer.join("secret")).unwrap(), b"s");
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
}

#[test]
fn a_read_only_export_refuses_every_change() {
    let dir = Scratch::new();
    std::fs::write(dir.join("f"), "text").unwrap();
    std::fs::create_dir(dir.join("d")).unwrap();
    let served = serve(dir.path(), true);
    let (c, root) = (&served.client, &served.root);
    let f = c.walk(root, &[b"f"]).unwrap();
    let open = c.walk(root, &[b"f"]).unwrap();
    c.lopen(&open, 0).unwrap();
    let again = || c.walk(root, &[b"f"]).unwrap();
    let set = |valid| SetAttr { valid, ..SetAttr::default() };
    let table = [
        ("open for writing", c.lopen(&again(), 1).err(), Errno::ROFS),
        ("open for both", c.lopen(&again(), 2).err(), Errno::ROFS),
        ("open and truncate", c.lopen(&again(), 0o1000).err(), Errno::INVAL),
        ("write", c.write(&open, 0, b"x").err(), Errno::BADF),
        ("spill", c.spill(&open, 0, 1, 0).err(), Errno::BADF),
        ("allocate", c.allocate(&open, 0, 0, 100).err(), Errno::BADF),
        ("create", c.lcreate(&c.walk(root, &[]).unwrap(), b"n", 2, 0o600, NONUNAME).err(), Errno::ROFS),
        ("mkdir", c.mkdir(root, b"n", 0o700, NONUNAME).err(), Errno::ROFS),
        ("mknod", c.mknod(root, b"n", 0o100_600, (0, 0), NONUNAME).err(), Errno::ROFS),
        ("symlink", c.symlink(root, b"n", b"x", NONUNAME).err(), Errno::ROFS),
        ("link", c.link(root, &f, b"n").err(), Errno::ROFS),
        ("rename", c.renameat(root, b"f", root, b"n", 0).err(), Errno::ROFS),
        ("exchange", c.renameat(root, b"f", root, b"d", 2).err(), Errno::ROFS),
        ("unlink", c.unlinkat(root, b"f", 0).err(), Errno::ROFS),
        ("rmdir", c.unlinkat(root, b"d", 0x200).err(), Errno::ROFS),
        ("chmod", c.setattr(&f, &set(SetAttrMask::MODE)).err(), Errno::ROFS),
        ("chown", c.setattr(&f, &set(SetAttrMask::UID)).err(), Errno::ROFS),
        ("truncate", c.setattr(&open, &set(SetAttrMask::SIZE)).err(), Errno::ROFS),
        ("utimes", c.setattr(&f, &set(SetAttrMask::MTIME)).err(), Errno::ROFS),
        ("set xattr", c.set_xattr(&f, b"user.x", b"y", 0).err(), Errno::ROFS),
        ("remove xattr", c.remove_xattr(&f, b"user.x").err(), Errno::ROFS),
    ];
    for (what, got, _) in &table {
        println!("{what:20} {}", got.map_or("GOT THROUGH".into(), |e| e.to_string()));
    }
    for (what, got, want) in table {
        assert_eq!(got, Some(want), "{what}");
    }
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"text");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn special_files_are_described_and_never_opened() {
    let dir = Scratch::new();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let mut names = vec!["fifo", "socket"];
    let device = rustix::fs::makedev(1, 3);
    if rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("null"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        device,
    )
    .is_ok()
    {
        names.push("null");
    } else {
        println!("no right to make a device here: device not tried");
    }
    let served = serve(dir.path(), false);
    let c = &served.client;
    for name in names {
        for flags in [0, 1, 2] {
            let fid = c.walk(&served.root, &[name.as_bytes()]).unwrap();
            assert_eq!(c.lopen(&fid, flags).unwrap_err(), Errno::NXIO, "{name} {flags}");
        }
        let found = c.open_fill(&served.root, name.as_bytes(), 10, 0).unwrap();
        assert!(!found.open && found.filled == 0);
        let attr = SetAttr { valid: SetAttrMask::SIZE, size: 0, ..SetAttr::default() };
        assert!(c.setattr(&found.fid, &attr).is_err());
    }
}

#[test]
fn pseudo_file_systems_below_an_export_look_empty() {
    let served = serve(std::path::Path::new("/"), true);
    let c = &served.client;
    for name in [&b"proc"[..], b"sys"] {
        assert_eq!(c.walk(&served.root, &[name, b"self"]).unwrap_err(), Errno::NOENT);
        assert_eq!(c.walk(&served.root, &[name, b"kernel"]).unwrap_err(), Errno::NOENT);
        let d = c.walk(&served.root, &[name]).unwrap();
        c.lopen(&d, 0).unwrap();
        assert!(c.readdir(&d, 0).unwrap().is_empty());
        assert_eq!(c.getattr(&d).unwrap().qid.kind, QidKind::DIR);
    }
    assert!(c.walk(&served.root, &[b"etc", b"passwd"]).is_ok());
}

/// A thread swaps a directory and a symbolic link to the outside as fast as it can while the client walks, opens and
/// creates through the name. Whatever comes back lies inside.
#[test]
fn a_directory_that_turns_into_a_link_leads_nowhere() {
    let outer = Scratch::new();
    std::fs::create_dir_all(outer.join("in/flip")).unwrap();
    std::fs::create_dir(outer.join("out")).unwrap();
    std::fs::write(outer.join("in/flip/file"), "inside").unwrap();
    std::fs::write(outer.join("out/file"), "OUTSIDE").unwrap();
    std::os::unix::fs::symlink("../out", outer.join("in/link")).unwrap();
    let inside = outer.join("in");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, inside) = (stop.clone(), inside.clone());
        std::thread::spawn(move || {
            let dir = rustix::fs::open(&inside, rustix::fs::OFlags::PATH, 0.into()).unwrap();
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&dir, "flip", &dir, "link", exchange).unwrap();
                swaps += 1;
            }
            swaps
        })
    };
    let served = serve(&inside, false);
    let (c, root) = (&served.client, &served.root);
    let (mut through, mut refused) = (0u32, 0u32);
    let end = Instant::now() + Duration::from_secs(3);
    let mut i = 0u32;
    while Instant::now() < end {
        i += 1;
        match c.walk(root, &[b"flip", b"file"]) {
            Ok(f) => {
                through += 1;
                if c.lopen(&f, 2).is_ok() {
                    let mut text = [0; 16];
                    let n = c.read(&f, 0, &mut text).unwrap();
                    assert_eq!(&text[..n], b"inside");
                }
            }
            Err(_) => refused += 1,
        }
        if let Ok(d) = c.walk(root, &[b"flip"]) {
            let name = format!("made-{}", i % 8);
            let _ = c.mkdir(&d, name.as_bytes(), 0o700, NONUNAME);
            let _ = c.renameat(&d, name.as_bytes(), &d, b"moved", 0);
            let _ = c.unlinkat(&d, b"moved", 0x200);
            let _ = c.unlinkat(&d, name.as_bytes(), 0x200);
        }
        let _ = c.open_fill(root, b"flip", 16, 0);
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    println!("{swaps} swaps, {through} walks through, {refused} refused");
    assert!(through > 0 && swaps > 100);
    let outside: Vec<_> = std::fs::read_dir(outer.join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["file"]);
    assert_eq!(std::fs::read(outer.join("out/file")).unwrap(), b"OUTSIDE");
}

/// The place of a fid is swapped under it between walk and open: another file must never be taken for it.
#[test]
fn a_file_swapped_under_a_fid_is_stale_not_another() {
    let dir = Scratch::new();
    std::fs::write(dir.join("a"), "a").unwrap();
    std::fs::write(dir.join("b"), "b").unwrap();
    std::os::unix::fs::symlink("b", dir.join("l")).unwrap();
    let served = serve(dir.path(), false);
    let c = &served.client;
    let f = c.walk(&served.root, &[b"a"]).unwrap();
    std::fs::rename(dir.join("b"), dir.join("a")).unwrap();
    assert_eq!(c.lopen(&f, 0).unwrap_err(), Errno::STALE);
    std::fs::rename(dir.join("l"), dir.join("a")).unwrap();
    assert_eq!(c.lopen(&f, 0).unwrap_err(), Errno::STALE);
    std::fs::remove_file(dir.join("a")).unwrap();
    assert_eq!(c.lopen(&f, 0).unwrap_err(), Errno::STALE);
}

#[test]
fn fids_and_descriptors_have_quotas_and_the_session_survives_them() {
    let dir = Scratch::new();
    for i in 0..200 {
        std::fs::write(dir.join(&format!("f{i}")), "").unwrap();
    }
    let mut raw = hostile(&dir, false, Limits { fids: 300, ..Limits::default() }, 100);
    let clone = Names::new(&[]).unwrap();
    let mut last = Ok(0);
    for fid in 1..1000 {
        last = raw.ask(3, &Request::Walk { fid: 0, newfid: fid, names: clone });
    }
    assert_eq!(last, Err(Errno::NFILE));
    raw.ask(3, &Request::ClunkBatch { fids: Fids((1..1000).collect()) }).unwrap();
    let mut last = Ok(0);
    for fid in 1..200 {
        let name = format!("f{fid}");
        let names = [name.as_bytes()];
        last = raw.ask(3, &Request::Walk { fid: 0, newfid: fid, names: Names::new(&names).unwrap() });
    }
    assert_eq!(last, Err(Errno::NFILE));
    raw.ask(3, &Request::ClunkBatch { fids: Fids((1..200).collect()) }).unwrap();
    raw.ask(3, &Request::Walk { fid: 0, newfid: 5, names: Names::new(&[b"f7"]).unwrap() }).unwrap();
}

#[test]
fn wrong_fids_and_counts_are_errors() {
    let dir = Scratch::new();
    std::fs::write(dir.join("f"), "text").unwrap();
    let mut raw = hostile(&dir, false, Limits::default(), 100);
    let f = Names::new(&[b"f"]).unwrap();
    let none = Names::new(&[]).unwrap();
    raw.ask(3, &Request::Walk { fid: 0, newfid: 1, names: f }).unwrap();
    let table = [
        (Request::Walk { fid: 0, newfid: 1, names: f }, Errno::BADF),
        (Request::Walk { fid: 9, newfid: 2, names: f }, Errno::BADF),
        (Request::Walk { fid: 0, newfid: NOFID, names: none }, Errno::BADF),
        (Request::Attach { fid: 1, afid: NOFID, uname: b"", aname: b"root", uid: 0 }, Errno::BADF),
        (Request::Attach { fid: 7, afid: NOFID, uname: b"", aname: b"export/../x", uid: 0 }, Errno::NOENT),
        (Request::Auth { afid: 3, uname: b"", aname: b"", uid: 0 }, Errno::NOENT),
        (Request::Getattr { fid: 77, mask: 0 }, Errno::BADF),
        (Request::Read { fid: 1, offset: 0, count: 10 }, Errno::BADF),
        (Request::Write { fid: 1, offset: 0, data: Data(b"x") }, Errno::BADF),
        (Request::Clunk { fid: 77 }, Errno::BADF),
        (Request::Readdir { fid: 1, offset: 0, count: 100 }, Errno::BADF),
        (Request::XattrWalk { fid: 1, newfid: 1, name: b"user.x" }, Errno::BADF),
        (Request::XattrCreate { fid: 1, name: b"user.x", size: u64::MAX, flags: 0 }, Errno::INVAL),
        (Request::Fill { fid: 1, offset: 0, count: u32::MAX, window: u64::MAX }, Errno::BADF),
        (Request::Refill { fid: 1, offset: 0, count: u32::MAX, window: u64::MAX }, Errno::BADF),
        (Request::Renameat2 { olddir: 0, oldname: b"f", newdir: 0, newname: b"g", flags: 4 }, Errno::INVAL),
        (Request::Remove { fid: 0 }, Errno::BUSY),
    ];
    for (request, want) in table {
        assert_eq!(raw.ask(4, &request), Err(want), "{request:?}");
    }
    raw.ask(5, &Request::Attach { fid: 0, afid: NOFID, uname: b"", aname: b"root", uid: 0 }).unwrap();
    raw.ask(5, &Request::Lopen { fid: 1, flags: 0 }).unwrap();
    assert_eq!(raw.ask(5, &Request::Lopen { fid: 1, flags: 0 }), Err(Errno::BUSY));
    raw.ask(5, &Request::Read { fid: 1, offset: 0, count: u32::MAX }).unwrap();
    assert_eq!(raw.packet.len(), 11 + 4);
    assert_eq!(raw.ask(5, &Request::Read { fid: 1, offset: u64::MAX, count: 1 }), Err(Errno::INVAL));
    // Types that are none are refused; the session goes on.
    raw.say(&[7, 0, 0, 0, 250, 9, 0]).unwrap();
    assert!(matches!(Reply::decode(&raw.packet).unwrap(), (9, Reply::Lerror { errno: 95 })));
    assert_eq!(raw.ask(5, &Request::Clunk { fid: 1 }), Ok(121));
}

#[test]
fn broken_messages_end_their_session_and_no_other() {
    let dir = Scratch::new();
    let other = serve(dir.path(), false);
    let too_many_names: Vec<u8> = [&[0u8; 4][..], &[110, 1, 0], &[0; 8], &[17, 0], &[0; 34]].concat();
    let mut cases: Vec<Vec<u8>> = vec![
        vec![1],
        vec![7, 0, 0, 0, 120, 1],
        vec![8, 0, 0, 0, 120, 1, 0],
        vec![7, 0, 0, 0, 120, 1, 0],
        vec![12, 0, 0, 0, 120, 1, 0, 0, 0, 0, 0, 9],
        vec![255; 64],
        vec![7, 0, 0, 0, 121, 1, 0],
        too_many_names,
    ];
    if let Some(last) = cases.last_mut() {
        let len = last.len() as u32;
        last[..4].copy_from_slice(&len.to_le_bytes());
    }
    cases.push(vec![0; MAX_MSIZE as usize + 1]);
    for case in cases {
        let mut raw = hostile(&dir, false, Limits::default(), 100);
        assert!(matches!(raw.say(&case), Err(TransportError::Closed)), "{:?}", &case[..case.len().min(20)]);
        assert!(other.client.getattr(&other.root).is_ok());
    }
}

#[test]
fn a_client_that_hangs_up_in_the_middle_leaves_nothing_behind() {
    let dir = Scratch::new();
    let (channel, session) = files::raw(vec![files::export("root", dir.path(), false)], None, Limits::default(), 100);
    let client = Client::connect(channel, None).unwrap();
    let (root, _) = client.attach(b"root", b"", NONUNAME).unwrap();
    let weak = Arc::downgrade(&session);
    drop(session);
    client.close();
    drop(root);
    let end = Instant::now() + Duration::from_secs(10);
    while weak.upgrade().is_some() {
        assert!(Instant::now() < end, "workers still hold the session");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.attach(b"root", b"", NONUNAME).unwrap_err(), Errno::IO);
}

/// A chain of directories as deep as the quota allows is let go of without running out of stack.
#[test]
fn a_very_deep_chain_of_directories_is_dropped() {
    let dir = Scratch::new();
    let (channel, session) = files::raw(vec![files::export("root", dir.path(), false)], None, Limits::default(), 6000);
    let c = Client::connect(channel, None).unwrap();
    let (root, _) = c.attach(b"root", b"", NONUNAME).unwrap();
    let mut at = c.walk(&root, &[]).unwrap();
    for _ in 0..5000 {
        c.mkdir(&at, b"d", 0o700, NONUNAME).unwrap();
        at = c.walk(&at, &[b"d"]).unwrap();
    }
    drop(at);
    c.clunk_batch();
    assert!(c.getattr(&root).is_ok());
    assert!(session.fids_in_use() < 100);
}
