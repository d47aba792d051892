//! Terminals: pseudo terminal pairs, the N_TTY line discipline, controlling terminals; `termios(3)`, `ioctl_tty(2)`.
//!
//! A [`Tty`] is the slave side and the line discipline. Its other end is a master file in the container, or the host's
//! terminal behind the Gofer's stdio. Owned here: what bytes become on their way. Never here: where nodes are (`devpts`).

use std::collections::{BTreeMap, HashMap, VecDeque};

use std::sync::{Arc, OnceLock, Weak};

use crate::errno::Errno;
use crate::filesystems::stdio::Stream;
use crate::ipc::termios::{Termios, WinSize, flag, special};
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::sync::Mutex;
use crate::task::Task;
use crate::vfs::inode::{InodeRef, makedev};
use crate::wait::{PollMask, WaitQueue};

/// Major number of pseudo terminal slaves.
pub const PTS_MAJOR: u32 = 136;
/// Bytes of input that wait to be read (`N_TTY_BUF_SIZE`).
const INPUT_MAX: usize = 4096;
/// Bytes of output that wait for the master.
const OUTPUT_MAX: usize = 64 * 1024;
/// Pseudo terminals there may be (`kernel.pty.max`).
const PTYS_MAX: usize = 4096;

#[derive(Default)]
struct State {
    termios: Termios,
    size: WinSize,
    /// Input that can be read.
    input: VecDeque<u8>,
    /// In canonical mode: lengths of the lines in `input`; an end of file is a line of its own.
    lines: VecDeque<usize>,
    /// The line being typed.
    line: Vec<u8>,
    /// The next character is taken as it is.
    literal: bool,
    /// Output stopped by ^S.
    stopped: bool,
    column: usize,
    output: VecDeque<u8>,
    session: i32,
    foreground: i32,
    masters: u32,
    slaves: u32,
    slave_seen: bool,
    locked: bool,
    hung_up: bool,
    /// `TIOCPKT`: control bytes that wait for the master.
    packet: bool,
    packet_status: u8,
}

/// A terminal.
pub struct Tty {
    /// Its number in `/dev/pts`.
    pub number: u32,
    kernel: Arc<Kernel>,
    state: Mutex<State>,
    /// Woken for readers and writers of the terminal.
    pub queue: WaitQueue,
    /// Woken for the master.
    pub master_queue: WaitQueue,
    remote: Option<Arc<Stream>>,
    /// Its node in `/dev/pts`.
    pub node: OnceLock<InodeRef>,
}

static PTYS: Mutex<BTreeMap<u32, Weak<Tty>>> = Mutex::new(BTreeMap::new());
static SESSIONS: Mutex<Option<HashMap<i32, Weak<Tty>>>> = Mutex::new(None);

impl Drop for Tty {
    fn drop(&mut self) {
        let mut ptys = PTYS.lock();
        if ptys.get(&self.number).is_some_and(|w| w.strong_count() == 0) {
            ptys.remove(&self.number);
        }
    }
}

/// Terminals there are.
pub fn all() -> Vec<Arc<Tty>> {
    PTYS.lock().values().filter_map(Weak::upgrade).collect()
}

