//! A process's memory: how much there is and which (`maps`, `smaps`, `smaps_rollup`, `numa_maps`, `map_files`), and what lies
//! in it (`cmdline`, `environ`, `auxv`).
//!
//! The host says which pages are there (`memory::resident`), and not whose they are as well: a page of an object is taken to be shared by
//! all that have that part of it mapped (`memory::sharers`), and a private page of a file to be the file's though it may have been
//! written to.

use std::fmt::Write;
use std::sync::Arc;

use super::{Subject, node, text};
use crate::errno::Errno;
use crate::filesystems::proc::entry;
use crate::filesystems::pseudo::{Body, PseudoFs};
use crate::memory::resident::{self, IN_TEXT, is_shared_memory};
use crate::memory::sharers::Sharers;
use crate::memory::store::PAGE;
use crate::memory::vma::{Backing, EXEC, READ, Vma, WRITE};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::caller::Caller;
use crate::vfs::inode::{FileType, InodeRef, Link, split_dev};

/// What a process's memory is made of, bytes.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) total: u64,
    /// The most that `total` ever was.
    pub(super) peak: u64,
    pub(super) locked: u64,
    /// Resident: private memory, pages of files, shared memory.
    pub(super) anonymous: u64,
    pub(super) file: u64,
    pub(super) shared: u64,
    /// Private and writable.
    pub(super) data: u64,
    pub(super) stack: u64,
    /// The program's own code, and others'.
    pub(super) code: u64,
    pub(super) library: u64,
}

impl Memory {
    pub(super) fn of(task: &Task) -> Self {
        let mm = task.mm();
        let (from, to) = mm.layout().code;
        let page = |a: u64| a & !(PAGE - 1);
        let mut m = Self { code: page(to.saturating_add(PAGE - 1)).saturating_sub(page(from)), ..Self::default() };
        let sums = mm.sums();
        (m.total, m.locked) = (sums.space, sums.locked);
        for a in mm.areas() {
            let object = matches!(a.backing, Backing::Object { .. });
            match (a.name == "[stack]", a.prot & WRITE != 0 && !a.shared, a.prot & EXEC != 0 && object) {
                (true, ..) => m.stack += a.len(),
                (_, true, _) => m.data += a.len(),
                (_, _, true) => m.library += a.len(),
                _ => {}
            }
        }
        m.peak = mm.peak().max(m.total);
        m.library = m.library.saturating_sub(m.code);
        let resident = resident::of(task, IN_TEXT);
        (m.anonymous, m.file, m.shared) = (resident.anonymous, resident.file, resident.shared);
        m
    }

    pub(super) fn touched(&self) -> u64 {
        self.anonymous + self.file + self.shared
    }
}

/// Bytes of the process's memory between two addresses, as far as they can be read.
fn memory(task: &Task, (from, to): (u64, u64)) -> Result<Vec<u8>, Errno> {
    task.has_memory()?;
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(1 << 21);
    let mut v = vec![0; len];
    let n = task.read_memory(from, &mut v).unwrap_or(0);
    v.truncate(n);
    Ok(v)
}

pub(super) fn cmdline(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Ok(task) = s.task() else { return Ok(Vec::new()) };
    let layout = task.mm().layout();
    let (from, end) = layout.args;
    let plain = memory(&task, (from, end))?;
    if plain.last().is_none_or(|last| *last == 0) || plain.len() as u64 != end.saturating_sub(from) {
        return Ok(plain);
    }
    // The arguments were overwritten by a title (setproctitle(3)): one string, which may go on into the environment.
    let end = if layout.env.0 == end { layout.env.1.max(end) } else { end };
    let mut title = memory(&task, (from, end.min(from.saturating_add(PAGE))))?;
    let len = title.iter().position(|b| *b == 0).map_or(title.len(), |nul| nul + 1);
    title.truncate(len);
    Ok(title)
}

