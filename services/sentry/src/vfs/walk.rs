//! Path walk, `path_resolution(7)` and `openat2(2)`.
//!
//! Component by component from a start, following symbolic links and mounts, never leaving the caller's root. A warm
//! walk takes no lock for writing and allocates nothing. Owned here: the walk. Never here: what is done with the result.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::errno::Errno;
use crate::vfs::access;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileType, InodeRef, Link, NAME_MAX};
use crate::vfs::mount::{self, MountFlags, PathRef};

/// Symbolic links followed in one walk before ELOOP.
const LINKS_MAX: u32 = 40;
/// Longest path that a chain of links may expand to.
const EXPANDED_MAX: usize = 1 << 16;
/// Names that are looked up at once where they are asked for again.
const AHEAD_MOST: usize = 16;

bitflags::bitflags! {
    /// Restrictions of a walk, `RESOLVE_*` of `openat2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Resolve: u64 {
        /// No mount may be crossed.
        const NO_XDEV = 1;
        /// No magic link may be followed.
        const NO_MAGICLINKS = 2;
        /// No symbolic link may be followed.
        const NO_SYMLINKS = 4;
        /// The walk may not leave the start.
        const BENEATH = 8;
        /// The start is the root.
        const IN_ROOT = 16;
        /// Only what is cached.
        const CACHED = 32;
    }
}

/// What the last component of a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name(Vec<u8>),
    /// `.`, or a path that is only slashes.
    Dot,
    /// `..`.
    DotDot,
}

/// The directory that the last component of a path is in, and that component.
pub struct Parent {
    /// The directory, searchable by the caller.
    pub dir: PathRef,
    /// The last component.
    pub last: Last,
    /// Whether slashes follow it.
    pub slash: bool,
}

enum Piece {
    Name(Range<usize>),
    Dot,
    DotDot,
}

/// One path walk.
pub struct Walk<'c, 'p> {
    caller: &'c Caller<'c>,
    root: PathRef,
    start: PathRef,
    at: PathRef,
    path: Cow<'p, [u8]>,
    position: usize,
    links: u32,
    resolve: Resolve,
    /// What was asked for ahead: directories, where the names in them begin in the path, and what those are.
    ahead: VecDeque<(InodeRef, usize, Option<InodeRef>)>,
}

/// The object at `path`, seen from `base` if it is relative. ENOENT for an empty path.
pub fn walk(caller: &Caller<'_>, base: PathRef, path: &[u8], follow: bool) -> Result<PathRef, Errno> {
    Walk::new(caller, base, path, Resolve::empty())?.target(follow)
}

/// The directory that the last component of `path` is in.
pub fn walk_parent(caller: &Caller<'_>, base: PathRef, path: &[u8]) -> Result<Parent, Errno> {
    Walk::new(caller, base, path, Resolve::empty())?.parent()
}

impl<'c, 'p> Walk<'c, 'p> {
    /// Begins at `base` or, if the path is absolute, at the root.
    pub fn new(caller: &'c Caller<'c>, base: PathRef, path: &'p [u8], resolve: Resolve) -> Result<Self, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let root = if resolve.contains(Resolve::IN_ROOT) { base.clone() } else { caller.fs.root() };
        let mut walk = Self {
            caller,
            root,
            start: base.clone(),
            at: base,
            path: Cow::Borrowed(path),
            position: 0,
            links: 0,
            resolve,
            ahead: VecDeque::new(),
        };
        walk.enter_path()?;
        Ok(walk)
    }

