//! Terminals: pseudo terminal pairs, controlling terminals; `pty(7)`, `ioctl_tty(2)`.
//!
//! A [`Tty`] is the slave side. Its other end is a master file in the container, or the host's terminal behind the Gofer's
//! stdio. Owned here: who waits, who is woken and who gets signals. Never here: what bytes become on their way (`n_tty`), and
//! numbers and nodes (`devpts`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::AnonInode;
use crate::filesystems::devpts::Devpts;
use crate::filesystems::stdio::Stream;
use crate::interval::{Base, IntervalTimer};
use crate::ipc::n_tty::{OUTPUT_MAX, State, packet};
use crate::ipc::termios::{Termios, WinSize, flag, special};
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::sync::Mutex;
use crate::task::creds::cap;
use crate::task::{Creds, Task};
use crate::time::Clock;
use crate::vfs::inode::makedev;
use crate::wait::{PollMask, WaitQueue};

/// Major number of pseudo terminal slaves.
pub const PTS_MAJOR: u32 = 136;

/// A terminal.
pub struct Tty {
    /// Its number in `/dev/pts`.
    pub number: u32,
    /// The instance that the number is one of.
    devpts: Arc<Devpts>,
    kernel: Arc<Kernel>,
    state: Mutex<State>,
    /// Woken for readers and writers of the terminal.
    pub queue: WaitQueue,
    /// Woken for the master.
    pub master_queue: WaitQueue,
    remote: Option<Arc<Stream>>,
    /// Measures pauses between bytes for a raw read with both `VMIN` and `VTIME`; made when first needed.
    pause: OnceLock<Arc<IntervalTimer>>,
    /// Its node in `/dev/pts`.
    pub node: OnceLock<Arc<AnonInode>>,
}

static SESSIONS: Mutex<Option<HashMap<i32, Weak<Tty>>>> = Mutex::new(None);

impl Drop for Tty {
    fn drop(&mut self) {
        self.devpts.release(self.number);
    }
}

/// The controlling terminal of a session.
pub fn of_session(sid: i32) -> Option<Arc<Tty>> {
    SESSIONS.lock().as_ref()?.get(&sid)?.upgrade()
}

/// Device number of a session's controlling terminal; 0 for none.
pub fn number_of_session(sid: i32) -> u64 {
    of_session(sid).map_or(0, |t| makedev(PTS_MAJOR, t.number))
}

/// Foreground process group of a session's controlling terminal; -1 for none.
pub fn foreground_of_session(sid: i32) -> i32 {
    of_session(sid).map_or(-1, |t| t.state.lock().foreground)
}

/// The leader of a session has ended: its terminal is nobody's, of which the foreground group is told.
pub fn session_ended(kernel: &Arc<Kernel>, sid: i32) {
    session_left(kernel, sid, &[sig::HUP]);
}

/// A session gives up its terminal; the foreground group gets these signals.
pub fn session_left(kernel: &Arc<Kernel>, sid: i32, signals: &[i32]) {
    let tty = SESSIONS.lock().as_mut().and_then(|s| s.remove(&sid)).and_then(|w| w.upgrade());
    if let Some(tty) = tty {
        let foreground = {
            let mut s = tty.state.lock();
            s.session = 0;
            std::mem::take(&mut s.foreground)
        };
        for signal in signals {
            send::to_process_group(kernel, foreground, SigInfo::new(*signal, code::KERNEL));
        }
    }
}

/// Session and process group of a task.
pub fn place_of(task: &Task) -> (i32, i32) {
    task.kernel().tree.lock().node(task.pid()).map_or((0, 0), |n| (n.sid, n.pgid))
}