pub(super) fn environ(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let range = task.mm().layout().env;
    memory(&task, range)
}

pub(super) fn auxv(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    Ok(s.open_to(caller)?.map(|t| t.mm().layout().auxv).unwrap_or_default())
}

pub(super) fn maps(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    with_vdso(&task, task.mm().areas().iter(), &mut |shown| match shown {
        Shown::Area(a) => out.extend_from_slice(&line(a)),
        Shown::Vdso(at, len) => out.extend_from_slice(&vdso_line(at, len)),
    });
    Ok(out)
}

pub(super) fn smaps(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let areas = task.mm().areas();
    let mut resident = resident::of_areas(&task, &areas, IN_TEXT).into_iter();
    let sharers = Sharers::of(task.kernel());
    let mut out = Vec::new();
    with_vdso(&task, areas.iter(), &mut |shown| {
        let (line, len, figures, flags) = match shown {
            Shown::Area(a) => (line(a), a.len(), Figures::of(a, resident.next().unwrap_or(0), &sharers), flags(a)),
            // Code that all processes share, and the host's.
            Shown::Vdso(at, len) => {
                let figures = Figures { rss: len, clean: [len, 0], ..Figures::default() };
                (vdso_line(at, len), len, figures, String::from("rd ex mr mw me de "))
            }
        };
        out.extend_from_slice(&line);
        let mut t = String::new();
        for (name, kb) in [("Size", len / 1024), ("KernelPageSize", 4), ("MMUPageSize", 4)] {
            figure(&mut t, name, kb);
        }
        figures.show(&mut t, false);
        writeln!(t, "THPeligible:           0\nVmFlags: {flags}").ok();
        out.extend_from_slice(t.as_bytes());
    });
    Ok(out)
}

pub(super) fn smaps_rollup(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    // Linux finds nobody's memory where `smaps` is empty.
    let task = s.open_to(caller)?.ok_or(Errno::ESRCH)?;
    let areas = task.mm().areas();
    let (Some(first), Some(last)) = (areas.first(), areas.last()) else { return Ok(Vec::new()) };
    let sharers = Sharers::of(task.kernel());
    let mut all = Figures::default();
    for (a, rss) in areas.iter().zip(resident::of_areas(&task, &areas, IN_TEXT)) {
        all.add(&Figures::of(a, rss, &sharers));
    }
    let head = format!("{:x}-{:x} ---p 00000000 00:00 0 ", first.start, last.end);
    let mut t = format!("{head:<73}[rollup]\n");
    all.show(&mut t, true);
    text(t)
}

pub(super) fn numa_maps(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let areas = task.mm().areas();
    let own = task.state.lock().policy;
    let mut out = Vec::new();
    for (a, rss) in areas.iter().zip(resident::of_areas(&task, &areas, IN_TEXT)) {
        let policy = a.policy.or(own).map_or_else(|| "default".into(), |p| p.to_string());
        out.extend_from_slice(format!("{:08x} {policy}", a.start).as_bytes());
        match (&a.backing, a.name) {
            (Backing::Object { .. }, _) => {
                out.extend_from_slice(b" file=");
                out.extend_from_slice(&path(a));
            }
            (_, "[heap]") => out.extend_from_slice(b" heap"),
            (_, "[stack]") => out.extend_from_slice(b" stack"),
            _ => {}
        }
        let pages = rss / PAGE;
        if pages > 0 {
            let what = match a.backing {
                Backing::Anonymous => format!("anon={pages} dirty={pages}"),
                Backing::Object { .. } => format!("mapped={pages}"),
            };
            out.extend_from_slice(format!(" {what} N0={pages} kernelpagesize_kB=4").as_bytes());
        }
        out.push(b'\n');
    }
    Ok(out)
}

/// What is listed as part of a process's memory.
enum Shown<'a> {
    Area(&'a Vma),
    /// Address and length of what the platform maps into every process.
    Vdso(u64, u64),
}

