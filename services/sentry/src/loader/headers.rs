//! What the first bytes of a program say: `#!` lines (`execve(2)`) and ELF headers (`elf(5)`).
//!
//! Pure parsing of what the container gives; opens, maps and allocates nothing but the table of program headers, whose
//! length is bounded. Compiled into the fuzz targets by itself, so it names nothing of the crate but `errno`.

use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, ProgramHeader64};
use object::{LittleEndian as LE, pod};

use crate::errno::Errno;

/// Bytes of a file that say what it is (`BINPRM_BUF_SIZE`).
pub const HEAD: usize = 256;
/// Most program headers.
const MAX_HEADERS: usize = 1024;

/// What an ELF file says of itself.
#[derive(Debug)]
pub struct Headers {
    /// Whether it may be placed anywhere.
    pub relocatable: bool,
    /// `e_entry`.
    pub entry: u64,
    /// `e_phoff`.
    pub offset: u64,
    /// The program headers.
    pub segments: Vec<ProgramHeader64<LE>>,
}

/// Parses and checks the headers, read through `read(offset, len)`.
pub fn parse(mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, Errno>) -> Result<Headers, Errno> {
    let head = read(0, size_of::<FileHeader64<LE>>())?;
    let (h, _) = pod::from_bytes::<FileHeader64<LE>>(&head).map_err(|()| Errno::ENOEXEC)?;
    let kind = h.e_type.get(LE);
    // Linux looks at no more of the identification than its first four bytes.
    if h.e_ident.magic != *b"\x7fELF" || h.e_machine.get(LE) != EM_X86_64 {
        return Err(Errno::ENOEXEC);
    }
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(Errno::ENOEXEC);
    }
    let count = usize::from(h.e_phnum.get(LE));
    if usize::from(h.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>() || count == 0 || count > MAX_HEADERS {
        return Err(Errno::ENOEXEC);
    }
    let offset = h.e_phoff.get(LE);
    let table = read(offset, count * size_of::<ProgramHeader64<LE>>())?;
    let (segments, _) = pod::slice_from_bytes::<ProgramHeader64<LE>>(&table, count).map_err(|()| Errno::ENOEXEC)?;
    Ok(Headers { relocatable: kind == ET_DYN, entry: h.e_entry.get(LE), offset, segments: segments.to_vec() })
}

/// A `#!` line: the interpreter and its optional argument.
pub type Script = (Vec<u8>, Option<Vec<u8>>);

/// Takes a `#!` line apart; `None` if the file does not begin with one. Only the first [`HEAD`] bytes count, less one for the
/// end of the string that Linux makes of them; what a short file lacks is zeros, which end the interpreter and its argument.
pub fn parse_script(head: &[u8]) -> Result<Option<Script>, Errno> {
    if !head.starts_with(b"#!") {
        return Ok(None);
    }
    let mut line = head.get(2..head.len().min(HEAD)).unwrap_or_default().to_vec();
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let not_blank = |b: &u8| !blank(b);
    match line.iter().position(|b| *b == b'\n') {
        Some(end) => line.truncate(end),
        None => {
            line.resize(HEAD - 2, 0);
            let start = line.iter().position(not_blank).ok_or(Errno::ENOEXEC)?;
            // The interpreter's name may have been cut off.
            if !line.iter().skip(start).any(|b| blank(b) || *b == 0) {
                return Err(Errno::ENOEXEC);
            }
            line.truncate(HEAD - 3);
        }
    }
    line.truncate(line.iter().rposition(not_blank).ok_or(Errno::ENOEXEC)? + 1);
    let start = line.iter().position(not_blank).ok_or(Errno::ENOEXEC)?;
    let rest = line.get(start..).unwrap_or_default();
    let string = |s: &[u8]| s.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    let Some(end) = rest.iter().position(|b| blank(b) || *b == 0) else { return Ok(Some((rest.to_vec(), None))) };
    let (path, rest) = rest.split_at_checked(end).ok_or(Errno::ENOEXEC)?;
    let argument = match rest.first() {
        Some(0) => None,
        _ => rest.iter().position(not_blank).and_then(|at| rest.get(at..)).map(string),
    };
    Ok(Some((path.to_vec(), argument)))
}
