//! Further processes of a container (`exec`).
//!
//! Each is made in two steps, as a container is: loaded with its standard streams, so that what is wrong is told to whoever asked;
//! then let go, once somebody waits for its end. Called by `server`; its end comes through `container`.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use cofferdam_control::client::{Exec, Status};
use cofferdam_control::gofer::{FromGofer, ToGofer, stdio_name};
use cofferdam_control::sentry::{ExitStatus, FailureKind, FromSentry, ToSentry};
use tokio::sync::watch;

use crate::container::{Container, End};
use crate::spec::{self, Refused};

/// The most processes of `exec` that one container has at a time.
const MAX: usize = 4000;

/// A process of `exec`.
#[derive(Debug)]
pub struct Running {
    /// Whether somebody has it, so that the death of who asked for it does not matter.
    pub kept: Cell<bool>,
    /// How it ended.
    pub end: watch::Sender<Option<End>>,
}

/// How many descriptors of its own come with the request for a process.
pub fn expected(tty: bool, more: u32) -> usize {
    usize::try_from(more).unwrap_or(usize::MAX).saturating_add(if tty { 1 } else { 3 })
}

impl Container {
    /// Makes a process that does not run yet; its number.
    pub async fn exec(self: &Rc<Self>, request: &Exec, descriptors: Vec<OwnedFd>) -> Result<u32, Refused> {
        if descriptors.len() != expected(request.tty, request.more_files) {
            return Err(Refused::new(FailureKind::Invalid, "an exec request with the wrong number of descriptors"));
        }
        let mut process = spec::exec_process(&request.process, request.verbatim.as_ref())?;
        process.terminal = request.tty;
        process.more_files = request.more_files;
        process.console_size = request.console_size.or(process.console_size);
        let id = match self.state().status {
            Status::Created | Status::Running => self.state().id,
            Status::Paused if request.in_frozen => self.state().id,
            Status::Paused => return Err(Refused::new(FailureKind::WrongState, "cannot exec in a paused container")),
            _ => return Err(Refused::new(FailureKind::WrongState, "cannot exec in a stopped container")),
        };
        if self.execs.borrow().len() >= MAX {
            return Err(Refused::new(FailureKind::Host, format!("the container has {MAX} processes of exec already")));
        }
        let number = self.next_process.get();
        self.next_process.set(number.checked_add(1).ok_or_else(|| {
            Refused::new(FailureKind::Host, "the container has had as many processes of exec as can be counted")
        })?);
        let name = stdio_name(&id, number);
        let add = ToGofer::AddStdio { container: name.clone(), tty: request.tty };
        let stdio: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        match self.gofer.ask(&add, &stdio).await {
            Ok(FromGofer::Done) => {}
            other => return Err(self.gofer_refused(other).await),
        }
        // The Gofer holds them now: when the process has ended nobody else shall.
        drop(stdio);
        drop(descriptors);
        let running = Running { kept: Cell::new(false), end: watch::channel(None).0 };
        self.execs.borrow_mut().insert(number, Rc::new(running));
        match self.sandbox.ask(ToSentry::Exec { id, process: number, spec: Box::new(process) }, &[]).await {
            Ok(FromSentry::Created { .. }) => Ok(number),
            other => {
                self.execs.borrow_mut().remove(&number);
                let _ = self.gofer.tell(&ToGofer::RemoveStdio { container: name });
                Err(self.sentry_refused(other).await)
            }
        }
    }

    /// A process of `exec`.
    pub fn running(&self, process: u32) -> Result<Rc<Running>, Refused> {
        let running = self.execs.borrow().get(&process).cloned();
        running.ok_or_else(|| Refused::new(FailureKind::WrongState, "process already finished"))
    }

    /// Lets it run.
    pub async fn start_process(&self, process: u32) -> Result<(), Refused> {
        let (running, id) = (self.running(process)?, self.state().id);
        match self.sandbox.ask(ToSentry::Start { id, process }, &[]).await {
            Ok(FromSentry::Started { .. }) => Ok(()),
            // It may be over, and the sandbox with it, before the answer to its start came through.
            _ if running.end.borrow().is_some() => Ok(()),
            other => Err(self.sentry_refused(other).await),
        }
    }

    /// Notes that it has ended.
    pub fn process_ended(&self, process: u32, status: ExitStatus, reason: Option<String>) {
        let running = self.execs.borrow_mut().remove(&process);
        if let Some(running) = running {
            running.end.send_replace(Some((status, reason)));
        }
    }

    /// The container has ended: all that is left in it was killed.
    pub fn processes_ended(&self, reason: Option<&String>) {
        let left = std::mem::take(&mut *self.execs.borrow_mut());
        for running in left.into_values() {
            running.end.send_replace(Some((ExitStatus::Signal(9, false), reason.cloned())));
        }
    }

    /// Kills a process of `exec` that nobody has any more.
    pub async fn abandon(self: &Rc<Self>, process: u32) {
        if self.running(process).is_ok() {
            let _ = self.kill(process, 9, false).await;
        }
    }
}