/// Gives the areas, which are in order, and the vDSO among them.
fn with_vdso<'a>(task: &Task, areas: impl Iterator<Item = &'a Vma>, give: &mut dyn FnMut(Shown<'_>)) {
    let mut vdso = task.kernel().platform.get().map(|p| p.vdso()).filter(|(at, len)| *at != 0 && *len != 0);
    for a in areas {
        if let Some((at, len)) = vdso.take_if(|(at, _)| *at < a.start) {
            give(Shown::Vdso(at, len));
        }
        give(Shown::Area(a));
    }
    if let Some((at, len)) = vdso {
        give(Shown::Vdso(at, len));
    }
}

/// What an area is called: its file's path, or its name. As Linux shows it: a newline must not look like another line.
fn path(a: &Vma) -> Vec<u8> {
    let raw = match &a.backing {
        Backing::Object { object, .. } if a.name.is_empty() => object.path(),
        _ => a.name.as_bytes().to_vec(),
    };
    let mut out = Vec::with_capacity(raw.len());
    for b in raw {
        if b == b'\n' { out.extend_from_slice(b"\\012") } else { out.push(b) }
    }
    out
}

fn line(a: &Vma) -> Vec<u8> {
    let (offset, (dev, ino)) = match &a.backing {
        Backing::Object { object, offset, .. } if a.name.is_empty() => (*offset, object.shown()),
        // What has a name of its own is no file.
        _ => (0, (0, 0)),
    };
    let bit = |m: i32, c: char| if a.prot & m != 0 { c } else { '-' };
    let (major, minor) = split_dev(dev);
    let mut out = format!(
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {major:02x}:{minor:02x} {ino} ",
        a.start,
        a.end,
        bit(READ, 'r'),
        bit(WRITE, 'w'),
        bit(EXEC, 'x'),
        if a.shared { 's' } else { 'p' },
    )
    .into_bytes();
    let path = path(a);
    if !path.is_empty() {
        out.resize(out.len().max(73), b' ');
        out.extend_from_slice(&path);
    }
    out.push(b'\n');
    out
}

fn vdso_line(at: u64, len: u64) -> Vec<u8> {
    let head = format!("{at:08x}-{:08x} r-xp 00000000 00:00 0 ", at.saturating_add(len));
    format!("{head:<73}[vdso]\n").into_bytes()
}

/// `VmFlags` of an area.
fn flags(a: &Vma) -> String {
    let mut t = String::new();
    for (on, name) in [
        (a.prot & READ != 0, "rd"),
        (a.prot & WRITE != 0, "wr"),
        (a.prot & EXEC != 0, "ex"),
        (a.shared, "sh"),
        (a.max_prot & READ != 0, "mr"),
        (a.max_prot & WRITE != 0, "mw"),
        (a.max_prot & EXEC != 0, "me"),
        (a.shared, "ms"),
        (a.grows_down, "gd"),
        (a.locked, "lo"),
        (a.dont_fork, "dc"),
        (a.prot & WRITE != 0 && !a.shared, "ac"),
        (a.wipe_on_fork, "wf"),
        (a.sealed, "sl"),
    ] {
        if on {
            t.push_str(name);
            t.push(' ');
        }
    }
    t
}

fn figure(t: &mut String, name: &str, kb: u64) {
    writeln!(t, "{:<16}{kb:>8} kB", format!("{name}:")).ok();
}

/// The figures of `smaps`, bytes.
#[derive(Default)]
struct Figures {
    rss: u64,
    /// Shared with others, and its own.
    clean: [u64; 2],
    dirty: [u64; 2],
    anonymous: u64,
    /// Its part of what is resident: of private memory, of files, of shared memory; and of all that was written to.
    pss: [u64; 3],
    pss_dirty: u64,
    locked: u64,
}

