//! What a caller's request names on the host: his bundle, its document, and the trees and files that the Gofer will serve.
//!
//! The document is looked up from the caller's own root directory and read. The rest he opens by himself: nothing of it is looked at here,
//! as a file system that hangs would hold up everybody's containers. Called by `container`.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use cofferdam_control::AsyncChannel;
use cofferdam_control::client::{Create, Request, Response, Source};
use cofferdam_control::gofer::ExportKind;
use cofferdam_control::sentry::FailureKind;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::link::internal;
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

/// Has whoever asks open what the Gofer will serve: what hangs then is he.
pub async fn open_exports(
    channel: &AsyncChannel,
    exports: &mut [ExportPath],
) -> Result<Vec<(OwnedFd, ExportKind)>, Refused> {
    let invalid = |what: &str| Refused::new(FailureKind::Invalid, format!("the caller's answer: {what}"));
    let path = |e: &ExportPath| e.path.as_os_str().as_bytes().to_vec();
    let beside = |e: &ExportPath| exports.iter().position(|other| Some(&other.name) == e.beside.as_ref());
    let source = |e: &ExportPath| Source { path: path(e), read_only: e.read_only, beside: beside(e), tree: e.tree };
    let wanted = exports.iter().map(source).collect();
    channel.send(&Response::Open(wanted), &[]).map_err(internal)?;
    let got = channel.receive::<Request>().await.map_err(internal)?;
    let Request::Opened(answer) = got.message else { return Err(invalid("something else was asked meanwhile")) };
    let opened = answer.map_err(|(kind, message)| Refused::new(kind, message))?;
    if opened.len() != exports.len() || got.descriptors.len() != exports.len() {
        return Err(invalid("a wrong number of descriptors"));
    }
    if opened.first().is_none_or(|root| root.kind != ExportKind::Directory) {
        return Err(invalid("a root that is not a directory"));
    }
    let mut roots = Vec::new();
    for ((export, is), fd) in exports.iter_mut().zip(opened).zip(got.descriptors) {
        export.read_only |= is.read_only;
        export.follows = is.follows && export.tree.is_some() && is.kind == ExportKind::Directory;
        let how = rustix::fs::fcntl_getfl(&fd).map_err(|e| invalid(&e.to_string()))?;
        let place = how.contains(OFlags::PATH);
        let writes = !place && how & OFlags::ACCMODE != OFlags::RDONLY;
        // Nothing that would take the host to answer is asked about it. A Gofer has no sockets.
        if rustix::net::sockopt::socket_type(&fd).is_ok() || (is.kind == ExportKind::Directory && !place) {
            return Err(invalid("a descriptor of another kind"));
        }
        if writes && export.read_only {
            return Err(invalid("a descriptor to write by, for what is not to be written"));
        }
        roots.push((fd, is.kind));
    }
    Ok(roots)
}