impl Tty {
    /// A terminal with a number that `devpts` has taken for it. `remote`: the host's terminal at its other end.
    pub fn new(kernel: &Arc<Kernel>, devpts: Arc<Devpts>, number: u32, remote: Option<Arc<Stream>>) -> Arc<Self> {
        let tty = Arc::new(Self {
            number,
            devpts,
            kernel: kernel.clone(),
            state: Mutex::new(State::new(remote.is_none())),
            queue: remote.as_ref().map_or_else(WaitQueue::new, |r| r.queue.clone()),
            master_queue: WaitQueue::new(),
            remote,
            pause: OnceLock::new(),
            node: OnceLock::new(),
        });
        if let Some(stream) = &tty.remote {
            let me = Arc::downgrade(&tty);
            stream.feed(Box::new(move |data| match (me.upgrade(), data) {
                (Some(t), Some(data)) if data.is_empty() => {
                    t.end_typed();
                    true
                }
                (Some(t), Some(data)) => {
                    t.receive(&data);
                    true
                }
                (Some(t), None) => {
                    t.hang_up();
                    false
                }
                (None, _) => false,
            }));
        }
        tty
    }

    fn signal(&self, group: i32, signal: i32) {
        if group > 0 {
            send::to_process_group(&self.kernel, group, SigInfo::new(signal, code::KERNEL));
        }
    }

    /// Wakes readers and the master after input or output.
    fn wake(&self) {
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
        self.wake_master();
    }

    /// Wakes the master after output or a change that packet mode tells of.
    fn wake_master(&self) {
        self.master_queue.wake(PollMask::IN | PollMask::RDNORM | PollMask::PRI);
        self.flush_remote();
    }

    fn flush_remote(&self) {
        let Some(r) = &self.remote else { return };
        let data: Vec<u8> = {
            let mut s = self.state.lock();
            let n = s.output.len().min(r.room());
            s.output.drain(..n).collect()
        };
        if !data.is_empty() && r.send(&data).is_err() {
            self.hang_up();
        }
    }

    /// An end of file was typed at the host's terminal while that was not raw yet: it is typed here instead.
    fn end_typed(self: &Arc<Self>) {
        let end = {
            let s = self.state.lock();
            s.termios.local(flag::ICANON).then(|| s.termios.character(special::EOF))
        };
        if let Some(end) = end.filter(|b| *b != 0) {
            self.receive(&[end]);
        }
    }

    /// Input from the other end: as much of it as there is room for; how much that was.
    pub fn receive(self: &Arc<Self>, data: &[u8]) -> usize {
        let mut signals = Vec::new();
        let mut taken = 0;
        let pause = {
            let mut s = self.state.lock();
            for b in data {
                if !s.room() && self.remote.is_none() {
                    break;
                }
                s.character(*b, &mut signals);
                taken += 1;
            }
            s.paused = false;
            s.pause()
        };
        if let Some(ns) = pause {
            self.measure_pause(ns);
        }
        let group = self.state.lock().foreground;
        for n in signals {
            self.signal(group, n);
        }
        self.wake();
        taken
    }

    /// From now on so many nanoseconds with nothing more to read end a raw read that has something.
    fn measure_pause(self: &Arc<Self>, ns: i64) {
        let timer = self.pause.get_or_init(|| {
            let me = Arc::downgrade(self);
            IntervalTimer::new(&self.kernel.timers, Base::Clock(Clock::Monotonic), move |_| {
                if let Some(tty) = me.upgrade() {
                    tty.state.lock().paused = true;
                    tty.queue.wake(PollMask::IN | PollMask::RDNORM);
                }
            })
        });
        timer.set(ns, 0, false);
    }

    /// Reads what the line discipline lets through; `waits`: not before there is as much as `VMIN` says.
    pub fn read(&self, max: usize, waits: bool) -> Result<Vec<u8>, Errno> {
        let mut s = self.state.lock();
        if s.termios.local(flag::ICANON) {
            let Some(line) = s.lines.front().copied() else {
                return if s.hung_up { Ok(Vec::new()) } else { Err(Errno::EAGAIN) };
            };
            let n = line.min(max);
            let data = s.input.drain(..n).collect();
            if n == line {
                s.lines.pop_front();
            } else if let Some(l) = s.lines.front_mut() {
                *l -= n;
            }
            drop(s);
            self.master_queue.wake(PollMask::OUT | PollMask::WRNORM);
            return Ok(data);
        }
        if s.hung_up && s.input.is_empty() {
            return Ok(Vec::new());
        }
        let (least, time) = (s.termios.character(special::MIN), s.termios.character(special::TIME));
        if s.input.is_empty() && least == 0 && time == 0 {
            return Ok(Vec::new());
        }
        // With a minimum above what is asked for, what is asked for is enough; and who does not wait takes what there is.
        let least = if waits && !(s.paused && time > 0) { least.max(1) } else { 1 };
        if s.input.len() < usize::from(least).min(max) {
            return Err(Errno::EAGAIN);
        }
        let n = s.input.len().min(max);
        let data = s.input.drain(..n).collect();
        drop(s);
        self.master_queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(data)
    }

