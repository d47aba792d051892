//! What a caller's request names on the host: his bundle, its document, and the trees and files that the Gofer will serve.
//!
//! Everything is looked up from the caller's own root directory and only opened, never listed or written. Called by `container`.

use std::io::Read;
use std::os::fd::OwnedFd;

use cofferdam_control::client::Create;
use cofferdam_control::gofer::ExportKind;
use cofferdam_control::sentry::FailureKind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::spec::{self, ExportPath, Refused};

/// The root directory of whoever asks, in his mount namespace.
pub struct View(pub OwnedFd);

impl View {
    /// Opens an absolute path as he would.
    pub fn open(&self, path: &std::path::Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }
}

/// The document: that of the request, or the bundle's.
pub fn read_document(view: &View, request: &Create) -> Result<Vec<u8>, Refused> {
    if let Some(document) = &request.config {
        return Ok(document.clone());
    }
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&request.bundle)).join("config.json");
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Refused::new(FailureKind::Invalid, "JSON specification file config.json not found")
        }
        _ => Refused::new(FailureKind::Invalid, format!("{}: {e}", path.display())),
    };
    // Non-blocking, so that a fifo of that name does not stop everyone else's sandboxes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = view.open(&path, flags).map_err(|e| unreadable(e.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| unreadable(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refused::new(FailureKind::Invalid, format!("{}: not a regular file", path.display())));
    }
    let mut document = Vec::new();
    std::fs::File::from(file).take(spec::MAX_DOCUMENT + 1).read_to_end(&mut document).map_err(unreadable)?;
    if document.len() as u64 > spec::MAX_DOCUMENT {
        return Err(Refused::new(FailureKind::Invalid, "config.json: more than 1 MiB"));
    }
    Ok(document)
}

/// Opens what the Gofer will serve. The root must be a directory; a bind mount may be a file, which is opened for what it
/// is to be used for: its server has no name to open it by. One that its owner may not write is served read-only. A work directory that
/// is on another mount than what takes an overlay's changes is refused.
pub fn open_exports(view: &View, exports: &mut [ExportPath]) -> Result<Vec<(OwnedFd, ExportKind)>, Refused> {
    let mut opened: Vec<(OwnedFd, ExportKind)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (n, export) in exports.iter_mut().enumerate() {
        let (path, beside) = (&export.path.clone(), export.beside.clone());
        let what = if n == 0 { "rootfs" } else { "mount source" };
        let refused = |e: rustix::io::Errno| {
            let e = std::io::Error::from(e);
            let kind = match e.kind() {
                std::io::ErrorKind::PermissionDenied => FailureKind::Permission,
                _ => FailureKind::Invalid,
            };
            let text = match e.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => e.to_string(),
            };
            Refused::new(kind, format!("{what} ({}): {text}", path.display()))
        };
        let fd = view.open(path, OFlags::PATH).map_err(refused)?;
        let stat = rustix::fs::fstat(&fd).map_err(refused)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => ExportKind::Directory,
            _ if n == 0 => {
                return Err(Refused::new(
                    FailureKind::Invalid,
                    format!("rootfs ({}) is not a directory", path.display()),
                ));
            }
            _ => ExportKind::File,
        };
        let fd = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                use rustix::io::Errno;
                let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                let open = |access| view.open(path, flags | access);
                let file = match if export.read_only { Err(Errno::ROFS) } else { open(OFlags::RDWR) } {
                    Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                        export.read_only = true;
                        open(OFlags::RDONLY).map_err(refused)?
                    }
                    other => other.map_err(refused)?,
                };
                let again = rustix::fs::fstat(&file).map_err(refused)?;
                if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(Refused::new(
                        FailureKind::Host,
                        format!("{what} ({}): replaced while it was opened", path.display()),
                    ));
                }
                file
            }
            _ => fd,
        };
        if let Some(at) = beside.and_then(|name| names.iter().position(|n| *n == name))
            && let Some((other, _)) = opened.get(at)
            && !on_one_mount(&fd, other).map_err(refused)?
        {
            // Names are moved between the two. As Linux has it.
            return Err(refused(rustix::io::Errno::INVAL));
        }
        names.push(export.name.clone());
        opened.push((fd, kind));
    }
    Ok(opened)
}

fn on_one_mount(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let mount = |fd| {
        let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok::<_, rustix::io::Errno>((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id))
    };
    Ok(mount(a)? == mount(b)?)
}
