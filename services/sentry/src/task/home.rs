//! Where a container's host processes come from, in a sandbox of several: a process that runs nothing and that the others are copied
//! from, so that all of a container's are in the cgroup that this one was put in.
//!
//! Owned here: the process and who waits for a copy of it. It is a stub as any other, but no task's: it never runs anything of the
//! container. A container that is alone in its sandbox needs none. Made and ended by `sandbox`, asked by `exec` through `task::cgroup`.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cofferdam_platform::{Answer, Call, Frame, GuestThread, HostThread, Order, Platform, Registers, Trap};

use crate::errno::Errno;
use crate::signal::sig;
use crate::sync::Mutex;

/// How long the host may take to make it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    /// Told once it is there.
    ready: Option<mpsc::Sender<()>>,
    host: Option<Arc<dyn HostThread>>,
    /// Whether it waits for an order.
    idle: bool,
    wanted: VecDeque<Arc<dyn GuestThread>>,
    /// Who is being made now.
    making: Option<Arc<dyn GuestThread>>,
    /// It has ended: nobody is made any more.
    gone: bool,
}

/// A process that others are copied from.
pub struct Home {
    state: Mutex<State>,
}

impl Home {
    /// Makes one and waits for it.
    pub fn start(platform: &Arc<dyn Platform>) -> Result<Arc<Self>, Errno> {
        let (ready, there) = mpsc::channel();
        let home = Arc::new(Self { state: Mutex::new(State { ready: Some(ready), ..State::default() }) });
        platform.new_process(home.clone());
        match there.recv_timeout(PATIENCE) {
            Ok(()) => Ok(home),
            Err(_) => {
                home.end();
                Err(Errno::EAGAIN)
            }
        }
    }

    /// Its host process, in the Sentry's PID namespace.
    pub fn tid(&self) -> Option<i32> {
        self.state.lock().host.as_ref().map(|h| h.tid())
    }

    /// Makes a host process for `guest`, which hears of its own end if there cannot be one.
    pub fn new_process(&self, guest: Arc<dyn GuestThread>) {
        let host = {
            let mut state = self.state.lock();
            if state.gone {
                drop(state);
                return guest.lost(sig::KILL);
            }
            state.wanted.push_back(guest);
            if !std::mem::take(&mut state.idle) { None } else { state.host.clone() }
        };
        if let Some(host) = host {
            host.answer(self.next());
        }
    }

    /// Ends it. What was copied from it goes on.
    pub fn end(&self) {
        let host = {
            let mut state = self.state.lock();
            state.gone = true;
            state.host.take()
        };
        if let Some(host) = host {
            host.kill();
        }
        self.turn_away();
    }

    /// The order for whoever is next; it waits if there is nobody.
    fn next(&self) -> Answer {
        let mut state = self.state.lock();
        let Some(guest) = state.wanted.pop_front() else {
            state.idle = true;
            return Answer::Park;
        };
        state.making = Some(guest.clone());
        Answer::Orders(vec![Order::Clone {
            guest,
            thread: false,
            share_memory: false,
            registers: Registers::default(),
            fs: Some(0),
        }])
    }

    fn turn_away(&self) {
        let left = {
            let mut state = self.state.lock();
            state.making = None;
            std::mem::take(&mut state.wanted)
        };
        left.into_iter().for_each(|guest| guest.lost(sig::KILL));
    }
}

impl GuestThread for Home {
    fn attach(&self, host: Arc<dyn HostThread>) {
        let mut state = self.state.lock();
        if state.gone {
            drop(state);
            return host.kill();
        }
        state.host = Some(host);
    }

    fn call(self: Arc<Self>, _: Call) -> Answer {
        Answer::Return(-i64::from(Errno::EPERM.code()))
    }

    fn trap(self: Arc<Self>, trap: Trap, _: &mut dyn Frame) -> Answer {
        match trap {
            Trap::Start => {
                let ready = self.state.lock().ready.take();
                ready.map(|ready| ready.send(()));
            }
            Trap::Ordered(result) => {
                let made = self.state.lock().making.take();
                if let (Some(guest), true) = (made, result < 0) {
                    tracing::warn!(result, "the host makes no further process for a container");
                    guest.lost(sig::KILL);
                }
            }
            // Nothing runs in it that could be interrupted or at fault.
            _ => return Answer::Park,
        }
        self.next()
    }

    fn lost(self: Arc<Self>, signal: i32) {
        tracing::warn!(
            signal,
            "the process that a container's others are copied from is gone: no program can be started in it"
        );
        {
            let mut state = self.state.lock();
            state.gone = true;
            state.host = None;
        }
        self.turn_away();
    }
}
