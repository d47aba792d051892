//! Every message there and back, and every message broken in every place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use cofferdam_ninep::codec::{
    Attr, Data, DataSync, DecodeError, Fids, Lock, LockKind, MAX_BATCH, MAX_WALK, Names, Qid, QidKind, Qids, Reply,
    Request, SetAttr, StatFs, Steps, Time,
};

fn qid() -> Qid {
    Qid { kind: QidKind::DIR, version: 0x0102_0304, path: 0x1122_3344_5566_7788 }
}

fn attr() -> Attr {
    let time = |n| Time { sec: n, nsec: n + 1 };
    Attr {
        valid: 0x7ff,
        qid: qid(),
        mode: 0o100_644,
        uid: 1,
        gid: 2,
        nlink: 3,
        rdev: 4,
        size: 5,
        blksize: 6,
        blocks: 7,
        atime: time(8),
        mtime: time(10),
        ctime: time(12),
        btime: time(14),
        generation: 16,
        data_version: 17,
    }
}

/// One of each.
fn requests() -> Vec<Request<'static>> {
    let (name, data) = (&b"na\xffme"[..], Data(b"data\0"));
    let names = Names::new(&[b"one", b"\xfe", b""]).unwrap();
    let range = Lock { start: 1, length: 2, process: 3 };
    let time = Time { sec: 4, nsec: 5 };
    let set = SetAttr { valid: 1, mode: 2, uid: 3, gid: 4, size: 5, atime: time, mtime: time };
    vec![
        Request::StatFs { fid: 1 },
        Request::Lopen { fid: 1, flags: 2 },
        Request::Lcreate { fid: 1, name, flags: 2, mode: 3, gid: 4 },
        Request::Symlink { dir: 1, name, target: b"../x", gid: 2 },
        Request::Mknod { dir: 1, name, mode: 2, major: 3, minor: 4, gid: 5 },
        Request::Rename { fid: 1, dir: 2, name },
        Request::Readlink { fid: 1 },
        Request::Getattr { fid: 1, mask: 2 },
        Request::Setattr { fid: 1, attr: set },
        Request::XattrWalk { fid: 1, newfid: 2, name },
        Request::XattrCreate { fid: 1, name, size: 2, flags: 3 },
        Request::Readdir { fid: 1, offset: 2, count: 3 },
        Request::Fsync { fid: 1, datasync: DataSync(2) },
        Request::Lock { fid: 1, kind: LockKind::WRITE, flags: 2, range, client: name },
        Request::Getlock { fid: 1, kind: LockKind::READ, range, client: name },
        Request::Link { dir: 1, fid: 2, name },
        Request::Mkdir { dir: 1, name, mode: 2, gid: 3 },
        Request::Renameat { olddir: 1, oldname: name, newdir: 2, newname: b"b" },
        Request::Unlinkat { dir: 1, name, flags: 2 },
        Request::Version { msize: 1, version: b"9P2000.L" },
        Request::Auth { afid: 1, uname: name, aname: name, uid: 2 },
        Request::Attach { fid: 1, afid: 2, uname: name, aname: name, uid: 3 },
        Request::Flush { oldtag: 1 },
        Request::Walk { fid: 1, newfid: 2, names },
        Request::Read { fid: 1, offset: 2, count: 3 },
        Request::Write { fid: 1, offset: 2, data },
        Request::Clunk { fid: 1 },
        Request::Remove { fid: 1 },
        Request::WalkGetattr { fid: 1, newfid: 2, names },
        Request::ReaddirAttr { fid: 1, offset: 2, count: 3 },
        Request::ClunkBatch { fids: Fids(vec![1, 2, u32::MAX]) },
        Request::Fill { fid: 1, offset: 2, count: 3, window: 4 },
        Request::Spill { fid: 1, offset: 2, count: 3, window: 4 },
        Request::OpenFill { fid: 1, newfid: 2, name, count: 3, window: 4 },
        Request::TtySize { fid: 1 },
        Request::Allocate { fid: 1, mode: 2, offset: 3, length: 4 },
        Request::Renameat2 { olddir: 1, oldname: name, newdir: 2, newname: b"b", flags: 3 },
        Request::Refill { fid: 1, offset: 2, count: 3, window: 4 },
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let data = Data(b"data\0");
    let range = Lock { start: 1, length: 2, process: 3 };
    let statfs = StatFs { kind: 1, bsize: 2, blocks: 3, bfree: 4, bavail: 5, files: 6, ffree: 7, fsid: 8, namelen: 9 };
    vec![
        Reply::Lerror { errno: 2 },
        Reply::StatFs { statfs },
        Reply::Lopen { qid: qid(), iounit: 1 },
        Reply::Lcreate { qid: qid(), iounit: 1 },
        Reply::Symlink { qid: qid() },
        Reply::Mknod { qid: qid() },
        Reply::Rename {},
        Reply::Readlink { target: b"../\xff" },
        Reply::Getattr { attr: attr() },
        Reply::Setattr {},
        Reply::XattrWalk { size: 1 },
        Reply::XattrCreate {},
        Reply::Readdir { data },
        Reply::Fsync {},
        Reply::Lock { status: 1 },
        Reply::Getlock { kind: LockKind::UNLOCK, range, client: b"c" },
        Reply::Link {},
        Reply::Mkdir { qid: qid() },
        Reply::Renameat {},
        Reply::Unlinkat {},
        Reply::Version { msize: 1, version: b"unknown" },
        Reply::Auth { qid: qid() },
        Reply::Attach { qid: qid() },
        Reply::Flush {},
        Reply::Walk { qids: Qids(vec![qid(), qid()]) },
        Reply::Read { data },
        Reply::Write { count: 1 },
        Reply::Clunk {},
        Reply::Remove {},
        Reply::WalkGetattr { errno: 2, steps: Steps(vec![attr(), attr()]) },
        Reply::ReaddirAttr { data },
        Reply::ClunkBatch {},
        Reply::Fill { count: 1 },
        Reply::Spill { count: 1 },
        Reply::OpenFill { attr: attr(), opened: 1, errno: 2, count: 3 },
        Reply::TtySize { terminal: 1, rows: 2, columns: 3 },
        Reply::Allocate {},
        Reply::Renameat2 {},
        Reply::Refill { count: 1 },
    ]
}

