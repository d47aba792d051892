//! Packet sockets of the Sentry's (`packet(7)`): frames that they want to see, and frames that they send.
//!
//! Hands frames over only while the Sentry says that it wants them; what finds no room is lost and counted, and nobody waits. Called by `stack`.

use std::sync::Arc;

use cofferdam_socket::frame::{self, Head, flags, wanted};
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::Slot;
use cofferdam_socket::{Broken, Side, Window};

/// The slot of frames.
#[derive(Debug)]
pub struct Tap {
    window: Arc<Window>,
    slot: Slot,
    seen: Producer,
    sent: Consumer,
    /// Frames that found no room since the last that did.
    lost: u32,
    /// There is something for the Sentry to look at.
    news: bool,
    broken: Option<Broken>,
}

impl Tap {
    /// Of a window.
    pub fn new(window: &Arc<Window>) -> Result<Self, Broken> {
        let slot = frame::slot(window)?;
        let (seen, sent) = slot.rings(window, Side::Netd);
        Ok(Self { window: window.clone(), slot, seen, sent, lost: 0, news: false, broken: None })
    }

    /// A frame has come by an interface, or left. `how`: see [`flags`]. Whether it was handed over, if it was wanted.
    pub fn see(&mut self, interface: u32, how: u32, ethernet: &[u8], packet: &[u8]) -> bool {
        let wants = if how & flags::LEFT != 0 { wanted::LEAVING } else { wanted::COMING };
        if self.slot.said(&self.window) & wants == 0 {
            return true;
        }
        let head = Head { interface, lost: self.lost, flags: how };
        let put = self.seen.grow().and_then(|()| frame::put(&mut self.seen, head, ethernet, packet));
        self.news = true;
        match put {
            Ok(true) => self.lost = 0,
            Ok(false) => self.lost = self.lost.saturating_add(1),
            Err(e) => self.broken = Some(e),
        }
        self.lost == 0
    }

    /// The slot, if the Sentry is to be told of it.
    pub fn news(&mut self) -> Result<Option<Slot>, Broken> {
        match self.broken.take() {
            Some(e) => Err(e),
            None => Ok(std::mem::take(&mut self.news).then_some(self.slot)),
        }
    }

    /// The next frame that is to leave, and by which interface.
    pub fn to_send(&mut self) -> Result<Option<(u32, Vec<u8>)>, Broken> {
        Ok(frame::take(&mut self.sent)?.map(|(head, frame)| (head.interface, frame)))
    }
}
