//! ELF executables and their interpreters (`elf(5)`, System V ABI).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::{GUEST_TOP, Order};
use object::LittleEndian as LE;
use object::elf::{FileHeader64, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, ProgramHeader64};

use crate::errno::Errno;
use crate::loader::headers::{Headers, parse};
use crate::memory::AddressSpace;
use crate::memory::space::{Bounds, MapRequest, STACK_GAP};
use crate::memory::store::{PAGE, page_down, page_up};
use crate::memory::vma::{EXEC, READ, WRITE};
use crate::syscalls::system::ADDR_NO_RANDOMIZE;
use crate::task::Task;
use crate::task::group::rlimit;
use crate::vfs::{self, File};

/// Where position-independent executables start, before randomisation (two thirds of the address space).
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Top of the stack before randomisation.
const STACK_TOP: u64 = GUEST_TOP;

/// A program in memory, before its stack is filled.
pub struct Image {
    /// The memory.
    pub mm: Arc<AddressSpace>,
    /// What the host must map.
    pub orders: Vec<Order>,
    /// Ranges to zero.
    pub zero: Vec<(u64, usize)>,
    /// First instruction (the interpreter's, if there is one).
    pub entry: u64,
    /// AT_ENTRY: the program's own.
    pub program_entry: u64,
    /// AT_PHDR.
    pub headers: u64,
    /// AT_PHNUM.
    pub header_count: u64,
    /// AT_BASE.
    pub interpreter: u64,
    /// Top of the stack, which is not mapped yet.
    pub stack_top: u64,
    /// Protection of the stack.
    pub stack_prot: i32,
    /// For `/proc`.
    pub code: (u64, u64),
    /// For `/proc`.
    pub data: (u64, u64),
}

fn random(bits: u32) -> Result<u64, Errno> {
    let mut b = [0u8; 8];
    getrandom::fill(&mut b).map_err(|_| Errno::EIO)?;
    Ok(u64::from_le_bytes(b) & ((1 << bits) - 1))
}

/// Where a set of segments lies: lowest and highest address, page-aligned.
fn span(segments: &[ProgramHeader64<LE>]) -> Result<(u64, u64), Errno> {
    let mut low = u64::MAX;
    let mut high = 0;
    for s in segments.iter().filter(|s| s.p_type.get(LE) == PT_LOAD) {
        let start = s.p_vaddr.get(LE);
        let end = start.checked_add(s.p_memsz.get(LE)).filter(|e| *e <= GUEST_TOP).ok_or(Errno::ENOEXEC)?;
        low = low.min(page_down(start));
        high = high.max(page_up(end).ok_or(Errno::ENOEXEC)?);
    }
    if low >= high { Err(Errno::ENOEXEC) } else { Ok((low, high)) }
}

struct Placed {
    bias: u64,
    /// End of the last segment, for the break.
    end: u64,
    headers: u64,
    code: (u64, u64),
    data: (u64, u64),
}

struct Mapper<'a> {
    tid: i32,
    mm: &'a AddressSpace,
    orders: &'a mut Vec<Order>,
    zero: &'a mut Vec<(u64, usize)>,
}

impl Mapper<'_> {
    fn request(&self, address: u64, len: u64, prot: i32) -> MapRequest {
        MapRequest { address, len, prot, max_prot: READ | WRITE | EXEC, fixed: true, ..MapRequest::default() }
    }

    fn map(&mut self, r: MapRequest) -> Result<u64, Errno> {
        let (at, orders) = self.mm.map(self.tid, r, &Bounds::NONE)?;
        self.orders.extend(orders);
        Ok(at)
    }

    /// Maps the segments of a file. `base`: where relocatable ones go, `None`: wherever there is room.
    fn place(&mut self, file: &Arc<File>, h: &Headers, base: Option<u64>) -> Result<Placed, Errno> {
        let (low, high) = span(&h.segments)?;
        let bias = if h.relocatable {
            let at = match base {
                Some(at) => at,
                None => {
                    let mut r = self.request(0, high - low, 0);
                    r.fixed = false;
                    let (at, _) = self.mm.map(self.tid, r, &Bounds::NONE)?;
                    // Only the place was wanted.
                    self.mm.forget(at, high - low);
                    at
                }
            };
            at.wrapping_sub(low)
        } else {
            0
        };
        let object = file.memory_object(false, false)?;
        let mut placed = Placed { bias, end: 0, headers: 0, code: (u64::MAX, 0), data: (u64::MAX, 0) };
        for s in h.segments.iter().filter(|s| s.p_type.get(LE) == PT_LOAD) {
            let (vaddr, offset) = (s.p_vaddr.get(LE), s.p_offset.get(LE));
            let (file_len, mem_len) = (s.p_filesz.get(LE), s.p_memsz.get(LE));
            if file_len > mem_len || vaddr % PAGE != offset % PAGE {
                return Err(Errno::ENOEXEC);
            }
            let flags = s.p_flags.get(LE).0;
            let mut prot = 0;
            for (f, p) in [(PF_R, READ), (PF_W, WRITE), (PF_X, EXEC)] {
                if flags & f.0 != 0 {
                    prot |= p;
                }
            }
            let start = bias.wrapping_add(vaddr);
            let end = start.checked_add(mem_len).filter(|e| *e <= GUEST_TOP).ok_or(Errno::ENOMEM)?;
            let file_end = start.checked_add(file_len).ok_or(Errno::ENOEXEC)?;
            if file_len > 0 {
                // Beyond the end of the file nothing is mapped: whoever touches it is told by SIGBUS, as on Linux.
                offset.checked_add(file_len).ok_or(Errno::ENOEXEC)?;
                let from = page_down(start);
                let mut r = self.request(from, file_end - from, prot);
                r.object = Some((object.clone(), page_down(offset)));
                // A segment that is written to is filled at once: the Sentry writes to it (.bss), and so does the linker.
                r.populate = prot & WRITE != 0;
                self.map(r)?;
            }
            let whole = page_up(file_end).ok_or(Errno::ENOMEM)?;
            let mapped_to = if file_len > 0 { whole } else { page_down(start) };
            if end > file_end && prot & WRITE != 0 && file_len > 0 {
                // To the end of the page, as Linux does: the dynamic linker allocates from what is left of it.
                if whole > file_end {
                    self.zero.push((file_end, usize::try_from(whole - file_end).map_err(|_| Errno::ENOMEM)?));
                }
            }
            if end > mapped_to {
                let len = page_up(end).ok_or(Errno::ENOMEM)? - mapped_to;
                let r = self.request(mapped_to, len, prot);
                self.map(r)?;
            }
            placed.end = placed.end.max(end);
            let range = if flags & PF_X.0 != 0 { &mut placed.code } else { &mut placed.data };
            range.0 = range.0.min(start);
            range.1 = range.1.max(file_end);
            if h.offset >= offset && h.offset < offset.saturating_add(file_len) {
                placed.headers = start + (h.offset - offset);
            }
        }
        Ok(placed)
    }
}