    fn enter_path(&mut self) -> Result<(), Errno> {
        if self.path.first() == Some(&b'/') {
            if self.resolve.contains(Resolve::BENEATH) {
                return Err(Errno::EXDEV);
            }
            if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&self.root.mount, &self.at.mount) {
                return Err(Errno::EXDEV);
            }
            self.at = self.root.clone();
        }
        Ok(())
    }

    fn skip_slashes(&mut self) {
        while self.path.get(self.position) == Some(&b'/') {
            self.position += 1;
        }
    }

    /// The next component, and whether it is the last and followed by slashes.
    fn next(&mut self) -> Option<(Piece, bool, bool)> {
        self.skip_slashes();
        let from = self.position;
        let rest = self.path.get(from..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let piece = match rest.get(..len).unwrap_or_default() {
            b"." => Piece::Dot,
            b".." => Piece::DotDot,
            _ => Piece::Name(from..from + len),
        };
        self.position = from + len;
        let slash = self.position < self.path.len();
        self.skip_slashes();
        Some((piece, self.position >= self.path.len(), slash))
    }

    fn check_directory(&self) -> Result<(), Errno> {
        let inode = self.at.dentry.inode();
        let checked = if inode.kind() == FileType::Directory {
            access::check_search(&self.caller.creds, &**inode)
        } else {
            Err(Errno::ENOTDIR)
        };
        // As Linux: what stands in the way is only told of by a walk that may wait.
        if self.resolve.contains(Resolve::CACHED) { checked.map_err(|_| Errno::EAGAIN) } else { checked }
    }

    fn up(&mut self) -> Result<(), Errno> {
        if self.resolve.contains(Resolve::BENEATH) && self.at == self.start {
            return Err(Errno::EXDEV);
        }
        if self.at == self.root {
            return Ok(());
        }
        if let Some(up) = self.at.up() {
            if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&up.mount, &self.at.mount) {
                return Err(Errno::EXDEV);
            }
            self.at = mount::cross(up);
        }
        Ok(())
    }

    /// Looks a name of the path up in the directory the walk is at.
    fn look(&mut self, name: Range<usize>) -> Result<Option<Arc<Dentry>>, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.resolve.contains(Resolve::CACHED) {
            return self.at.dentry.cached(self.path.get(name).unwrap_or_default()).ok_or(Errno::EAGAIN);
        }
        let text = self.path.get(name.clone()).unwrap_or_default();
        let again = match self.at.dentry.inode().names_since() {
            None => true,
            Some(0) => false,
            Some(since) => {
                if let Some(found) = self.at.dentry.cached(text) {
                    return Ok(found);
                }
                self.at.dentry.asks_again(text, since)
            }
        };
        let asked = if again { self.look_ahead(name.clone()) } else { None };
        self.at.dentry.child_found(self.caller, self.path.get(name).unwrap_or_default(), asked)
    }

    /// What a shared directory has under a name of the path: together with the names that follow it, they are asked for at once.
    fn look_ahead(&mut self, name: Range<usize>) -> Option<Option<InodeRef>> {
        let here = self.at.dentry.inode();
        if let Some((dir, at, found)) = self.ahead.pop_front() {
            if Arc::ptr_eq(&dir, here) && at == name.start {
                return Some(found);
            }
            self.ahead.clear();
        }
        let mut names = vec![name.clone()];
        let mut at = name.end;
        while names.len() < AHEAD_MOST {
            let rest = self.path.get(at..).unwrap_or_default();
            let from = at + rest.iter().take_while(|b| **b == b'/').count();
            let rest = self.path.get(from..).unwrap_or_default();
            let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            if len > NAME_MAX || matches!(rest.get(..len), None | Some(b"" | b"." | b"..")) {
                break;
            }
            names.push(from..from + len);
            at = from + len;
        }
        if names.len() < 2 {
            return None;
        }
        let of = |r: &Range<usize>| self.path.get(r.clone()).unwrap_or_default();
        let found = here.lookup_path(&names.iter().map(of).collect::<Vec<_>>());
        let mut dir = here.clone();
        for (name, found) in names.iter().zip(found) {
            self.ahead.push_back((dir, name.start, found.clone()));
            let Some(next) = found else { break };
            dir = next;
        }
        self.ahead.pop_front().map(|(_, _, found)| found)
    }

    fn go(&mut self, dentry: Arc<Dentry>) -> Result<(), Errno> {
        self.at.dentry = dentry;
        if self.at.dentry.mounted.load(std::sync::atomic::Ordering::Acquire) > 0 {
            let to = mount::cross(self.at.clone());
            if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&to.mount, &self.at.mount) {
                return Err(Errno::EXDEV);
            }
            self.at = to;
        }
        Ok(())
    }

    /// Follows a link found in the directory the walk is at. True if it jumped straight to an object.
    fn link(&mut self, link: &Arc<Dentry>, slash: bool) -> Result<bool, Errno> {
        self.links += 1;
        let refused =
            self.resolve.contains(Resolve::NO_SYMLINKS) || self.at.mount.flags().contains(MountFlags::NO_SYMFOLLOW);
        if self.links > LINKS_MAX || refused {
            return Err(Errno::ELOOP);
        }
        match link.inode().follow(self.caller)? {
            Link::Jump(to) => {
                if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
                    return Err(Errno::EXDEV);
                }
                self.at = to;
                Ok(true)
            }
            Link::Text(mut target) => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                let rest = self.path.get(self.position..).unwrap_or_default();
                if !rest.is_empty() || slash {
                    target.push(b'/');
                    target.extend_from_slice(rest);
                }
                if target.len() > EXPANDED_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                self.ahead.clear();
                self.path = Cow::Owned(target);
                self.position = 0;
                self.enter_path()?;
                Ok(false)
            }
        }
    }

    /// Walks up to, not into, the last component.
    fn up_to_last(&mut self) -> Result<(Piece, bool), Errno> {
        loop {
            let Some((piece, last, slash)) = self.next() else { return Ok((Piece::Dot, true)) };
            self.check_directory()?;
            if last {
                return Ok((piece, slash));
            }
            match piece {
                Piece::Dot => {}
                Piece::DotDot => self.up()?,
                Piece::Name(range) => {
                    let found = self.look(range)?.ok_or(Errno::ENOENT)?;
                    if found.inode().kind() == FileType::Link {
                        self.link(&found, slash)?;
                    } else {
                        self.go(found)?;
                    }
                }
            }
        }
    }

    /// The directory of the last component. Links in that component are not followed.
    pub fn parent(mut self) -> Result<Parent, Errno> {
        self.parent_step()
    }

    fn parent_step(&mut self) -> Result<Parent, Errno> {
        let (piece, slash) = self.up_to_last()?;
        let last = match piece {
            Piece::Dot => Last::Dot,
            Piece::DotDot => Last::DotDot,
            Piece::Name(range) => {
                let name = self.path.get(range).unwrap_or_default();
                if name.len() > NAME_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                Last::Name(name.to_vec())
            }
        };
        Ok(Parent { dir: self.at.clone(), last, slash })
    }

    /// The object itself. A link in the last component is followed if `follow`, or if slashes come after it.
    pub fn target(mut self, follow: bool) -> Result<PathRef, Errno> {
        loop {
            let (piece, slash) = self.up_to_last()?;
            match piece {
                Piece::Dot => {}
                Piece::DotDot => self.up()?,
                Piece::Name(range) => {
                    let found = self.look(range)?.ok_or(Errno::ENOENT)?;
                    if found.inode().kind() == FileType::Link && (follow || slash) {
                        if !self.link(&found, slash)? {
                            continue;
                        }
                    } else {
                        self.go(found)?;
                    }
                }
            }
            if slash && self.at.dentry.inode().kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(self.at);
        }
    }

    /// For `O_CREAT`: the object if it is there, else the directory to make the name in. `follow` as for
    /// [`target`](Self::target).
    pub fn target_or_parent(mut self, follow: bool) -> Result<Result<PathRef, Parent>, Errno> {
        loop {
            let parent = self.parent_step()?;
            let name = match &parent.last {
                Last::Dot => return Ok(Ok(self.at)),
                Last::DotDot => {
                    self.up()?;
                    return Ok(Ok(self.at));
                }
                Last::Name(name) => name,
            };
            let asked = self.ahead.pop_front().filter(|(dir, ..)| Arc::ptr_eq(dir, self.at.dentry.inode()));
            let asked = asked.map(|(_, _, found)| found);
            let Some(found) = self.at.dentry.child_found(self.caller, name, asked)? else { return Ok(Err(parent)) };
            if found.inode().kind() == FileType::Link && (follow || parent.slash) {
                if !self.link(&found, parent.slash)? {
                    continue;
                }
                return Ok(Ok(self.at));
            }
            self.go(found)?;
            if parent.slash && self.at.dentry.inode().kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(Ok(self.at));
        }
    }
}
