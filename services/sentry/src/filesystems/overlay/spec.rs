//! What an overlay is mounted with.

use std::sync::Arc;

use cofferdam_control::overlay::plain;
pub use cofferdam_control::overlay::split;

use super::LAYERS_MAX;
use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::task::Task;
use crate::vfs::Caller;
use crate::vfs::inode::FileType;
use crate::vfs::mount::PathRef;
use crate::vfs::task_files;

/// A layer, and how it was called.
#[derive(Clone)]
pub(super) struct Layer {
    name: Vec<u8>,
    pub(super) place: PathRef,
}

/// A directory that is in no tree of files of a container, but may be a layer.
#[derive(Clone)]
pub struct Given {
    /// What it is called.
    pub path: Vec<u8>,
    /// Whether it is for changes.
    pub changed: bool,
    /// Where it is.
    pub place: PathRef,
}

/// Layers and settings.
#[derive(Clone, Default)]
pub struct Spec {
    /// All that may be layers; without it, what the caller finds by its name.
    pub given: Option<Vec<Given>>,
    pub(super) lowers: Vec<Layer>,
    /// They came one by one (`lowerdir+`).
    singly: bool,
    pub(super) upper: Option<Layer>,
    pub(super) work: Option<Layer>,
    pub(super) user_marks: bool,
    pub(super) volatile: bool,
    permissions: bool,
    uuid: Option<&'static str>,
    redirect: Option<&'static str>,
}

fn escape(name: &[u8]) -> String {
    let mut s = String::new();
    for b in name {
        match b {
            b',' | b'=' | b' ' | b'\t' | b'\n' | b'\\' => s.push_str(&format!("\\{b:03o}")),
            _ => s.push(char::from(*b)),
        }
    }
    s
}

/// A directory that can be a layer. EINVAL for what cannot, of which `log` is told.
fn layer(
    (task, given): (&Arc<Task>, Option<&[Given]>),
    name: &[u8],
    upper: bool,
    log: &mut dyn FnMut(String),
) -> Result<Layer, Errno> {
    let path = plain(name);
    let place = match given {
        None => task_files::resolve(task, &Caller::of(task), AT_FDCWD, &path, 0)?,
        Some(given) => {
            let found = given.iter().find(|g| g.path == path && g.changed == upper);
            found.ok_or(Errno::ENOENT)?.place.clone()
        }
    };
    let shown = String::from_utf8_lossy(&path).into_owned();
    let wrong = if place.dentry.inode().kind() != FileType::Directory {
        Some(format!("e overlay: {shown} is not a directory"))
    } else if matches!(place.mount.fs.name(), "proc" | "sysfs" | "cgroup2") {
        Some(format!("e overlay: filesystem on {shown} not supported"))
    } else if upper && place.mount.check_writable().is_err() {
        Some(format!("e overlay: filesystem on {shown} is read-only"))
    } else {
        None
    };
    match wrong {
        Some(why) => {
            log(why);
            Err(Errno::EINVAL)
        }
        None => Ok(Layer { name: name.to_vec(), place }),
    }
}