    /// How long a read waits for its first byte, nanoseconds (`VTIME` with `VMIN` 0).
    pub fn read_timeout(&self) -> Option<i64> {
        let s = self.state.lock();
        let (least, time) = (s.termios.character(special::MIN), s.termios.character(special::TIME));
        (!s.termios.local(flag::ICANON) && least == 0 && time > 0).then(|| i64::from(time) * 100_000_000)
    }

    /// Writes output; how many bytes of it. EAGAIN if there is no room, EIO after a hang-up.
    pub fn write(&self, data: &[u8]) -> Result<usize, Errno> {
        let n = {
            let mut s = self.state.lock();
            if s.hung_up {
                return Err(Errno::EIO);
            }
            if s.stopped {
                return Err(Errno::EAGAIN);
            }
            let mut n = 0;
            for b in data {
                if s.output.len() + 8 > OUTPUT_MAX {
                    break;
                }
                s.put(*b);
                n += 1;
            }
            n
        };
        self.master_queue.wake(PollMask::IN | PollMask::RDNORM);
        self.flush_remote();
        if n == 0 && !data.is_empty() { Err(Errno::EAGAIN) } else { Ok(n) }
    }

    /// The master reads what was written. EAGAIN if there is nothing, EIO once the slave is closed.
    pub fn master_read(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let mut s = self.state.lock();
        if max > 0 && s.packet && s.packet_status != 0 {
            return Ok(vec![std::mem::take(&mut s.packet_status)]);
        }
        if s.output.is_empty() {
            return Err(if s.slave_seen && s.slaves == 0 { Errno::EIO } else { Errno::EAGAIN });
        }
        let mut out = Vec::new();
        if s.packet {
            out.push(0);
        }
        let n = s.output.len().min(max.saturating_sub(out.len()));
        out.extend(s.output.drain(..n));
        drop(s);
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(out)
    }

    /// Events for the slave, or for the master.
    pub fn events(&self, master: bool) -> PollMask {
        let s = self.state.lock();
        let mut m = PollMask::empty();
        let canonical = s.termios.local(flag::ICANON);
        if master {
            m.set(PollMask::IN | PollMask::RDNORM, !s.output.is_empty() || (s.packet && s.packet_status != 0));
            m.set(PollMask::PRI, s.packet && s.packet_status != 0);
            m.set(PollMask::OUT | PollMask::WRNORM, s.room());
            m.set(PollMask::HUP, s.slave_seen && s.slaves == 0);
            return m;
        }
        let least = if s.termios.character(special::TIME) > 0 { 1 } else { s.termios.character(special::MIN).max(1) };
        let some = if canonical { !s.lines.is_empty() } else { s.input.len() >= usize::from(least) };
        m.set(PollMask::IN | PollMask::RDNORM, some || s.hung_up);
        m.set(PollMask::OUT | PollMask::WRNORM, !s.stopped && s.output.len() < OUTPUT_MAX / 2);
        m.set(PollMask::HUP | PollMask::ERR, s.hung_up);
        m
    }

