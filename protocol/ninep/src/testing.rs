//! What the fuzz targets and the replay of their corpus do with an input. Part of no service: feature `testing` only.
//!
//! Owns three drivers, each of which takes any bytes and panics only where the code under test is wrong.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::sync::Mutex;

use cofferdam_transport::Channel;

use crate::client::Client;
use crate::codec::{
    Attr, DirEntries, DirEntry, DirWriter, Lock, LockKind, MAX_XATTR, NONUNAME, Qid, QidKind, Reply, Request, SetAttr,
    StatFs,
};
use crate::errno::Errno;
use crate::server::{Entry, Filesystem, Limits, Session};

/// Decodes as both directions; what decodes must encode to the same bytes (but for the field that Tfsync may leave out).
pub fn codec(bytes: &[u8]) {
    let mut again = Vec::new();
    if let Ok((tag, request)) = Request::decode(bytes) {
        request.encode(tag, &mut again);
        assert!(again == bytes || matches!(request, Request::Fsync { .. }), "{request:?}");
    }
    if let Ok((tag, reply)) = Reply::decode(bytes) {
        reply.encode(tag, &mut again);
        assert!(again == bytes, "{reply:?}");
    }
    for with_attr in [false, true] {
        let entries = DirEntries::new(bytes, with_attr).count();
        assert!(entries <= bytes.len());
    }
}

/// Cuts an input into packets: a 16-bit length before each.
fn packets(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (packet, rest) = rest.split_at(len);
        bytes = rest;
        Some(packet)
    })
}

/// Answers each of a client's requests with the next packet of the input, its tag and length put right or not as the
/// packet's first byte says.
pub fn client(bytes: &[u8]) {
    let (near, far) = Channel::pair().unwrap();
    let packets: Vec<Vec<u8>> = packets(bytes).take(64).map(<[u8]>::to_vec).collect();
    let server = std::thread::spawn(move || {
        let mut request = Vec::new();
        for mut answer in packets {
            if far.recv(&mut request, 1 << 20).is_err() {
                return;
            }
            if answer.first().is_some_and(|b| b % 8 != 7) && answer.len() >= 7 {
                let len = (answer.len() as u32).to_le_bytes();
                answer.splice(0..4, len);
                answer.splice(5..7, request.get(5..7).unwrap_or(&[0, 0]).iter().copied());
            }
            if answer.is_empty() || far.send(&answer).is_err() {
                return;
            }
        }
    });
    if let Ok(c) = Client::connect(near, None) {
        let mut data = [0; 512];
        if let Ok((root, _)) = c.attach(b"export/root", b"", NONUNAME) {
            let _ = c.getattr(&root);
            let _ = c.walk_getattr(&root, &[b"a", b"b"]).map(|w| assert!(w.steps.len() <= 2));
            let _ = c.readdir_attr(&root, 0);
            let _ = c.read(&root, 0, &mut data);
            let _ = c.write(&root, 0, b"data").map(|n| assert!(n <= 4));
            let _ = c.readlink(&root);
            let _ = c.get_xattr(&root, b"user.x").map(|v| assert!(v.len() as u64 <= MAX_XATTR));
            let _ = c.open_fill(&root, b"f", 100, 0).map(|f| assert!(f.filled <= 100));
            let _ = c.statfs(&root);
            c.clunk_batch();
        }
        c.close();
    }
    server.join().unwrap();
}

/// Gives each packet of the input to a server over files in memory; lengths are put right unless the first byte says no.
pub fn server(bytes: &[u8]) {
    let session = Session::new(Memory::default(), Limits { fids: 64, msize: 16384, requests: 8 });
    let mut scratch = Vec::new();
    let hello = |version: &[u8], scratch: &mut Vec<u8>| {
        let mut packet = Vec::new();
        Request::Version { msize: 16384, version }.encode(u16::MAX, &mut packet);
        session.answer(&packet, scratch, |_| Ok(())).unwrap();
        Request::Attach { fid: 0, afid: u32::MAX, uname: b"", aname: b"", uid: 0 }.encode(1, &mut packet);
        session.answer(&packet, scratch, |_| Ok(())).unwrap();
    };
    hello(crate::codec::VERSION_EXTENDED, &mut scratch);
    for packet in packets(bytes).take(256) {
        let mut packet = packet.to_vec();
        if packet.first().is_some_and(|b| b % 8 != 7) && packet.len() >= 4 {
            let len = (packet.len() as u32).to_le_bytes();
            packet.splice(0..4, len);
        }
        let answered = session.answer(&packet, &mut scratch, |reply| {
            assert!(reply.len() <= 16384, "a reply of {} bytes", reply.len());
            Reply::decode(reply).unwrap();
            Ok(())
        });
        assert!(session.fids_in_use() <= 64);
        if answered.is_err() {
            return;
        }
    }
}

/// Files in memory: just enough that every request finds something.
#[derive(Debug, Default)]
struct Memory {
    xattr: Mutex<Vec<u8>>,
}

/// Depth below the root; names that start with `f` are files.
#[derive(Debug)]
struct Place(u64, bool);