impl Spec {
    /// Sets a parameter; `None` if it is not known. EINVAL for what is known and not to be had.
    pub fn set(
        &mut self,
        task: &Arc<Task>,
        key: &[u8],
        text: Option<&[u8]>,
        log: &mut dyn FnMut(String),
    ) -> Option<Result<(), Bad>> {
        let given = self.given.clone();
        let from = (task, given.as_deref());
        let made = |r: Result<Layer, Errno>| r.map_err(Bad::Is);
        Some(match (key, text) {
            (b"lowerdir", Some(text)) => self.set_lowers(from, text, log).map_err(Bad::Is),
            (b"lowerdir+", Some(text)) if self.singly || self.lowers.is_empty() => made(layer(from, text, false, log))
                .map(|l| {
                    self.singly = true;
                    self.lowers.push(l);
                }),
            (b"lowerdir+", Some(_)) => {
                log(String::from("e overlay: lowerdir+ and datadir+ cannot follow lowerdir"));
                Err(Bad::Is(Errno::EINVAL))
            }
            (b"upperdir", Some(text)) if !text.is_empty() => {
                made(layer(from, text, true, log)).map(|l| self.upper = Some(l))
            }
            (b"workdir", Some(text)) if !text.is_empty() => {
                made(layer(from, text, true, log)).map(|l| self.work = Some(l))
            }
            (b"userxattr", None) => {
                self.user_marks = true;
                Ok(())
            }
            (b"volatile", None) => {
                self.volatile = true;
                Ok(())
            }
            (b"default_permissions", None) => {
                self.permissions = true;
                Ok(())
            }
            // Directories are never redirected, names not indexed, data not left behind: no other way is to be had.
            (b"redirect_dir", Some(b"off" | b"follow")) => Ok(()),
            (b"redirect_dir", Some(b"nofollow")) => {
                self.redirect = Some("nofollow");
                Ok(())
            }
            (b"index" | b"metacopy" | b"nfs_export" | b"verity", Some(b"off")) => Ok(()),
            (b"xino", Some(b"off" | b"auto")) => Ok(()),
            (b"uuid", Some(b"auto")) => Ok(()),
            (b"uuid", Some(how)) if [&b"on"[..], b"off", b"null"].contains(&how) => {
                self.uuid = ["on", "off", "null"].into_iter().find(|n| n.as_bytes() == how);
                Ok(())
            }
            (
                b"lowerdir"
                | b"lowerdir+"
                | b"upperdir"
                | b"workdir"
                | b"userxattr"
                | b"volatile"
                | b"default_permissions"
                | b"redirect_dir"
                | b"index"
                | b"metacopy"
                | b"nfs_export"
                | b"verity"
                | b"xino"
                | b"uuid",
                _,
            ) => Err(Bad::Value),
            _ => return None,
        })
    }

    fn set_lowers(
        &mut self,
        from: (&Arc<Task>, Option<&[Given]>),
        text: &[u8],
        log: &mut dyn FnMut(String),
    ) -> Result<(), Errno> {
        self.lowers.clear();
        self.singly = false;
        if text.is_empty() {
            return Ok(());
        }
        // Layers of nothing but data, after `::`, would need files whose data is left behind.
        for name in split(text, b':') {
            if name.is_empty() || self.lowers.len() >= LAYERS_MAX {
                return Err(Errno::EINVAL);
            }
            self.lowers.push(layer(from, &name, false, log)?);
        }
        Ok(())
    }

    /// EINVAL, ELOOP for layers that cannot be together.
    pub(super) fn check(&self) -> Result<(), Errno> {
        let enough = if self.upper.is_some() { 1 } else { 2 };
        if self.lowers.len() < enough || self.lowers.len() > LAYERS_MAX {
            return Err(Errno::EINVAL);
        }
        // A lower layer may hold what takes the changes; nothing else may lie in another layer.
        let inside = |a: &PathRef, b: &PathRef| a.dentry.is_below(&b.dentry);
        let (mut changed, lowers) = (Vec::new(), &self.lowers);
        if let Some(upper) = &self.upper {
            let work = self.work.as_ref().ok_or(Errno::EINVAL)?;
            let (u, w) = (&upper.place, &work.place);
            if !Arc::ptr_eq(&u.mount, &w.mount) || inside(u, w) || inside(w, u) {
                return Err(Errno::EINVAL);
            }
            changed.extend([u, w]);
        }
        for (i, l) in lowers.iter().enumerate() {
            let others = lowers.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, o)| &o.place);
            if others.chain(changed.iter().copied()).any(|o| inside(&l.place, o)) {
                return Err(Errno::ELOOP);
            }
        }
        Ok(())
    }

    /// As `/proc/mounts` shows it.
    pub(super) fn shown(&self) -> String {
        let names: Vec<String> = self.lowers.iter().map(|l| escape(&l.name)).collect();
        let mut s = if self.singly {
            names.iter().map(|n| format!("lowerdir+={n}")).collect::<Vec<_>>().join(",")
        } else {
            format!("lowerdir={}", names.join(":"))
        };
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            s.push_str(&format!(",upperdir={},workdir={}", escape(&upper.name), escape(&work.name)));
        }
        if self.permissions {
            s.push_str(",default_permissions");
        }
        let user = self.user_marks.then_some("nofollow");
        let redirect = self.redirect.or(user).or(self.upper.is_none().then_some("on"));
        s.extend(redirect.map(|r| format!(",redirect_dir={r}")));
        s.extend(self.uuid.map(|u| format!(",uuid={u}")));
        if self.volatile {
            s.push_str(",fsync=volatile");
        }
        if self.user_marks {
            s.push_str(",userxattr");
        }
        s
    }
}

/// Why a parameter was not taken.
pub enum Bad {
    /// It cannot be that.
    Value,
    /// Another reason.
    Is(Errno),
}