/// All the ways to break one packet: `decode` must refuse each.
fn broken_everywhere(packet: &[u8], code: u8, decode: impl Fn(&[u8]) -> Result<u16, DecodeError>) {
    let fix = |bytes: &mut Vec<u8>| {
        let len = (bytes.len() as u32).to_le_bytes();
        bytes[..4].copy_from_slice(&len);
    };
    for cut in 0..packet.len() {
        // Cut short, with the length word as it was and as it would have to be.
        assert!(decode(&packet[..cut]).is_err(), "type {code} cut at {cut}");
        if cut >= 7 {
            let mut short = packet[..cut].to_vec();
            fix(&mut short);
            // Tfsync's last field may be missing, as old clients leave it out.
            if !(code == 50 && cut == 11) {
                assert!(decode(&short).is_err(), "type {code} shortened to {cut}");
            }
        }
    }
    let mut long = packet.to_vec();
    long.push(0);
    assert!(matches!(decode(&long), Err(DecodeError::Length { .. })));
    fix(&mut long);
    assert!(matches!(decode(&long), Err(DecodeError::Trailing { left: 1, .. })), "type {code} with a byte too many");
    for wrong in [0, 6, u32::MAX] {
        let mut bytes = packet.to_vec();
        bytes[..4].copy_from_slice(&wrong.to_le_bytes());
        assert!(decode(&bytes).is_err());
    }
}

#[test]
fn every_request_comes_back_as_it_went_and_broken_ones_are_refused() {
    let all = requests();
    assert_eq!(all.iter().map(Request::code).collect::<Vec<_>>(), Request::ALL.iter().map(|a| a.0).collect::<Vec<_>>());
    let mut packet = Vec::new();
    for request in all {
        request.encode(0xabcd, &mut packet);
        assert_eq!(Request::decode(&packet), Ok((0xabcd, request.clone())));
        assert!(Reply::decode(&packet).is_err(), "a request passes for a reply: {request:?}");
        broken_everywhere(&packet, request.code(), |bytes| Request::decode(bytes).map(|m| m.0));
    }
}

#[test]
fn every_reply_comes_back_as_it_went_and_broken_ones_are_refused() {
    let all = replies();
    assert_eq!(all.iter().map(Reply::code).collect::<Vec<_>>(), Reply::ALL.iter().map(|a| a.0).collect::<Vec<_>>());
    let mut packet = Vec::new();
    for reply in all {
        reply.encode(7, &mut packet);
        assert_eq!(Reply::decode(&packet), Ok((7, reply.clone())));
        assert!(Request::decode(&packet).is_err(), "a reply passes for a request: {reply:?}");
        broken_everywhere(&packet, reply.code(), |bytes| Reply::decode(bytes).map(|m| m.0));
    }
}

#[test]
fn counts_above_the_caps_are_refused_before_anything_is_made_of_them() {
    let message = |code: u8, body: &[u8]| {
        let mut bytes = (7 + body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[code, 1, 0]);
        bytes.extend_from_slice(body);
        bytes
    };
    let count = |n: usize| (n as u16).to_le_bytes();
    let names = [&[0; 8][..], &count(MAX_WALK + 1), &[0; 2 * (MAX_WALK + 1)]].concat();
    for code in [110, 200] {
        assert!(matches!(Request::decode(&message(code, &names)), Err(DecodeError::Count { count: 17, .. })));
    }
    let fids = [&count(MAX_BATCH + 1)[..], &vec![0; 4 * (MAX_BATCH + 1)]].concat();
    assert!(matches!(Request::decode(&message(204, &fids)), Err(DecodeError::Count { .. })));
    let qids = [&count(MAX_WALK + 1)[..], &[0; 13 * (MAX_WALK + 1)]].concat();
    assert!(matches!(Reply::decode(&message(111, &qids)), Err(DecodeError::Count { .. })));
    // A length inside a message that says more than there is.
    assert!(Request::decode(&message(118, &[&[0; 12][..], &[255; 4], b"data"].concat())).is_err());
    assert!(Reply::decode(&message(117, &[&[255; 4][..], b"data"].concat())).is_err());
}

#[test]
fn an_fsync_without_its_second_field_is_a_full_sync() {
    let packet = [11, 0, 0, 0, 50, 1, 0, 9, 0, 0, 0];
    assert_eq!(Request::decode(&packet), Ok((1, Request::Fsync { fid: 9, datasync: DataSync(0) })));
}

#[test]
fn the_bytes_of_known_messages_are_the_protocols() {
    let mut packet = Vec::new();
    Request::Version { msize: 8192, version: b"9P2000.L" }.encode(0xffff, &mut packet);
    assert_eq!(packet, b"\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\09P2000.L");
    Request::Walk { fid: 1, newfid: 2, names: Names::new(&[b"ab"]).unwrap() }.encode(3, &mut packet);
    assert_eq!(packet, b"\x15\0\0\0\x6e\x03\0\x01\0\0\0\x02\0\0\0\x01\0\x02\0ab");
}
