//! Where a container says that it is ready, as a service of systemd does (`sd_notify(3)`): a datagram socket that is shown at a path of
//! its tree of files.
//!
//! Owns who listens there. Of what is sent, nothing goes further than that a line of it was `READY=1`, and that once: descriptors are
//! closed, and all else is forgotten. Called by the parent module.

use std::sync::{Arc, Weak};

use crate::ipc::unix::Socket;
use crate::sync::Mutex;
use crate::uio::Sink;
use crate::wait::{PollMask, Registration, Wake, push_work};

/// What is looked at of a message.
const LONGEST: usize = 4096;
/// Messages that are looked at in one go: as many as may wait.
const AT_ONCE: usize = 512;

/// What there is to say, once.
type Tell = Box<dyn FnOnce() + Send>;

/// Listens until it is dropped.
pub struct Ready {
    _registration: Registration,
    _ear: Arc<Ear>,
}

impl Ready {
    /// Calls `tell` once a message at `socket` has said so.
    pub fn listen(socket: Arc<Socket>, tell: Tell) -> Self {
        let queue = socket.queue().clone();
        let ear = Arc::new_cyclic(|me| Ear { me: me.clone(), socket, tell: Mutex::new(Some(tell)) });
        Self { _registration: queue.register(ear.clone(), PollMask::READ), _ear: ear }
    }
}

struct Ear {
    me: Weak<Ear>,
    socket: Arc<Socket>,
    tell: Mutex<Option<Tell>>,
}

impl Wake for Ear {
    fn wake(&self, _: PollMask) {
        if let Some(me) = self.me.upgrade() {
            push_work(Box::new(move || me.hear()));
        }
    }
}

impl Ear {
    /// Takes what has come.
    fn hear(&self) {
        for _ in 0..AT_ONCE {
            let mut text = Vec::new();
            match self.socket.receive(&mut Sink::kernel(&mut text, LONGEST), false, false) {
                Ok(got) if !got.ended => {}
                _ => return,
            }
            if says_so(&text)
                && let Some(tell) = self.tell.lock().take()
            {
                tell();
            }
        }
    }
}

/// Whether a message says that its sender is ready.
fn says_so(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::says_so;

    #[test]
    fn only_a_whole_line_says_so() {
        for text in ["READY=1", "READY=1\n", "STATUS=well\nREADY=1\nMAINPID=7"] {
            assert!(says_so(text.as_bytes()), "{text:?}");
        }
        for text in ["", "READY=0", "READY=12", "STATUS=READY=1", " READY=1", "ready=1"] {
            assert!(!says_so(text.as_bytes()), "{text:?}");
        }
    }
}
