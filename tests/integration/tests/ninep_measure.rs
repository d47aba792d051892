//! Figures, not judgements: run with `--release -- --ignored --nocapture --test-threads 1`, on one core with `taskset -c 0`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::time::Instant;

use cofferdam_ninep::client::{Client, Fid};
use files::{Scratch, serve};

fn time(what: &str, times: u32, mut one: impl FnMut()) {
    for _ in 0..times / 10 {
        one();
    }
    let mut all: Vec<u64> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            one();
            begin.elapsed().as_nanos() as u64
        })
        .collect();
    all.sort_unstable();
    println!(
        "{what:45} median {:>9.2} us   p99 {:>9.2} us",
        all[all.len() / 2] as f64 / 1e3,
        all[all.len() * 99 / 100] as f64 / 1e3
    );
}

fn keep<T>(value: T) {
    std::hint::black_box(value);
}

fn find(c: &Client, dir: &Fid, count: &mut u64) {
    if c.lopen(dir, 0).is_err() {
        return;
    }
    let (mut offset, mut below) = (0, Vec::new());
    loop {
        let entries = c.readdir_attr(dir, offset).unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        for e in entries {
            if e.name != b"." && e.name != b".." {
                *count += 1;
                if e.kind == 4 {
                    below.push(e.name);
                }
            }
        }
    }
    for name in below {
        if let Ok(sub) = c.walk(dir, &[&name]) {
            find(c, &sub, count);
        }
    }
}

#[test]
#[ignore = "prints figures; judges nothing"]
fn figures() {
    let dir = Scratch::new();
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("a/b/small"), vec![1; 4096]).unwrap();
    std::fs::write(dir.join("big"), vec![1; 1 << 20]).unwrap();
    let s = serve(dir.path(), false);
    let c = &s.client;
    time("getattr", 20_000, || keep(c.getattr(&s.root).unwrap()));
    time("walk_getattr of 1 name", 20_000, || keep(c.walk_getattr(&s.root, &[b"a"]).unwrap()));
    time("walk_getattr of 3 names", 20_000, || keep(c.walk_getattr(&s.root, &[b"a", b"b", b"small"]).unwrap()));
    time("walk_getattr of a missing name", 20_000, || keep(c.walk_getattr(&s.root, &[b"none"]).unwrap()));
    let b = c.walk(&s.root, &[b"a", b"b"]).unwrap();
    time("open_fill of a 4 KiB file", 20_000, || keep(c.open_fill(&b, b"small", 4096, 0).unwrap()));
    let small = c.walk(&b, &[b"small"]).unwrap();
    c.lopen(&small, 2).unwrap();
    let big = c.walk(&s.root, &[b"big"]).unwrap();
    c.lopen(&big, 2).unwrap();
    let mut buffer = vec![0; 65536];
    time("read of 4 KiB", 20_000, || keep(c.read(&small, 0, &mut buffer[..4096]).unwrap()));
    time("read of 64 KiB", 5_000, || keep(c.read(&big, 0, &mut buffer).unwrap()));
    time("fill of 4 KiB", 20_000, || keep(c.fill(&small, 0, 4096, 0).unwrap()));
    time("fill of 1 MiB, pages there", 1_000, || keep(c.fill(&big, 0, 1 << 20, 1 << 20).unwrap()));
    let mut at = 1 << 22;
    time("fill of 1 MiB, new pages", 400, || {
        c.fill(&big, 0, 1 << 20, at).unwrap();
        at += 1 << 20;
    });
    time("spill of 4 KiB", 20_000, || keep(c.spill(&small, 0, 4096, 0).unwrap()));
    time("spill of 1 MiB", 500, || keep(c.spill(&big, 0, 1 << 20, 1 << 20).unwrap()));
    drop(s);

    let s = serve(std::path::Path::new("/usr"), true);
    for pass in ["first", "second"] {
        let begin = Instant::now();
        let mut count = 0;
        let top = s.client.walk(&s.root, &[]).unwrap();
        find(&s.client, &top, &mut count);
        let ours = begin.elapsed();
        let begin = Instant::now();
        let native = std::process::Command::new("find").args(["/usr", "-size", "+1000000"]).output().unwrap();
        println!(
            "{pass} walk of /usr with attributes: {count} entries in {ours:?}; native find -size: {:?}",
            begin.elapsed()
        );
        assert!(native.status.success());
    }
}
