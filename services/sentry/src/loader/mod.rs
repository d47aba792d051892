//! Programs: `#!` scripts, ELF executables, and the first stack they find.
//!
//! Parses what the container gives, so everything in it is checked. Called by `task::exec` only.

use std::sync::Arc;

use cofferdam_platform::Order;

use crate::errno::Errno;
use crate::memory::AddressSpace;
use crate::task::{Creds, Task};
use crate::uio::Sink;
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
    /// Set-user-ID or alike.
    pub changes_identity: bool,
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
                let (creds, changes_identity) = identity(task, &file)?;
                let vdso = task.kernel().platform.get().map_or((0, 0), |p| p.vdso());
                let mut image = elf::load(task, &file)?;
                let loaded = stack::build(&mut image, vdso, &creds, changes_identity, &called.path, argv, envp)?;
                let comm = if called.by_descriptor {
                    let name = file.path_ref().dentry.name();
                    name.strip_prefix(b"/").unwrap_or(&name).iter().take(COMM).copied().collect()
                } else {
                    base_name(&called.path)
                };
                // What /proc/PID/exe shows is the interpreter, as on Linux.
                return Ok(Program { mm: image.mm, orders: image.orders, loaded, file, comm, creds, changes_identity });
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

/// Credentials after exec: set-user-ID and set-group-ID bits, capabilities (`capabilities(7)`).
fn identity(task: &Arc<Task>, file: &File) -> Result<(Creds, bool), Errno> {
    let old = task.creds();
    let mut new = Creds::clone(&old);
    let attr = file.inode().attr()?;
    let mut changed = false;
    if !old.no_new_privileges && !file.mount().flags().contains(vfs::mount::MountFlags::NO_SUID) {
        if attr.mode & 0o4000 != 0 {
            changed |= new.euid != attr.uid;
            new.euid = attr.uid;
        }
        if attr.mode & 0o2010 == 0o2010 {
            changed |= new.egid != attr.gid;
            new.egid = attr.gid;
        }
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    new.keep_capabilities = false;
    // Root's file capabilities are all (unless SECBIT_NOROOT).
    let root = new.securebits & 1 == 0;
    if changed {
        new.ambient = 0;
    }
    if root && (new.ruid == 0 || new.euid == 0) {
        new.permitted = new.inheritable | new.bounding;
        new.effective = if new.euid == 0 { new.permitted } else { 0 };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    Ok((new, changed))
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
