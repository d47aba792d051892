//! The fuzz targets without a fuzzer: the seed corpus, and some thousand mutations of it, on every `cargo test`.
//!
//! `COFFERDAM_WRITE_CORPUS=1` writes the seeds anew (after a change of the protocol).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::path::{Path, PathBuf};

use cofferdam_ninep::codec::{Attr, Data, Names, Qids, Reply, Request, Steps, VERSION_EXTENDED};
use cofferdam_ninep::testing;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// xorshift64*: the same mutations at every run, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next() as u8),
                4 if bytes.len() >= at + 4 => bytes[at..at + 4].fill(0xff),
                _ => {
                    let from = self.below(other.len());
                    let part = &other[from..(from + self.below(64)).min(other.len())];
                    bytes.splice(at..at, part.iter().copied());
                }
            }
        }
    }
}

fn replay(target: &str, mutations: usize, drive: fn(&[u8])) {
    let mut seeds: Vec<_> = std::fs::read_dir(corpus(target)).unwrap().map(|e| e.unwrap().path()).collect();
    seeds.sort();
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(seeds.len() >= 3, "no corpus for {target}");
    seeds.iter().for_each(|seed| drive(seed));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..mutations {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = random.below(seeds.len());
        random.mutate(&mut bytes, &seeds[other]);
        drive(&bytes);
    }
}

#[test]
fn codec() {
    replay("ninep_codec", 20_000, testing::codec);
}

#[test]
fn client() {
    replay("ninep_client", 3_000, testing::client);
}

#[test]
fn server() {
    replay("ninep_server", 10_000, testing::server);
}

#[test]
fn netd() {
    replay("netd", 20_000, cofferdam_netd::testing::hostile);
}

#[test]
fn netd_user() {
    replay("netd_user", 20_000, cofferdam_netd::hosted::testing::hostile);
}

#[test]
fn tcp() {
    replay("tcp", 5_000, cofferdam_tcp::testing::engine);
}

fn packet(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_le_bytes()[..], message].concat()
}

fn session(requests: &[Request<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    requests
        .iter()
        .flat_map(|r| {
            r.encode(3, &mut bytes);
            packet(&bytes)
        })
        .collect()
}

fn answers(replies: &[Reply<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    replies
        .iter()
        .flat_map(|r| {
            r.encode(0, &mut bytes);
            packet(&bytes)
        })
        .collect()
}

#[test]
fn seeds_are_written_when_asked_for() {
    if std::env::var_os("COFFERDAM_WRITE_CORPUS").is_none() {
        assert!(corpus("ninep_codec").exists());
        return;
    }
    let write = |target: &str, name: String, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), bytes).unwrap();
    };
    let f = Names::new(&[b"f"]).unwrap();
    let deep = Names::new(&[b"a", b"b", b".."]).unwrap();
    let requests = [
        Request::Walk { fid: 0, newfid: 1, names: f },
        Request::WalkGetattr { fid: 0, newfid: 2, names: deep },
        Request::Lopen { fid: 1, flags: 0 },
        Request::Read { fid: 1, offset: 0, count: 100 },
        Request::Write { fid: 1, offset: 5, data: Data(b"data") },
        Request::Readdir { fid: 2, offset: 0, count: 8000 },
        Request::ReaddirAttr { fid: 2, offset: 0, count: 16000 },
        Request::XattrWalk { fid: 1, newfid: 3, name: b"user.x" },
        Request::XattrCreate { fid: 1, name: b"user.x", size: 4, flags: 0 },
        Request::Write { fid: 1, offset: 0, data: Data(b"valu") },
        Request::Clunk { fid: 1 },
        Request::OpenFill { fid: 0, newfid: 1, name: b"f", count: 4096, window: 0 },
        Request::Flush { oldtag: 3 },
        Request::Remove { fid: 1 },
        Request::ClunkBatch { fids: cofferdam_ninep::codec::Fids(vec![1, 2, 3]) },
    ];
    write("ninep_server", "all".into(), &session(&requests));
    for (i, request) in requests.iter().enumerate() {
        write("ninep_server", format!("one-{i:02}"), &session(&requests[..=i]));
        let mut bytes = Vec::new();
        request.encode(i as u16, &mut bytes);
        write("ninep_codec", format!("request-{i:02}"), &bytes);
    }
    let qid = Attr::default().qid;
    let attr = Attr { mode: 0o100_644, size: 50, ..Attr::default() };
    let replies = [
        Reply::Version { msize: 8192, version: VERSION_EXTENDED },
        Reply::Attach { qid },
        Reply::Getattr { attr },
        Reply::WalkGetattr { errno: 0, steps: Steps(vec![attr, attr]) },
        Reply::ReaddirAttr { data: Data(&[0; 24]) },
        Reply::Read { data: Data(b"data") },
        Reply::Write { count: 4 },
        Reply::Readlink { target: b"target" },
        Reply::XattrWalk { size: 4 },
        Reply::Read { data: Data(b"valu") },
        Reply::OpenFill { attr, opened: 1, errno: 0, count: 50 },
        Reply::StatFs { statfs: Default::default() },
        Reply::Walk { qids: Qids(vec![qid]) },
        Reply::Lerror { errno: 2 },
    ];
    write("ninep_client", "extended".into(), &answers(&replies));
    let plain = [&[Reply::Version { msize: 8192, version: b"9P2000.L" }], &replies[1..]].concat();
    write("ninep_client", "plain".into(), &answers(&plain));
    for (i, reply) in replies.iter().enumerate() {
        let mut wrong = replies.to_vec();
        wrong[i] = Reply::Lerror { errno: 5 };
        write("ninep_client", format!("error-{i:02}"), &answers(&wrong));
        let mut bytes = Vec::new();
        reply.encode(i as u16, &mut bytes);
        write("ninep_codec", format!("reply-{i:02}"), &bytes);
    }
}