/// The terminal of a number.
pub fn by_number(number: u32) -> Option<Arc<Tty>> {
    PTYS.lock().get(&number)?.upgrade()
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

/// The leader of a session has ended: its terminal hangs up on the foreground group and is nobody's.
pub fn session_ended(kernel: &Arc<Kernel>, sid: i32) {
    let tty = SESSIONS.lock().as_mut().and_then(|s| s.remove(&sid)).and_then(|w| w.upgrade());
    if let Some(tty) = tty {
        let foreground = {
            let mut s = tty.state.lock();
            s.session = 0;
            std::mem::take(&mut s.foreground)
        };
        for signal in [sig::HUP, sig::CONT] {
            send::to_process_group(kernel, foreground, SigInfo::new(signal, code::KERNEL));
        }
    }
}

/// Session and process group of a task.
pub fn place_of(task: &Task) -> (i32, i32) {
    task.kernel().tree.lock().node(task.pid()).map_or((0, 0), |n| (n.sid, n.pgid))
}

impl Tty {
    /// A terminal with the lowest free number. `remote`: the host's terminal at its other end.
    pub fn new(kernel: &Arc<Kernel>, remote: Option<Arc<Stream>>) -> Result<Arc<Self>, Errno> {
        let mut ptys = PTYS.lock();
        if ptys.len() >= PTYS_MAX {
            return Err(Errno::ENOSPC);
        }
        let number = (0..).find(|n| !ptys.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let tty = Arc::new(Self {
            number,
            kernel: kernel.clone(),
            state: Mutex::new(State { locked: remote.is_none(), ..State::default() }),
            queue: remote.as_ref().map_or_else(WaitQueue::new, |r| r.queue.clone()),
            master_queue: WaitQueue::new(),
            remote,
            node: OnceLock::new(),
        });
        ptys.insert(number, Arc::downgrade(&tty));
        drop(ptys);
        if let Some(stream) = &tty.remote {
            let me = Arc::downgrade(&tty);
            stream.feed(Box::new(move |data| match (me.upgrade(), data) {
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
        Ok(tty)
    }

    fn signal(&self, group: i32, signal: i32) {
        if group > 0 {
            send::to_process_group(&self.kernel, group, SigInfo::new(signal, code::KERNEL));
        }
    }

    /// Wakes readers and the master after input or output.
    fn wake(&self) {
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
        self.master_queue.wake(PollMask::IN | PollMask::RDNORM);
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

    /// Input from the other end: as much of it as there is room for; how much that was.
    pub fn receive(&self, data: &[u8]) -> usize {
        let mut signals = Vec::new();
        let mut taken = 0;
        {
            let mut s = self.state.lock();
            for b in data {
                let canonical = s.termios.local(flag::ICANON);
                if !canonical && s.input.len() >= INPUT_MAX && self.remote.is_none() {
                    break;
                }
                s.character(*b, &mut signals);
                taken += 1;
            }
        }
        let group = self.state.lock().foreground;
        for n in signals {
            self.signal(group, n);
        }
        self.wake();
        taken
    }

    /// Reads what the line discipline lets through.
    pub fn read(&self, max: usize) -> Result<Vec<u8>, Errno> {
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
            return Ok(data);
        }
        if s.hung_up && s.input.is_empty() {
            return Ok(Vec::new());
        }
        let (least, time) = (s.termios.character(special::MIN), s.termios.character(special::TIME));
        if s.input.is_empty() && least == 0 && time == 0 {
            return Ok(Vec::new());
        }
        // With a minimum above what is asked for, what is asked for is enough.
        if s.input.len() < usize::from(least.max(1)).min(max) {
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
        if s.packet && s.packet_status != 0 {
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
            m.set(PollMask::OUT | PollMask::WRNORM, canonical || s.input.len() < INPUT_MAX);
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
            PTYS.lock().remove(&self.number);
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
            (s.session, s.foreground)
        };
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
            let mut s = self.state.lock();
            let was = s.termios.local(flag::ICANON);
            s.termios = new;
            if flush {
                s.flush_input();
            }
            match (was, new.local(flag::ICANON)) {
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
            if !new.input(flag::IXON) {
                s.stopped = false;
            }
        }
        self.queue.wake_all();
    }

    /// `TCFLSH`: 0 input, 1 output, 2 both.
    pub fn flush(&self, which: u64) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if which > 2 {
            return Err(Errno::EINVAL);
        }
        if which != 1 {
            s.flush_input();
        }
        if which != 0 {
            s.output.clear();
        }
        drop(s);
        self.queue.wake_all();
        Ok(())
    }

    /// `TCXONC`: 0 stops output, 1 lets it go on.
    pub fn set_stopped(&self, stopped: bool) {
        self.state.lock().stopped = stopped;
        self.queue.wake_all();
    }

    /// Bytes that can be read, by the slave or the master.
    pub fn available(&self, master: bool) -> usize {
        let s = self.state.lock();
        if master {
            s.output.len()
        } else if s.termios.local(flag::ICANON) {
            s.lines.front().copied().unwrap_or(0)
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

    /// `TIOCPKT`.
    pub fn set_packet(&self, on: bool) {
        self.state.lock().packet = on;
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
    /// `steal` takes it from another session.
    pub fn make_controlling(self: &Arc<Self>, task: &Task, steal: bool) -> Result<(), Errno> {
        let (sid, pgid) = place_of(task);
        let current = of_session(sid);
        if current.as_ref().is_some_and(|t| Arc::ptr_eq(t, self)) {
            return Ok(());
        }
        let mut s = self.state.lock();
        if sid != task.pid() || current.is_some() || (s.session != 0 && !steal) {
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

impl State {
    fn flush_input(&mut self) {
        self.input.clear();
        self.lines.clear();
        self.line.clear();
    }

    /// One character of input through the line discipline.
    fn character(&mut self, b: u8, signals: &mut Vec<i32>) {
        let t = self.termios;
        let mut b = if t.input(flag::ISTRIP) { b & 0x7f } else { b };
        if t.input(flag::IUCLC) && t.local(flag::IEXTEN) {
            b = b.to_ascii_lowercase();
        }
        if self.literal {
            self.literal = false;
            self.take(b);
            self.echo(b);
            return;
        }
        if t.local(flag::ISIG) {
            let signal = [(special::INTR, sig::INT), (special::QUIT, sig::QUIT), (special::SUSP, sig::TSTP)]
                .into_iter()
                .find(|(c, _)| t.is(*c, b));
            if let Some((_, signal)) = signal {
                if !t.local(flag::NOFLSH) {
                    // What was put out has reached the other end: only what was not read of the input goes.
                    self.flush_input();
                }
                self.stopped = false;
                self.echo(b);
                signals.push(signal);
                return;
            }
        }
        if t.input(flag::IXON) {
            if t.is(special::STOP, b) {
                self.stopped = true;
                return;
            }
            if t.is(special::START, b) || (self.stopped && t.input(flag::IXANY)) {
                self.stopped = false;
                if t.is(special::START, b) {
                    return;
                }
            }
        }
        match b {
            b'\r' if t.input(flag::IGNCR) => return,
            b'\r' if t.input(flag::ICRNL) => b = b'\n',
            b'\n' if t.input(flag::INLCR) => b = b'\r',
            _ => {}
        }
        if !t.local(flag::ICANON) {
            self.input.push_back(b);
            self.echo(b);
            return;
        }
        let extended = t.local(flag::IEXTEN);
        if t.is(special::ERASE, b) {
            self.erase_one();
        } else if extended && t.is(special::WERASE, b) {
            while self.line.last().is_some_and(|c| *c == b' ' || *c == b'\t') {
                self.erase_one();
            }
            while self.line.last().is_some_and(|c| *c != b' ' && *c != b'\t') {
                self.erase_one();
            }
        } else if t.is(special::KILL, b) {
            if t.local(flag::ECHOKE) {
                while !self.line.is_empty() {
                    self.erase_one();
                }
            } else {
                self.line.clear();
                self.echo(b);
                if t.local(flag::ECHOK) {
                    self.put(b'\n');
                }
            }
        } else if extended && t.is(special::LNEXT, b) {
            self.literal = true;
            if t.local(flag::ECHO) && t.local(flag::ECHOCTL) {
                self.output.extend(b"^\x08");
            }
        } else if extended && t.is(special::REPRINT, b) {
            self.echo(b);
            self.put(b'\n');
            for c in self.line.clone() {
                self.echo(c);
            }
        } else if t.is(special::EOF, b) {
            self.end_line();
        } else if b == b'\n' || t.is(special::EOL, b) || (extended && t.is(special::EOL2, b)) {
            self.line.push(b);
            if b == b'\n' && (t.local(flag::ECHO) || t.local(flag::ECHONL)) {
                self.put(b'\n');
            } else {
                self.echo(b);
            }
            self.end_line();
        } else {
            self.take(b);
            self.echo(b);
        }
    }

    fn take(&mut self, b: u8) {
        if !self.termios.local(flag::ICANON) {
            self.input.push_back(b);
        } else if self.line.len() + self.input.len() < INPUT_MAX - 1 {
            self.line.push(b);
        } else if self.termios.input(flag::IMAXBEL) {
            self.output.push_back(7);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.lines.push_back(line.len());
        self.input.extend(line);
    }

    fn erase_one(&mut self) {
        let Some(mut last) = self.line.pop() else { return };
        // All bytes of one UTF-8 character.
        while self.termios.input(flag::IUTF8) && last & 0xc0 == 0x80 {
            match self.line.pop() {
                Some(b) => last = b,
                None => break,
            }
        }
        if !self.termios.local(flag::ECHO) {
            return;
        }
        if self.termios.local(flag::ECHOE) {
            let width =
                if (last < 32 || last == 127) && last != b'\t' && self.termios.local(flag::ECHOCTL) { 2 } else { 1 };
            for _ in 0..width {
                self.output.extend(b"\x08 \x08");
                self.column = self.column.saturating_sub(1);
            }
        } else {
            let erase = self.termios.character(special::ERASE);
            self.echo(erase);
        }
    }

    fn echo(&mut self, b: u8) {
        if !self.termios.local(flag::ECHO) || self.output.len() + 8 > OUTPUT_MAX {
            return;
        }
        if (b < 32 && b != b'\t' && b != b'\n' || b == 127) && self.termios.local(flag::ECHOCTL) {
            self.output.extend([b'^', b ^ 0x40]);
            self.column += 2;
        } else {
            self.put(b);
        }
    }

    /// One character of output, processed.
    fn put(&mut self, b: u8) {
        let t = self.termios;
        if !t.output(flag::OPOST) {
            self.output.push_back(b);
            return;
        }
        match b {
            b'\n' if t.output(flag::ONLCR) => {
                self.output.extend(b"\r\n");
                self.column = 0;
            }
            b'\r' if t.output(flag::OCRNL) => self.output.push_back(b'\n'),
            b'\r' if t.output(flag::ONOCR) && self.column == 0 => {}
            b'\t' if t.output(flag::XTABS) => {
                let n = 8 - self.column % 8;
                self.output.extend(std::iter::repeat_n(b' ', n));
                self.column += n;
            }
            _ => {
                self.output.push_back(b);
                match b {
                    b'\r' => self.column = 0,
                    8 => self.column = self.column.saturating_sub(1),
                    b'\t' => self.column = (self.column / 8 + 1) * 8,
                    // Bytes after the first of a UTF-8 character take no column.
                    b if b >= 32 && b & 0xc0 != 0x80 => self.column += 1,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_shm::Window;

    fn tty() -> Arc<Tty> {
        let window = || Window::create("t", 1 << 30).unwrap();
        let t = Tty::new(&Kernel::new(window(), window()), None).unwrap();
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
        assert_eq!(t.read(100).unwrap(), b"hello\n");
        assert_eq!(t.read(2).unwrap(), b"tw");
        assert_eq!(t.read(100).unwrap(), b"o\n");
        assert_eq!(t.read(100).unwrap(), b"", "^D on an empty line is the end");
        assert_eq!(t.read(100), Err(Errno::EAGAIN));
        t.receive(b"\x04");
        assert_eq!(t.read(100).unwrap(), b"part");
        t.receive(b"one two\x17x\n\x16\x03\n");
        assert_eq!(t.read(100).unwrap(), b"one x\n");
        assert_eq!(t.read(100).unwrap(), b"\x03\n", "^V takes the next as it is");
        t.receive(b"gone\x15kept\n");
        assert_eq!(t.read(100).unwrap(), b"kept\n");
    }

    #[test]
    fn raw_mode_passes_everything_at_once() {
        let t = tty();
        t.receive(b"typed");
        t.set_termios(t.termios().without_local(flag::ICANON | flag::ECHO | flag::ISIG), false);
        assert_eq!(t.read(100).unwrap(), b"typed");
        assert_eq!(t.read(100), Err(Errno::EAGAIN));
        shown(&t);
        t.receive(b"\x03\x7f");
        assert_eq!(t.read(100).unwrap(), b"\x03\x7f");
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
        assert_eq!(t.read(9).unwrap(), b"");
        assert!(t.events(false).contains(PollMask::HUP));
        assert!(by_number(t.number).is_none());
    }

    #[test]
    fn control_characters_interrupt_and_forget_the_line() {
        let t = tty();
        t.receive(b"abc\x03def\n");
        assert_eq!(t.read(100).unwrap(), b"def\n");
        assert!(shown(&t).starts_with(b"abc^C"));
    }
}
