//! Programs: `#!` scripts, ELF executables, and the first stack they find.
//!
//! Parses what the container gives, so everything in it is checked. Called by `task::exec` only.

use std::sync::Arc;

use cofferdam_platform::Order;

use crate::errno::Errno;
use crate::memory::AddressSpace;
use crate::task::creds::secure;
use crate::task::{Creds, Task};
use crate::uio::Sink;
use crate::vfs::access::{self, FileCapabilities};
use crate::vfs::{self, File};
use headers::{HEAD, parse_script};

pub mod elf;
mod headers;
pub mod stack;

/// Interpreters of interpreters.
const MAX_SCRIPTS: usize = 5;

/// Bytes of a task's name.
const COMM: usize = 15;

/// What a loaded program needs to start.
pub struct Loaded {
    /// First instruction.
    pub entry: u64,
    /// Stack pointer, where `stack` goes.
    pub stack_at: u64,
    /// Content of the stack from `stack_at` up.
    pub stack: Vec<u8>,
    /// Ranges of file-backed pages to be zeroed (the start of .bss).
    pub zero: Vec<(u64, usize)>,
}

/// A program ready to replace another.
pub struct Program {
    /// Its memory.
    pub mm: Arc<AddressSpace>,
    /// What the host must map.
    pub orders: Vec<Order>,
    /// How it starts.
    pub loaded: Loaded,
    /// The executable.
    pub file: Arc<File>,
    /// Name for `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// Who it runs as.
    pub creds: Creds,
    /// It has rights that its caller had not: its libraries are told (`AT_SECURE`).
    pub secure: bool,
    /// Whether its caller's user may look into it.
    pub dumpable: bool,
}

/// Reads `len` bytes at `at`, fewer at the end of the file.
pub(crate) fn read_at(file: &File, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    while out.len() < len {
        let before = out.len();
        let mut sink = Sink::kernel(&mut out, len - before);
        let n = file.read_at(at.checked_add(before as u64).ok_or(Errno::ENOEXEC)?, &mut sink)?;
        if n == 0 {
            break;
        }
    }
    Ok(out)
}

/// How a program was called.
pub struct Called {
    /// The path, or one below `/dev/fd` for a program called by a descriptor.
    pub path: Vec<u8>,
    /// By a descriptor alone: such a program is named after its file.
    pub by_descriptor: bool,
    /// The path is one of a descriptor that exec closes: an interpreter could not open it.
    pub unreachable: bool,
}

