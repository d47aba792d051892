//! The first stack: arguments, environment, auxiliary vector (`getauxval(3)`).

use super::Loaded;
use super::elf::Image;
use crate::errno::Errno;
use crate::memory::space::{Bounds, Layout, MapRequest};
use crate::memory::store::page_down;
use crate::memory::vma::{EXEC, READ, WRITE};
use crate::task::group::rlimit;
use crate::task::{Creds, Task};

#[allow(missing_docs)]
mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// Bytes of the stack that are mapped below the strings at its top: most programs never need it to grow.
const ROOM: u64 = 128 << 10;

/// Maps the stack for what lies on it from `stack_at` up, strings from `strings_at` up: as far below these as Linux does, within the limit.
fn map(task: &Task, image: &mut Image, stack_at: u64, strings_at: u64) -> Result<(), Errno> {
    let needed = image.stack_top - page_down(stack_at);
    let limit = page_down(task.group().limit(rlimit::STACK).soft);
    let len = (image.stack_top - page_down(strings_at)).saturating_add(ROOM).min(limit).max(needed);
    let request = MapRequest {
        address: image.stack_top.checked_sub(len).ok_or(Errno::E2BIG)?,
        len,
        prot: image.stack_prot,
        max_prot: READ | WRITE | EXEC,
        fixed: true,
        grows_down: true,
        name: "[stack]",
        ..MapRequest::default()
    };
    let (_, orders) = image.mm.map(task.tid(), request, &Bounds::NONE)?;
    image.orders.extend(orders);
    Ok(())
}

/// Builds the content of the stack, from its top down, maps it, and tells the address space where things are.
pub fn build(
    task: &Task,
    image: &mut Image,
    creds: &Creds,
    secure: bool,
    called: &[u8],
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<Loaded, Errno> {
    let mut strings = Vec::new();
    let top = image.stack_top - 8;
    let mut total = 0usize;
    for s in argv.iter().chain(&envp) {
        total = total.checked_add(s.len() + 1).ok_or(Errno::E2BIG)?;
    }
    // From the bottom of the string area up: argv, envp, file name; 16 random bytes and the platform below them.
    let fixed = called.len() + 1;
    let strings_at = top.checked_sub((total + fixed) as u64).ok_or(Errno::E2BIG)?;
    let mut pointers = Vec::with_capacity(argv.len() + envp.len());
    let mut push = |s: &[u8]| {
        let here = strings_at + strings.len() as u64;
        strings.extend_from_slice(s);
        strings.push(0);
        here
    };
    for s in argv.iter().chain(&envp) {
        pointers.push(push(s));
    }
    let exec_fn = push(called);
    let args_end = strings_at + argv.iter().map(|s| s.len() as u64 + 1).sum::<u64>();
    let env_end = args_end + envp.iter().map(|s| s.len() as u64 + 1).sum::<u64>();

    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|_| Errno::EIO)?;
    let mut below = Vec::new();
    below.extend_from_slice(b"x86_64\0\0");
    below.extend_from_slice(&random);
    let below_at = (strings_at - below.len() as u64) & !15;
    let (platform_at, random_at) = (below_at, below_at + 8);

    let cpu = std::arch::x86_64::__cpuid(1);
    let mut aux: Vec<(u64, u64)> = Vec::new();
    let vdso = task.kernel().platform.get().map_or((0, 0), |p| p.vdso());
    if vdso.0 != 0 {
        aux.push((at::SYSINFO_EHDR, vdso.0));
    }
    aux.extend([
        (at::MINSIGSTKSZ, 3632),
        (at::HWCAP, u64::from(cpu.edx)),
        (at::PAGESZ, 4096),
        (at::CLKTCK, 100),
        (at::PHDR, image.headers),
        (at::PHENT, 56),
        (at::PHNUM, image.header_count),
        (at::BASE, image.interpreter),
        (at::FLAGS, 0),
        (at::ENTRY, image.program_entry),
        (at::UID, u64::from(creds.shown_uid(creds.ruid))),
        (at::EUID, u64::from(creds.shown_uid(creds.euid))),
        (at::GID, u64::from(creds.shown_gid(creds.rgid))),
        (at::EGID, u64::from(creds.shown_gid(creds.egid))),
        (at::SECURE, u64::from(secure)),
        (at::RANDOM, random_at),
        // Bit 1: rdfsbase and its kin may be used by programs.
        (at::HWCAP2, 2),
        (at::EXECFN, exec_fn),
        (at::PLATFORM, platform_at),
    ]);
    // The host's own: it is the one that fills the area.
    if let Some((size, align)) = cofferdam_platform::rseq_features() {
        aux.extend([(at::RSEQ_FEATURE_SIZE, size), (at::RSEQ_ALIGN, align)]);
    }
    aux.push((at::NULL, 0));

    let words = 1 + argv.len() + 1 + envp.len() + 1 + 2 * aux.len();
    let stack_at = (below_at - (words * 8) as u64) & !15;
    let mut stack: Vec<u8> = Vec::new();
    let mut word = |w: u64| stack.extend_from_slice(&w.to_le_bytes());
    word(argv.len() as u64);
    let (args, env) = pointers.split_at_checked(argv.len()).ok_or(Errno::EIO)?;
    args.iter().for_each(|p| word(*p));
    word(0);
    env.iter().for_each(|p| word(*p));
    word(0);
    let mut auxv = Vec::new();
    for (k, v) in &aux {
        word(*k);
        word(*v);
        auxv.extend_from_slice(&k.to_le_bytes());
        auxv.extend_from_slice(&v.to_le_bytes());
    }
    let pad = |stack: &mut Vec<u8>, to: u64| stack.resize(usize::try_from(to - stack_at).unwrap_or(0), 0);
    pad(&mut stack, below_at);
    stack.extend_from_slice(&below);
    pad(&mut stack, strings_at);
    stack.extend_from_slice(&strings);

    map(task, image, stack_at, strings_at)?;
    image.mm.set_layout(Layout {
        args: (strings_at, args_end),
        env: (args_end, env_end),
        start_stack: stack_at,
        code: image.code,
        data: image.data,
        auxv,
        ..Layout::default()
    });
    Ok(Loaded { entry: image.entry, stack_at, stack, zero: std::mem::take(&mut image.zero) })
}