    /// A side was opened.
    pub fn opened(&self, master: bool) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if master {
            s.masters += 1;
        } else {
            if s.locked || s.hung_up {
                return Err(Errno::EIO);
            }
            s.slaves += 1;
            s.slave_seen = true;
        }
        Ok(())
    }

    /// A side was closed.
    pub fn closed(&self, master: bool) {
        let gone = {
            let mut s = self.state.lock();
            let count = if master { &mut s.masters } else { &mut s.slaves };
            *count = count.saturating_sub(1);
            *count == 0
        };
        if gone && master {
            self.hang_up();
            self.devpts.unlist(self.number);
            if let Some(node) = self.node.get() {
                node.unlinked();
            }
        }
        self.master_queue.wake(PollMask::empty());
    }

    /// Whether the other end of a slave is gone.
    pub fn is_hung_up(&self) -> bool {
        self.state.lock().hung_up
    }

    /// The other end is gone: readers see the end, writers EIO, the session is told.
    pub fn hang_up(&self) {
        let (session, foreground) = {
            let mut s = self.state.lock();
            if s.hung_up {
                return;
            }
            s.hung_up = true;
            (std::mem::take(&mut s.session), std::mem::take(&mut s.foreground))
        };
        // It is nobody's from now on.
        if let Some(sessions) = SESSIONS.lock().as_mut() {
            sessions.remove(&session);
        }
        for signal in [sig::HUP, sig::CONT] {
            if let Some(leader) = self.kernel.tree.lock().group(session) {
                send::to_group(&self.kernel, &leader, SigInfo::new(signal, code::KERNEL));
            }
            self.signal(foreground, signal);
        }
        self.queue.wake_all();
    }

    /// The window size.
    pub fn size(&self) -> WinSize {
        self.state.lock().size
    }

    /// Sets the window size; the foreground group is told of a change.
    pub fn set_size(&self, size: WinSize) {
        let group = {
            let mut s = self.state.lock();
            if s.size == size {
                return;
            }
            s.size = size;
            s.foreground
        };
        self.signal(group, sig::WINCH);
    }

    /// The settings.
    pub fn termios(&self) -> Termios {
        self.state.lock().termios
    }

    /// Changes the settings; `flush` forgets input that was not read.
    pub fn set_termios(&self, new: Termios, flush: bool) {
        {
            let new = new.of_pseudo_terminal();
            let mut s = self.state.lock();
            if flush {
                s.flush_input();
            }
            let old = std::mem::replace(&mut s.termios, new);
            if old.usual_flow_control() != new.usual_flow_control() {
                s.packet_status &= !(packet::DO_STOP | packet::NO_STOP);
                s.tell(if new.usual_flow_control() { packet::DO_STOP } else { packet::NO_STOP });
            }
            if old.local(flag::EXTPROC) || new.local(flag::EXTPROC) {
                s.tell(packet::IOCTL);
            }
            match (old.local(flag::ICANON), new.local(flag::ICANON)) {
                (true, false) => {
                    let line = std::mem::take(&mut s.line);
                    s.input.extend(line);
                    s.lines.clear();
                }
                (false, true) if !s.input.is_empty() => {
                    let n = s.input.len();
                    s.lines.push_back(n);
                }
                _ => {}
            }
            if old.input(flag::IXON) && !new.input(flag::IXON) {
                s.start();
            }
        }
        self.queue.wake_all();
        self.wake_master();
    }

    /// `TCFLSH` of a side: 0 input, 1 output, 2 both. What was put out has reached the other end already, which alone can
    /// forget it.
    pub fn flush(&self, master: bool, which: u64) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if which > 2 {
            return Err(Errno::EINVAL);
        }
        match master {
            true if which != 1 => s.output.clear(),
            true => {}
            false => {
                if which != 1 {
                    s.flush_input();
                }
                if which != 0 {
                    s.tell(packet::FLUSH_WRITE);
                }
            }
        }
        drop(s);
        self.queue.wake_all();
        self.wake_master();
        Ok(())
    }

    /// `TCXONC`: 0 stops output, 1 lets it go on, 2 and 3 ask the other end for that.
    pub fn control_flow(&self, how: u64) -> Result<(), Errno> {
        {
            let mut s = self.state.lock();
            match how {
                0 => {
                    s.stop();
                    s.stopped_by_call = true;
                }
                1 if s.stopped_by_call => {
                    s.stopped_by_call = false;
                    s.start();
                }
                1 => {}
                2 | 3 => {
                    let c = s.termios.character(if how == 2 { special::STOP } else { special::START });
                    if c != 0 && s.output.len() < OUTPUT_MAX {
                        s.output.push_back(c);
                    }
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        self.queue.wake_all();
        self.wake_master();
        Ok(())
    }

    /// `TIOCEXCL` and its kin: whether nobody else may open it.
    pub fn exclusive(&self, set: Option<bool>) -> bool {
        let mut s = self.state.lock();
        s.exclusive = set.unwrap_or(s.exclusive);
        s.exclusive
    }

    /// EBUSY for who may not open it because somebody has it alone.
    pub fn check_exclusive(&self, creds: &Creds) -> Result<(), Errno> {
        if self.exclusive(None) && !creds.capable(cap::SYS_ADMIN) { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// Bytes that can be read, by the slave or the master.
    pub fn available(&self, master: bool) -> usize {
        let s = self.state.lock();
        if master {
            s.output.len()
        } else if s.termios.local(flag::ICANON) {
            s.lines.iter().sum()
        } else {
            s.input.len()
        }
    }

    /// `TIOCSPTLCK`, `TIOCGPTLCK`.
    pub fn lock(&self, set: Option<bool>) -> bool {
        let mut s = self.state.lock();
        s.locked = set.unwrap_or(s.locked);
        s.locked
    }

    /// `TIOCPKT`, `TIOCGPKT`.
    pub fn packet(&self, set: Option<bool>) -> bool {
        let mut s = self.state.lock();
        if set == Some(true) && !s.packet {
            s.packet_status = 0;
        }
        s.packet = set.unwrap_or(s.packet);
        s.packet
    }

    /// Session and foreground process group.
    pub fn owners(&self) -> (i32, i32) {
        let s = self.state.lock();
        (s.session, s.foreground)
    }

    /// Sets the foreground process group.
    pub fn set_foreground(&self, group: i32) {
        self.state.lock().foreground = group;
    }

    /// Becomes the controlling terminal of the caller's session. EPERM unless the caller leads a session that has none;
    /// `steal` takes it from another session, which needs a right.
    pub fn make_controlling(self: &Arc<Self>, task: &Task, steal: bool) -> Result<(), Errno> {
        let (sid, pgid) = place_of(task);
        if sid != task.pid() {
            return Err(Errno::EPERM);
        }
        let current = of_session(sid);
        if current.as_ref().is_some_and(|t| Arc::ptr_eq(t, self)) {
            return Ok(());
        }
        let may_steal = steal && task.creds().capable(cap::SYS_ADMIN);
        let mut s = self.state.lock();
        if current.is_some() || (s.session != 0 && !may_steal) {
            return Err(Errno::EPERM);
        }
        let old = s.session;
        (s.session, s.foreground) = (sid, pgid);
        drop(s);
        let mut sessions = SESSIONS.lock();
        let sessions = sessions.get_or_insert_default();
        sessions.remove(&old);
        sessions.insert(sid, Arc::downgrade(self));
        Ok(())
    }

    /// Checks job control for a read (SIGTTIN), or a write or change of settings (SIGTTOU).
    pub fn check_foreground(&self, task: &Arc<Task>, signal: i32) -> Result<(), Errno> {
        let (sid, pgid) = place_of(task);
        {
            let s = self.state.lock();
            if s.session != sid || s.foreground == pgid || s.foreground == 0 {
                return Ok(());
            }
            if signal == sig::TTOU && !s.termios.local(flag::TOSTOP) {
                return Ok(());
            }
        }
        self.stop_background(task, pgid, signal)
    }

    /// As [`check_foreground`](Self::check_foreground) for changes of settings, which `TOSTOP` does not matter to.
    pub fn check_change(&self, task: &Arc<Task>) -> Result<(), Errno> {
        let (sid, pgid) = place_of(task);
        let (session, foreground) = self.owners();
        if session != sid || foreground == pgid || foreground == 0 {
            return Ok(());
        }
        self.stop_background(task, pgid, sig::TTOU)
    }

    fn stop_background(&self, task: &Arc<Task>, pgid: i32, signal: i32) -> Result<(), Errno> {
        let (ignored, _) = task.actions().lock().sets();
        if ignored.has(signal) || task.mask().has(signal) {
            return if signal == sig::TTIN { Err(Errno::EIO) } else { Ok(()) };
        }
        if self.kernel.tree.lock().orphaned(pgid, 0) {
            return Err(Errno::EIO);
        }
        self.signal(pgid, signal);
        Err(Errno::ERESTARTSYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_shm::Window;

    fn tty() -> Arc<Tty> {
        let window = || Window::create("t", 1 << 30).unwrap();
        let instance = Devpts::new(Default::default(), &Creds::root(0));
        let t = instance.make(&Kernel::new(window(), window()), None, (0, 0)).unwrap();
        t.opened(true).unwrap();
        assert_eq!(t.opened(false), Err(Errno::EIO), "locked");
        t.lock(Some(false));
        t.opened(false).unwrap();
        t
    }

    fn shown(t: &Tty) -> Vec<u8> {
        t.master_read(1000).unwrap_or_default()
    }

    #[test]
    fn lines_are_edited_echoed_and_read_one_by_one() {
        let t = tty();
        t.receive(b"helo\x7flo\r");
        assert_eq!(shown(&t), b"helo\x08 \x08lo\r\n");
        t.receive(b"two\n\x04part");
        assert_eq!(t.read(100, true).unwrap(), b"hello\n");
        assert_eq!(t.read(2, true).unwrap(), b"tw");
        assert_eq!(t.read(100, true).unwrap(), b"o\n");
        assert_eq!(t.read(100, true).unwrap(), b"", "^D on an empty line is the end");
        assert_eq!(t.read(100, true), Err(Errno::EAGAIN));
        t.receive(b"\x04");
        assert_eq!(t.read(100, true).unwrap(), b"part");
        t.receive(b"one two\x17x\n\x16\x03\n");
        assert_eq!(t.read(100, true).unwrap(), b"one x\n");
        assert_eq!(t.read(100, true).unwrap(), b"\x03\n", "^V takes the next as it is");
        t.receive(b"gone\x15kept\n");
        assert_eq!(t.read(100, true).unwrap(), b"kept\n");
    }

    #[test]
    fn raw_mode_passes_everything_at_once() {
        let t = tty();
        t.receive(b"typed");
        t.set_termios(t.termios().without_local(flag::ICANON | flag::ECHO | flag::ISIG), false);
        assert_eq!(t.read(100, true).unwrap(), b"typed");
        assert_eq!(t.read(100, true), Err(Errno::EAGAIN));
        shown(&t);
        t.receive(b"\x03\x7f");
        assert_eq!(t.read(100, true).unwrap(), b"\x03\x7f");
        assert_eq!(shown(&t), b"");
    }

    #[test]
    fn output_is_processed_and_stops() {
        let t = tty();
        t.write(b"a\nb").unwrap();
        assert_eq!(shown(&t), b"a\r\nb");
        t.receive(b"\x13");
        assert_eq!(t.write(b"x"), Err(Errno::EAGAIN));
        t.receive(b"\x11");
        assert_eq!(t.write(b"x"), Ok(1));
        t.closed(false);
        assert_eq!(t.master_read(9).unwrap(), b"x");
        assert_eq!(t.master_read(9), Err(Errno::EIO));
        t.closed(true);
        assert_eq!(t.write(b"x"), Err(Errno::EIO));
        assert_eq!(t.read(9, true).unwrap(), b"");
        assert!(t.events(false).contains(PollMask::HUP));
        assert!(t.devpts.by_number(t.number).is_none());
    }

    #[test]
    fn control_characters_interrupt_and_forget_the_line() {
        let t = tty();
        t.receive(b"abc\x03def\n");
        assert_eq!(t.read(100, true).unwrap(), b"def\n");
        assert!(shown(&t).starts_with(b"abc^C"));
    }
}