fn attr(place: &Place) -> Attr {
    let (kind, mode) = if place.1 { (QidKind::FILE, 0o100_644) } else { (QidKind::DIR, 0o040_755) };
    Attr { mode, qid: Qid { kind, version: 0, path: place.0 }, size: 1000, ..Attr::default() }
}

impl Filesystem for Memory {
    type Node = Place;

    fn attach(&self, _: &[u8], _: u32) -> Result<Entry<Place>, Errno> {
        Ok(Entry { node: Place(0, false), attr: attr(&Place(0, false)) })
    }
    fn clone_node(&self, node: &Place) -> Result<Place, Errno> {
        Ok(Place(node.0, node.1))
    }
    fn walk(&self, from: &Place, name: &[u8]) -> Result<Entry<Place>, Errno> {
        if from.1 {
            return Err(Errno::NOTDIR);
        }
        let node = match name {
            b".." => Place(from.0.saturating_sub(1), false),
            _ => Place(from.0 + 1, name.first() == Some(&b'f')),
        };
        Ok(Entry { attr: attr(&node), node })
    }
    fn getattr(&self, node: &Place) -> Result<Attr, Errno> {
        Ok(attr(node))
    }
    fn setattr(&self, _: &Place, _: &SetAttr) -> Result<(), Errno> {
        Ok(())
    }
    fn open(&self, node: &Place, _: u32) -> Result<Qid, Errno> {
        Ok(attr(node).qid)
    }
    fn create(&self, dir: &Place, _: &[u8], _: u32, _: u32, _: u32) -> Result<Entry<Place>, Errno> {
        let node = Place(dir.0 + 1, true);
        Ok(Entry { attr: attr(&node), node })
    }
    fn read(&self, _: &Place, _: u64, count: u32, to: &mut Vec<u8>) -> Result<(), Errno> {
        to.resize(to.len() + count as usize, 7);
        Ok(())
    }
    fn write(&self, _: &Place, _: u64, data: &[u8]) -> Result<u32, Errno> {
        Ok(data.len() as u32)
    }
    fn fill(&self, _: &Place, _: u64, count: u32, _: u64) -> Result<u32, Errno> {
        Ok(count)
    }
    fn spill(&self, _: &Place, _: u64, count: u32, _: u64) -> Result<u32, Errno> {
        Ok(count)
    }
    fn readdir(&self, node: &Place, offset: u64, to: &mut DirWriter<'_>) -> Result<(), Errno> {
        let mut at = offset;
        let attr = attr(node);
        while at < 1000 && to.push(&DirEntry { qid: attr.qid, offset: at + 1, kind: 4, name: b"d", attr: Some(attr) }) {
            at += 1;
        }
        Ok(())
    }
    fn readlink(&self, _: &Place) -> Result<Vec<u8>, Errno> {
        Ok(vec![b'x'; crate::codec::MAX_TARGET])
    }
    fn symlink(&self, dir: &Place, _: &[u8], _: &[u8], _: u32) -> Result<Qid, Errno> {
        Ok(attr(dir).qid)
    }
    fn mkdir(&self, dir: &Place, _: &[u8], _: u32, _: u32) -> Result<Qid, Errno> {
        Ok(attr(dir).qid)
    }
    fn mknod(&self, dir: &Place, _: &[u8], _: u32, _: (u32, u32), _: u32) -> Result<Qid, Errno> {
        Ok(attr(dir).qid)
    }
    fn link(&self, _: &Place, _: &Place, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn rename(&self, _: &Place, _: &[u8], _: &Place, _: &[u8], _: u32) -> Result<(), Errno> {
        Ok(())
    }
    fn place(&self, node: &Place) -> Result<(Place, Vec<u8>), Errno> {
        Ok((Place(node.0.checked_sub(1).ok_or(Errno::BUSY)?, false), b"f".to_vec()))
    }
    fn unlink(&self, _: &Place, _: &[u8], _: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn fsync(&self, _: &Place, _: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn statfs(&self, _: &Place) -> Result<StatFs, Errno> {
        Ok(StatFs::default())
    }
    fn allocate(&self, _: &Place, _: u32, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn get_xattr(&self, _: &Place, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(self.xattr.lock().unwrap().clone())
    }
    fn list_xattr(&self, _: &Place) -> Result<Vec<u8>, Errno> {
        Ok(b"user.x\0".to_vec())
    }
    fn set_xattr(&self, _: &Place, _: &[u8], value: &[u8], _: u32) -> Result<(), Errno> {
        assert!(value.len() as u64 <= MAX_XATTR);
        *self.xattr.lock().unwrap() = value.to_vec();
        Ok(())
    }
    fn remove_xattr(&self, _: &Place, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn lock(&self, _: &Place, _: LockKind, range: &Lock) -> Result<bool, Errno> {
        Ok(range.start == 0)
    }
    fn getlock(&self, _: &Place, kind: LockKind, range: &Lock) -> Result<(LockKind, Lock), Errno> {
        Ok((kind, *range))
    }
}