impl Figures {
    fn of(a: &Vma, rss: u64, sharers: &Sharers) -> Self {
        let locked = if a.locked { rss } else { 0 };
        let count = sharers.count(a);
        let part = rss / count;
        let both = if count > 1 { [rss, 0] } else { [0, rss] };
        let f = Self { rss, locked, ..Self::default() };
        match &a.backing {
            Backing::Anonymous => Self { dirty: [0, rss], anonymous: rss, pss: [rss, 0, 0], pss_dirty: rss, ..f },
            _ if is_shared_memory(a) => Self { dirty: both, pss: [0, 0, part], pss_dirty: part, ..f },
            Backing::Object { .. } => Self { clean: both, pss: [0, part, 0], ..f },
        }
    }

    fn add(&mut self, o: &Self) {
        let all = |f: &Self| -> [u64; 11] {
            let ([sc, pc], [sd, pd], [x, y, z]) = (f.clean, f.dirty, f.pss);
            [f.rss, sc, pc, sd, pd, f.anonymous, x, y, z, f.pss_dirty, f.locked]
        };
        let mut sums = all(self);
        sums.iter_mut().zip(all(o)).for_each(|(a, b)| *a = a.saturating_add(b));
        let [rss, sc, pc, sd, pd, anonymous, x, y, z, pss_dirty, locked] = sums;
        *self = Self { rss, clean: [sc, pc], dirty: [sd, pd], anonymous, pss: [x, y, z], pss_dirty, locked };
    }

    /// `all`: with the parts of `Pss` that only the sum has.
    fn show(&self, t: &mut String, all: bool) {
        let [of_own, of_files, of_shared] = self.pss;
        let parts = [("Pss_Anon", of_own), ("Pss_File", of_files), ("Pss_Shmem", of_shared)];
        let first = [("Rss", self.rss), ("Pss", self.pss.iter().sum()), ("Pss_Dirty", self.pss_dirty)];
        let rest = [
            ("Shared_Clean", self.clean[0]),
            ("Shared_Dirty", self.dirty[0]),
            ("Private_Clean", self.clean[1]),
            ("Private_Dirty", self.dirty[1]),
            ("Referenced", self.rss),
            ("Anonymous", self.anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ];
        let parts = parts.into_iter().filter(|_| all);
        first.into_iter().chain(parts).chain(rest).for_each(|(name, bytes)| figure(t, name, bytes / 1024));
    }
}

/// `map_files`: what is mapped of files, by its addresses. A link leads to its path, also where another file lies by now.
pub(super) fn map_files(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let mapped = |a: &Vma| matches!(a.backing, Backing::Object { .. });
    let name = |a: &Vma| format!("{:x}-{:x}", a.start, a.end);
    let (lists, finds, f) = (s.clone(), s.clone(), fs.clone());
    let list = move |caller: &Caller<'_>| {
        let areas = lists.check(caller)?.mm().areas();
        Ok(areas.iter().filter(|a| mapped(a)).map(|a| entry(name(a), a.start, FileType::Link)).collect())
    };
    let find = move |caller: &Caller<'_>, wanted: &[u8]| {
        let areas = finds.check(caller)?.mm().areas();
        let Some(a) = areas.into_iter().find(|a| mapped(a) && name(a).as_bytes() == wanted) else { return Ok(None) };
        let bits = if a.prot & READ != 0 { 0o500 } else { 0 } | if a.prot & WRITE != 0 { 0o300 } else { 0 };
        let to = path(&a);
        let shown = to.clone();
        let read = move |_: &Caller<'_>| Ok(shown.clone());
        let lead = move |caller: &Caller<'_>| match caller.creds.capable(cap::SYS_ADMIN) {
            true => Ok(Link::Text(to.clone())),
            false => Err(Errno::EPERM),
        };
        Ok(Some(node(&f, &finds, bits, Body::Link(Box::new(read), Some(Box::new(lead))))))
    };
    node(fs, s, 0o500, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find)))
}
