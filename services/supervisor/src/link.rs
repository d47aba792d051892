//! The channel to one service of a sandbox, and what is known of the service's end.
//!
//! Owns which answer is to which question, of which there is a bounded number, and the last words of a service that is gone. A Gofer
//! answers one question after the other; a Sentry says which it answers. Called by `sandbox` and `container`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use cofferdam_control::sentry::FailureKind;
use cofferdam_control::{AsyncChannel, Channel, ControlError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::house::{House, Launched};
use crate::launcher::Service;
use crate::spec::Refused;

/// How long a service may take to come up, or to answer an order.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What is said of one that takes longer.
pub const LATE: &str = "does not answer in time";
/// How long it may take to end by itself.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// The most unanswered orders to one service.
const MAX_UNANSWERED: usize = 1024;

/// A channel to a service.
pub struct Link<T> {
    /// The channel.
    pub channel: AsyncChannel,
    /// Who waits, by the number of the question.
    answers: RefCell<BTreeMap<u64, oneshot::Sender<T>>>,
    /// The number of the next.
    next: Cell<u64>,
    /// The process.
    pub launched: Launched,
}

impl<T: DeserializeOwned> Link<T> {
    /// Has a service started.
    pub fn new(house: &House, service: Service) -> Result<Self, Refused> {
        Self::with(house, service, None)
    }

    /// The same of one that is to use a network of the host's.
    pub fn with(house: &House, service: Service, network: Option<BorrowedFd<'_>>) -> Result<Self, Refused> {
        let (ours, theirs) = Channel::pair().map_err(internal)?;
        let launched = house.launch(service, theirs, network)?;
        let channel = AsyncChannel::new(ours).map_err(internal)?;
        Ok(Self { channel, answers: RefCell::default(), next: Cell::new(0), launched })
    }

    /// Sends an order and waits for its answer.
    pub async fn ask<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<T, Lost> {
        self.ask_numbered(|_| message, descriptors).await
    }

    /// The same, of an order that is told its number.
    pub async fn ask_numbered<M: Serialize>(
        &self,
        message: impl FnOnce(u64) -> M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<T, Lost> {
        let answer = self.order(message, descriptors)?;
        let answer = timeout(PATIENCE, answer).await.map_err(|_| Lost(LATE))?;
        answer.map_err(|_| Lost("is gone"))
    }

    /// Sends an order whose answer nobody waits for.
    pub fn tell<M: Serialize>(&self, message: &M) -> Result<(), Lost> {
        self.tell_numbered(|_| message)
    }

    /// The same, of an order that is told its number.
    pub fn tell_numbered<M: Serialize>(&self, message: impl FnOnce(u64) -> M) -> Result<(), Lost> {
        self.order(message, &[]).map(drop)
    }

    fn order<M: Serialize>(
        &self,
        message: impl FnOnce(u64) -> M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<oneshot::Receiver<T>, Lost> {
        let (to, answer) = oneshot::channel();
        let number = self.next.get();
        {
            let mut answers = self.answers.borrow_mut();
            if answers.len() >= MAX_UNANSWERED {
                return Err(Lost("has too much to answer"));
            }
            answers.insert(number, to);
        }
        self.next.set(number.wrapping_add(1));
        self.channel.send(&message(number), descriptors).map_err(|_| Lost("cannot be told anything"))?;
        Ok(answer)
    }

    /// Gives an answer to whoever asked that, or else to whoever asked first.
    pub fn answer(&self, number: Option<u64>, message: T) -> Result<(), &'static str> {
        let to = {
            let mut answers = self.answers.borrow_mut();
            match number {
                Some(number) => answers.remove(&number),
                None => answers.pop_first().map(|(_, to)| to),
            }
        };
        // One that gave up waiting does not mind.
        to.map(|to| drop(to.send(message))).ok_or("it answered what nobody asked")
    }

    /// Why it is gone: how it ended, and its last words.
    pub async fn obituary(&self, why: &str) -> String {
        let mut ending = self.launched.ending.clone();
        let how = match timeout(Duration::from_millis(500), ending.wait_for(Option::is_some)).await {
            Ok(Ok(how)) => how.clone().unwrap_or_default(),
            _ => why.to_owned(),
        };
        let mut words = Vec::new();
        let _ = (&self.launched.voice).take(2048).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words).trim().escape_debug().to_string();
        let title = self.launched.service.title();
        if words.is_empty() { format!("the {title} {how}") } else { format!("the {title} {how}: {words}") }
    }
}

/// The service is gone or does not answer: which of them. If it ended, the reader task tells more.
#[derive(Debug)]
pub struct Lost(pub &'static str);

impl<T: DeserializeOwned> Link<T> {
    /// Waits for its process to end, which was told to or is to be killed.
    pub async fn farewell(&self, house: &House) {
        let mut ending = self.launched.ending.clone();
        if timeout(FAREWELL, ending.wait_for(Option::is_some)).await.is_err() {
            house.kill(self.launched.key);
            let _ = timeout(FAREWELL, ending.wait_for(Option::is_some)).await;
        }
    }

    /// Nobody answers any more: whoever waits is told.
    pub fn forget(&self) {
        self.answers.borrow_mut().clear();
    }
}

/// A failure of the channel.
pub fn internal(e: ControlError) -> Refused {
    Refused::new(FailureKind::Internal, e.to_string())
}
