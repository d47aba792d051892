//! A file system while it is put together or changed: what `fsopen(2)` and `fspick(2)` open.
//!
//! Owned here: the phases that it goes through and what it has to say about what went wrong. What is asked for is the
//! [`Recipe`]'s; who may ask is the system calls' (`syscalls::mount_api`).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::filesystems::recipe::{Recipe, Value};
use crate::sync::Mutex;
use crate::task::Task;
use crate::task::creds::cap;
use crate::uio::Sink;
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::mount::{Mount, MountFlags};

/// Messages that are kept; the oldest go first.
const MESSAGES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes parameters of one that is to be made.
    Parameters,
    /// Something is under way.
    Busy,
    /// It is made and can be mounted.
    Made,
    /// It is there; may be changed.
    There,
    /// Takes parameters of a change.
    Changes,
    Failed,
}

struct State {
    phase: Phase,
    recipe: Recipe,
    mount: Option<Arc<Mount>>,
    log: VecDeque<String>,
}

/// An open context.
pub struct Context {
    state: Mutex<State>,
}

fn open(phase: Phase, recipe: Recipe, mount: Option<Arc<Mount>>) -> Arc<File> {
    let state = State { phase, recipe, mount, log: VecDeque::new() };
    anon::file(b"anon_inode:[fscontext]", Box::new(Context { state: Mutex::new(state) }), flags::RDWR)
}

/// For a new file system of that type; ENODEV.
pub fn for_new(kind: &[u8]) -> Result<Arc<File>, Errno> {
    Ok(open(Phase::Parameters, Recipe::new(kind)?, None))
}

/// For changes of one that is mounted.
pub fn for_mounted(mount: &Arc<Mount>) -> Arc<File> {
    open(Phase::Changes, Recipe::of(mount.fs.name().as_bytes()), Some(mount.apart(mount.root.clone())))
}

impl State {
    fn log(&mut self, message: String) {
        if self.log.len() >= MESSAGES {
            self.log.pop_front();
        }
        self.log.push_back(message + "\n");
    }

    /// As Linux: whatever comes after it was mounted begins a change.
    fn clean(&mut self) {
        if self.phase == Phase::There
            && let Some(mount) = &self.mount
        {
            // As Linux: what was said once of ro or rw is said again each time, and is rw unless told otherwise.
            let said = self.recipe.read_only.map(|_| false);
            self.recipe = Recipe::of(mount.fs.name().as_bytes());
            self.recipe.read_only = said;
            self.phase = Phase::Changes;
        }
    }

    fn begin(&mut self, phase: Phase) -> Result<(), Errno> {
        self.clean();
        if self.phase != phase {
            return Err(Errno::EBUSY);
        }
        self.phase = Phase::Busy;
        Ok(())
    }
}

impl Context {
    /// Sets a parameter.
    pub fn set(&self, task: &Arc<Task>, key: &[u8], value: &Value) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.clean();
        if !matches!(state.phase, Phase::Parameters | Phase::Changes) {
            return Err(Errno::EBUSY);
        }
        let mut messages = Vec::new();
        let result = state.recipe.set(task, key, value, &mut |m| messages.push(m));
        messages.into_iter().for_each(|m| state.log(m));
        result
    }

    /// `FSCONFIG_CMD_CREATE`; `exclusive`: only one that nobody has yet.
    pub fn create(&self, task: &Arc<Task>, exclusive: bool) -> Result<(), Errno> {
        // What is made may need another service: no lock is held meanwhile.
        let recipe = {
            let mut state = self.state.lock();
            state.begin(Phase::Parameters)?;
            if exclusive && state.recipe.is_shared() {
                state.phase = Phase::Failed;
                return Err(Errno::EBUSY);
            }
            std::mem::replace(&mut state.recipe, Recipe::of(b""))
        };
        let mut messages = Vec::new();
        let made = recipe.make(task, MountFlags::empty(), &mut |m| messages.push(m));
        let mut state = self.state.lock();
        state.recipe = recipe;
        messages.into_iter().for_each(|m| state.log(m));
        match made {
            Ok(mount) => {
                (state.phase, state.mount) = (Phase::Made, Some(mount));
                Ok(())
            }
            Err(e) => {
                // Who may not make it may try as somebody else.
                state.phase = if e == Errno::EPERM { Phase::Parameters } else { Phase::Failed };
                Err(e)
            }
        }
    }

    /// `FSCONFIG_CMD_RECONFIGURE`.
    pub fn reconfigure(&self, task: &Arc<Task>) -> Result<(), Errno> {
        let (mount, recipe) = {
            let mut state = self.state.lock();
            state.begin(Phase::Changes)?;
            (state.mount.clone(), std::mem::replace(&mut state.recipe, Recipe::of(b"")))
        };
        let mut messages = Vec::new();
        let change = || {
            let mount = mount.ok_or(Errno::EINVAL)?;
            if !task.creds().capable_in(mount.owner(), cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            recipe.change(&mount, &mut |m| messages.push(m))
        };
        let result = change();
        let mut state = self.state.lock();
        state.recipe = recipe;
        messages.into_iter().for_each(|m| state.log(m));
        state.phase = if result.is_ok() { Phase::There } else { Phase::Failed };
        result
    }

    /// What was made, to be mounted with these flags; only once. EINVAL if there is nothing, EBUSY if it is not the time.
    /// `may`: whether it may be seen where the caller is.
    pub fn mount(
        &self,
        flags: MountFlags,
        may: impl FnOnce(Arc<Mount>) -> Result<Arc<Mount>, Errno>,
    ) -> Result<Arc<Mount>, Errno> {
        let mut state = self.state.lock();
        let mount = state.mount.clone().ok_or(Errno::EINVAL)?;
        if state.phase != Phase::Made {
            return Err(Errno::EBUSY);
        }
        mount.set_flags(flags);
        if may(mount.clone()).is_err() {
            state.log(String::from("e Mount too revealing"));
            return Err(Errno::EPERM);
        }
        (state.phase, state.mount) = (Phase::There, Some(mount.apart(mount.root.clone())));
        Ok(mount)
    }
}

impl FileOps for Context {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    /// The oldest message, whole.
    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let message = {
            let log = &mut self.state.lock().log;
            if log.front().ok_or(Errno::ENODATA)?.len() > to.room() {
                return Err(Errno::EMSGSIZE);
            }
            log.pop_front().ok_or(Errno::ENODATA)?
        };
        to.put(message.as_bytes())
    }
}