/// Reads `len` bytes at `at`: EIO if the file ends before, EINVAL for a negative place, as Linux answers for a program's parts.
fn read_whole(file: &File, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
    i64::try_from(at).map_err(|_| Errno::EINVAL)?;
    let read = super::read_at(file, at, len)?;
    if read.len() == len { Ok(read) } else { Err(Errno::EIO) }
}

/// Maps a program, its interpreter and its stack into a new address space.
pub fn load(task: &Arc<Task>, file: &Arc<File>) -> Result<Image, Errno> {
    let headers = parse(|at, len| super::read_at(file, at, len))?;
    let mut interpreter = None;
    let mut exec_stack = EXEC;
    for s in &headers.segments {
        match s.p_type.get(LE) {
            PT_INTERP if interpreter.is_none() => {
                let len = usize::try_from(s.p_filesz.get(LE)).ok().filter(|l| (2..=4096).contains(l));
                let path = read_whole(file, s.p_offset.get(LE), len.ok_or(Errno::ENOEXEC)?)?;
                let path = path.strip_suffix(&[0]).ok_or(Errno::ENOEXEC)?;
                // It is a C string, whatever follows its first NUL.
                let path = path.split(|b| *b == 0).next().unwrap_or_default();
                let f = vfs::open_interpreter(task, path)?;
                read_whole(&f, 0, size_of::<FileHeader64<LE>>())?;
                let h = parse(|at, len| super::read_at(&f, at, len))
                    .map_err(|e| if e == Errno::ENOEXEC { Errno::ELIBBAD } else { e })?;
                interpreter = Some((f, h));
            }
            PT_GNU_STACK => exec_stack = if s.p_flags.get(LE).0 & PF_X.0 != 0 { EXEC } else { 0 },
            _ => {}
        }
    }
    let limit = task.group().limit(rlimit::STACK).soft;
    let fixed = task.group().personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0;
    let random = |bits| if fixed { Ok(0) } else { random(bits) };
    let stack_top = STACK_TOP - PAGE - random(22)? * PAGE;
    let gap = limit.saturating_add(STACK_GAP).clamp(128 << 20, GUEST_TOP / 6 * 5);
    let mmap_base = page_down(stack_top - gap - random(28)? * PAGE);
    let mm = AddressSpace::new(mmap_base, 0);
    let mut orders = Vec::new();
    let mut zero = Vec::new();
    let mut m = Mapper { tid: task.tid(), mm: &mm, orders: &mut orders, zero: &mut zero };

    // An interpreter run by itself goes where mappings go; a program with one goes low, so that the break has room.
    let base = if headers.relocatable && interpreter.is_some() { Some(PIE_BASE + random(28)? * PAGE) } else { None };
    let program = m.place(file, &headers, base)?;
    let program_entry = program.bias.wrapping_add(headers.entry);
    let (entry, interpreter_base) = match &interpreter {
        Some((f, h)) => {
            let placed = m.place(f, h, None)?;
            (placed.bias.wrapping_add(h.entry), placed.bias)
        }
        None => (program_entry, 0),
    };
    if entry >= GUEST_TOP {
        return Err(Errno::ENOEXEC);
    }
    let start = page_up(program.end).ok_or(Errno::ENOMEM)?;
    let brk = if headers.relocatable && interpreter.is_none() {
        PIE_BASE + random(28)? * PAGE
    } else {
        start + random(13)? * PAGE
    };
    mm.set_break(brk);
    Ok(Image {
        mm: mm.clone(),
        orders,
        zero,
        entry,
        program_entry,
        headers: program.headers,
        header_count: headers.segments.len() as u64,
        interpreter: interpreter_base,
        stack_top,
        stack_prot: READ | WRITE | exec_stack,
        code: program.code,
        data: program.data,
    })
}
