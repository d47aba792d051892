//! The crew: serving threads, of which one leads.
//!
//! The leader alone waits for notifications and serves each itself; the others sleep until they are given the lead. Two
//! that wait would both be woken by every notification, and the one that finds nothing costs two context switches a
//! call. The lead is handed over only where the leader is about to block ([`about_to_block`]) and a container thread
//! may want something meanwhile. Owns the threads and who leads; knows nothing of what they serve. Called by `notify`, and by the
//! Sentry for the supervisor's orders, of which one that waits for a Gofer must not hold up the others.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Serving threads that may exist at once.
const MOST: usize = 64;

/// What a serving thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It receives.
    Leads,
    /// It left the lead to whoever needs it and will find out whether anybody did: see [`Crew::deserted`].
    MayLead,
    /// Another leads.
    Follows,
}

thread_local! {
    /// The crew that this thread is of.
    static MEMBER: RefCell<Option<(Arc<Crew>, Role)>> = const { RefCell::new(None) };
}

/// All serving threads of a platform.
pub struct Crew {
    /// Container threads that run: only they can make a notification.
    running: AtomicI64,
    /// The leader blocks while nothing runs: whoever makes a thread run must see to a new leader.
    deserted: AtomicBool,
    state: Mutex<State>,
    turn: Condvar,
    /// What a thread does while it leads: receives and serves one notification.
    step: Box<dyn Fn() + Send + Sync>,
}

struct State {
    /// Somebody leads, or may.
    led: bool,
    /// Threads that wait for the lead.
    waiting: usize,
    members: usize,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").finish_non_exhaustive()
    }
}

impl Crew {
    /// A crew without members, whose leaders do `step` again and again.
    pub fn new(step: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        let state = Mutex::new(State { led: false, waiting: 0, members: 0 });
        Arc::new(Self {
            running: AtomicI64::new(0),
            deserted: AtomicBool::new(false),
            state,
            turn: Condvar::new(),
            step,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calling thread the first member, for ever.
    pub fn join(self: &Arc<Self>) -> ! {
        self.lock().members += 1;
        self.serve()
    }

    fn serve(self: &Arc<Self>) -> ! {
        MEMBER.set(Some((self.clone(), Role::Follows)));
        loop {
            if !self.leads() {
                let mut state = self.lock();
                state.waiting += 1;
                while state.led {
                    state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.waiting -= 1;
                state.led = true;
                drop(state);
                set_role(Role::Leads);
            }
            (self.step)();
        }
    }

    /// Whether the calling member leads now.
    fn leads(&self) -> bool {
        match role() {
            Role::Leads => true,
            Role::MayLead if self.deserted.swap(false, Ordering::SeqCst) => {
                set_role(Role::Leads);
                true
            }
            Role::MayLead | Role::Follows => {
                set_role(Role::Follows);
                false
            }
        }
    }

    /// Gives the lead away: to a member that waits, or to a new one.
    fn hand_over(self: &Arc<Self>) {
        let mut state = self.lock();
        state.led = false;
        if state.waiting > 0 {
            drop(state);
            self.turn.notify_one();
            return;
        }
        if state.members >= MOST {
            // Whoever ends its work next leads.
            return;
        }
        state.members += 1;
        drop(state);
        let crew = self.clone();
        let builder = std::thread::Builder::new().name("worker".into()).stack_size(256 << 10);
        if let Err(e) = builder.spawn(move || crew.serve()) {
            self.lock().members -= 1;
            tracing::warn!("no further serving thread: {e}");
        }
    }

    /// A container thread runs from now on.
    pub fn runs(self: &Arc<Self>) {
        self.running.fetch_add(1, Ordering::SeqCst);
        // A leader that only may lead comes back to look by itself.
        if self.deserted.load(Ordering::SeqCst)
            && role() != Role::MayLead
            && self.deserted.swap(false, Ordering::SeqCst)
        {
            self.hand_over();
        }
    }

    /// How many container threads run.
    pub(crate) fn running(&self) -> i64 {
        self.running.load(Ordering::Relaxed)
    }

    /// A container thread no longer runs: it stopped, or is gone.
    pub(crate) fn stops(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// The calling member is about to block.
    fn before_block(self: &Arc<Self>) {
        if !self.leads() {
            return;
        }
        set_role(Role::MayLead);
        self.deserted.store(true, Ordering::SeqCst);
        if self.running.load(Ordering::SeqCst) > 0 && self.deserted.swap(false, Ordering::SeqCst) {
            set_role(Role::Follows);
            self.hand_over();
        }
    }
}

fn role() -> Role {
    MEMBER.with_borrow(|m| m.as_ref().map_or(Role::Follows, |(_, role)| *role))
}

fn set_role(role: Role) {
    MEMBER.with_borrow_mut(|m| {
        if let Some((_, r)) = m {
            *r = role;
        }
    });
}

/// Says that the calling thread may block for long (a message to another service, a contended lock, a big copy): another
/// serves the container meanwhile. No effect on a thread that serves nobody.
pub fn about_to_block() {
    let crew = MEMBER.with_borrow(|m| m.as_ref().map(|(crew, _)| crew.clone()));
    if let Some(crew) = crew {
        crew.before_block();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    /// Runs closures as steps, handed in through a channel.
    fn crew() -> (Arc<Crew>, mpsc::Sender<Job>) {
        let (send, receive) = mpsc::channel::<Job>();
        let receive = Mutex::new(receive);
        let crew = Crew::new(Box::new(move || {
            let next = receive.lock().unwrap().recv();
            match next {
                Ok(work) => work(),
                Err(_) => std::thread::sleep(Duration::from_secs(3600)),
            }
        }));
        let member = crew.clone();
        std::thread::spawn(move || member.join());
        (crew, send)
    }

    #[test]
    fn a_blocked_leader_is_replaced_when_something_runs() {
        let (crew, steps) = crew();
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        crew.runs();
        steps
            .send(Box::new(move || {
                about_to_block();
                released.recv().unwrap();
            }))
            .unwrap();
        steps.send(Box::new(move || tell.send(()).unwrap())).unwrap();
        told.recv_timeout(Duration::from_secs(10)).expect("another serves while the first is blocked");
        release.send(()).unwrap();
    }

    #[test]
    fn a_leader_blocked_while_nothing_runs_is_replaced_once_something_does() {
        let (crew, steps) = crew();
        let (release, released) = mpsc::channel::<()>();
        let (blocked, is_blocked) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        steps
            .send(Box::new(move || {
                about_to_block();
                blocked.send(()).unwrap();
                released.recv().unwrap();
            }))
            .unwrap();
        is_blocked.recv().unwrap();
        steps.send(Box::new(move || tell.send(()).unwrap())).unwrap();
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "nobody was needed yet");
        crew.runs();
        told.recv_timeout(Duration::from_secs(10)).expect("another serves now");
        release.send(()).unwrap();
    }

    #[test]
    fn one_at_a_time_leads() {
        let (crew, steps) = crew();
        let inside = Arc::new(AtomicUsize::new(0));
        let (tell, told) = mpsc::channel();
        crew.runs();
        for i in 0..200 {
            let (inside, tell) = (inside.clone(), tell.clone());
            steps
                .send(Box::new(move || {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "step {i}");
                    inside.fetch_sub(1, Ordering::SeqCst);
                    about_to_block();
                    std::thread::sleep(Duration::from_micros(50));
                    tell.send(()).unwrap();
                }))
                .unwrap();
        }
        for _ in 0..200 {
            told.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(crew.lock().members <= MOST);
    }
}