/// Loads a program for `task`.
pub fn load(
    task: &Arc<Task>,
    mut file: Arc<File>,
    called: Called,
    mut argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<Program, Errno> {
    let mut name = called.path.clone();
    for _ in 0..=MAX_SCRIPTS {
        let head = read_at(&file, 0, HEAD)?;
        match parse_script(&head)? {
            None => {
                let (creds, secure) = identity(task, &file)?;
                let dumpable = is_dumpable(task, &file);
                let mut image = elf::load(task, &file)?;
                let loaded = stack::build(task, &mut image, &creds, secure, &called.path, argv, envp)?;
                let comm = if called.by_descriptor {
                    let name = file.path_ref().dentry.name();
                    name.strip_prefix(b"/").unwrap_or(&name).iter().take(COMM).copied().collect()
                } else {
                    base_name(&called.path)
                };
                // What /proc/PID/exe shows is the interpreter, as on Linux.
                return Ok(Program { mm: image.mm, orders: image.orders, loaded, file, comm, creds, secure, dumpable });
            }
            Some(_) if called.unreachable => return Err(Errno::ENOENT),
            Some((interpreter, argument)) => {
                let mut new = vec![interpreter.clone()];
                new.extend(argument);
                new.push(std::mem::replace(&mut name, interpreter.clone()));
                new.extend(argv.drain(..).skip(1));
                argv = new;
                file = vfs::open_interpreter(task, &interpreter)?;
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Last component of a path, cut to what a task name holds.
pub fn base_name(path: &[u8]) -> Vec<u8> {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    base.get(..base.len().min(COMM)).unwrap_or_default().to_vec()
}

/// Whether who may run a program may also look into it: not one that he cannot read, nor one that is another's already.
fn is_dumpable(task: &Task, file: &File) -> bool {
    let c = task.creds();
    c.euid == c.ruid && c.egid == c.rgid && access::check(&c, &**file.inode(), access::READ).is_ok()
}

/// Credentials after exec, and whether they are more than the caller had: set-user-ID and set-group-ID bits, capabilities of
/// files and of root (`execve(2)`; `capabilities(7)`, "Transformation of capabilities during execve()").
fn identity(task: &Task, file: &File) -> Result<(Creds, bool), Errno> {
    let old = task.creds();
    let mut new = Creds::clone(&old);
    let mut of_file = None;
    // Only a file of the namespace that the task is in, or of one around that, makes it someone else.
    let mount = file.mount();
    let trusted = task.fs().namespace().has(mount) && old.user_ns.is_within(mount.owner());
    if trusted && !mount.flags().contains(vfs::mount::MountFlags::NO_SUID) {
        let attr = file.inode().attr()?;
        let known = new.user_ns.uid(attr.uid).is_some() && new.user_ns.gid(attr.gid).is_some();
        if !old.no_new_privileges && known {
            if attr.mode & 0o4000 != 0 {
                new.euid = attr.uid;
            }
            if attr.mode & 0o2010 == 0o2010 {
                new.egid = attr.gid;
            }
        }
        of_file = FileCapabilities::of(&**file.inode(), &new.user_ns);
    }
    let root = |id: u32| old.is_root(id);
    let mut effective = false;
    new.permitted = 0;
    if let Some(f) = &of_file {
        new.permitted = new.bounding & f.permitted | new.inheritable & f.inheritable;
        effective = f.effective;
        // A program that cannot do with less is not run with less.
        if effective && f.permitted & !new.permitted != 0 {
            return Err(Errno::EPERM);
        }
    }
    // Root's programs have all, but for those that say what they need and were made root's by the set-user-ID bit.
    let mixed = of_file.is_some() && root(new.euid) && !root(new.ruid);
    if new.securebits & secure::NOROOT == 0 && !mixed {
        if root(new.euid) || root(new.ruid) {
            new.permitted = new.inheritable | new.bounding;
        }
        effective |= root(new.euid);
    }
    let changed = new.euid != old.euid || !(new.egid == old.egid || old.in_group(new.egid));
    if (changed || !old.covers(&new)) && old.no_new_privileges {
        (new.euid, new.egid) = (new.ruid, new.rgid);
        new.permitted &= old.permitted;
    }
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if of_file.is_some() || changed {
        new.ambient = 0;
    }
    new.permitted |= new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    new.securebits &= !secure::KEEP_CAPS;
    let more = !root(new.ruid) && (effective || new.permitted & !new.ambient != 0);
    let secure = changed || new.euid != old.ruid || new.egid != old.rgid || more;
    Ok((new, secure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lines_are_split_as_linux_does() {
        let ok = |s: &[u8]| parse_script(s).unwrap().unwrap();
        assert_eq!(ok(b"#!/bin/sh\n"), (b"/bin/sh".to_vec(), None));
        assert_eq!(ok(b"#! /usr/bin/env -S a b \nrest"), (b"/usr/bin/env".to_vec(), Some(b"-S a b".to_vec())));
        assert_eq!(ok(b"#!/bin/sh"), (b"/bin/sh".to_vec(), None));
        assert!(parse_script(b"\x7fELF").unwrap().is_none());
        assert_eq!(parse_script(b"#!  \n"), Err(Errno::ENOEXEC));
        assert_eq!(ok(b"#!"), (Vec::new(), None));
        assert_eq!(ok(b"#!a \0"), (b"a".to_vec(), Some(Vec::new())));
        assert_eq!(ok(b"#!a\0b c\n"), (b"a".to_vec(), None));
        let mut long = b"#!/".to_vec();
        long.resize(HEAD, b'x');
        assert_eq!(parse_script(&long), Err(Errno::ENOEXEC));
    }
}
