//! A person at a terminal, and signals to the command line: each story is told natively and in the sandbox on each
//! platform, with the same keys and the same expectations, so that a story that is wrong about Linux fails as well.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cofferdam_integration::debian;
use cofferdam_integration::install::{Install, until};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// How long anything may take that a person would wait for.
const LIMIT: Duration = Duration::from_secs(60);
/// Where a story is told: natively, and on each platform.
const PLACES: [&str; 3] = ["native", "notify", "ptrace"];
const PROMPT: &str = "ready> ";

fn command(install: &Install, place: &str, arguments: &[&str]) -> Command {
    let mut command = match place {
        "native" => {
            let mut c = Command::new("env");
            c.args(arguments);
            c
        }
        platform => {
            let mut c = install.command(&["--platform", platform, "do", "--"]);
            c.args(arguments);
            c
        }
    };
    command.env_clear().current_dir(&install.folder);
    command.envs([("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"), ("TERM", "xterm"), ("LC_ALL", "C")]);
    command.envs([("HOME", "/nonexistent"), ("PS1", PROMPT), ("HISTFILE", "")]);
    command
}

/// A terminal with a session on it.
struct Terminal {
    place: String,
    master: Option<File>,
    child: Child,
    screen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// Up to where expectations were met.
    read: usize,
    /// Reads the screen until told that it is over.
    reader: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Terminal {
    fn start(install: &Install, place: &str, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        size(&master, 30, 100);
        let inner = command(install, place, arguments);
        // It leads a session whose terminal is its stdin.
        let mut outer = Command::new("setsid");
        outer.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args()).env_clear();
        outer.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(&install.folder);
        outer.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = outer.spawn().unwrap();
        drop(outer);
        let screen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let mut reader = File::from(master.try_clone().unwrap());
        let (shared, over) = (screen.clone(), Arc::new(AtomicBool::new(false)));
        let leave = over.clone();
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            while !leave.load(Ordering::Relaxed) {
                let mut fds = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
                if rustix::event::poll(&mut fds, Some(&moment)).unwrap() == 0 {
                    continue;
                }
                // EIO: nobody has the other side open any more.
                let Ok(n @ 1..) = reader.read(&mut some) else { return };
                shared.0.lock().unwrap().extend_from_slice(&some[..n]);
                shared.1.notify_all();
            }
        });
        Self {
            place: place.to_owned(),
            master: Some(File::from(master)),
            child,
            screen,
            read: 0,
            reader: Some((over, reader)),
        }
    }

    /// Takes the terminal away, as a connection that breaks does.
    fn hang_up(&mut self) {
        if let Some((over, reader)) = self.reader.take() {
            over.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        }
        self.master = None;
    }

    fn press(&mut self, keys: &str) {
        self.master.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen, after what was expected before.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + LIMIT;
        let mut screen = self.screen.0.lock().unwrap();
        loop {
            let new = &screen[self.read..];
            if let Some(at) = new.windows(text.len()).position(|w| w == text.as_bytes()) {
                self.read += at + text.len();
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: {text:?} did not come; on the screen: {:?}",
                self.place,
                String::from_utf8_lossy(&screen)
            );
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
    }

    /// Types a line at the prompt and expects each of these, then the prompt.
    fn line(&mut self, line: &str, expect: &[&str]) {
        self.press(&format!("{line}\r"));
        expect.iter().for_each(|e| self.expect(e));
        self.expect(PROMPT);
    }

    fn resize(&self, rows: u16, columns: u16) {
        size(self.master.as_ref().unwrap(), rows, columns);
    }

    fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child, &self.place)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

/// Lets a program get to where it waits for the keys that come next, which nothing on the screen tells.
fn settle() {
    std::thread::sleep(Duration::from_millis(400));
}

fn ended(child: &mut Child, place: &str) -> ExitStatus {
    let mut status = None;
    until(&format!("{place}: the end"), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Tells a story at a terminal everywhere.
fn everywhere(name: &str, arguments: &[&str], story: impl Fn(&mut Terminal)) {
    debian::install(&["bash", "procps", "less", "vim-tiny", "util-linux"]).unwrap();
    let install = Install::with_services(name).unwrap();
    for place in PLACES {
        story(&mut Terminal::start(&install, place, arguments));
    }
    install.nothing_left().unwrap();
}

const BASH: [&str; 4] = ["bash", "--norc", "--noprofile", "-i"];

#[test]
fn jobs_are_stopped_and_go_on() {
    everywhere("terminal-jobs", &BASH, |t| {
        t.expect(PROMPT);
        t.line("stty size; tty > /dev/null && echo a \"tty\"", &["30 100", "a tty"]);
        let sleeper = "sh -c 'echo st\"\"arted; exec sleep 1000'";
        t.press(&format!("{sleeper}\r"));
        t.expect("started");
        settle();
        t.press("\x1a");
        t.expect("Stopped");
        t.expect(PROMPT);
        t.line("echo \"<$?>\"", &["<148>"]);
        t.line("jobs", &["Stopped"]);
        t.line("bg", &["[1]", "&"]);
        t.line("jobs", &["Running"]);
        t.press("fg\r");
        t.expect("exec sleep 1000");
        settle();
        t.press("\x03");
        t.expect("^C");
        t.expect(PROMPT);
        t.line("echo \"<$?>\"", &["<130>"]);
        t.press(&format!("{sleeper}\r"));
        t.expect("started");
        settle();
        t.press("\x1c");
        t.expect("Quit");
        t.expect(PROMPT);
        // A background job that wants to read the terminal is stopped.
        t.line("cat &", &["[1]"]);
        t.line("sleep 0.3; jobs -l", &["Stopped (tty input)"]);
        t.line("kill -9 %1; wait; echo \"<$?>\"", &["<"]);
        // ^C ends a pipeline as a whole, ^Z stops all of it.
        t.press("sh -c 'echo st\"\"arted; exec sleep 1000' | cat | cat\r");
        t.expect("started");
        settle();
        t.press("\x1a");
        t.expect("Stopped");
        t.expect(PROMPT);
        t.line("ps -eo pgid=,stat= | grep \"^ *$(jobs -p) \" | tr -dc T; echo .", &["TTT."]);
        t.line("kill %%; sleep 0.3; jobs; echo do\"\"ne", &["Terminated", "done"]);
        t.press("exit 7\r");
        assert_eq!(t.wait().code(), Some(7), "{}", t.place);
    });
}

#[test]
fn lines_are_edited_and_read() {
    everywhere("terminal-lines", &BASH, |t| {
        t.expect(PROMPT);
        t.press("cat\r");
        settle();
        t.press("one\x7f\x7f\x7ftwo\r");
        t.expect("two\r\n");
        t.expect("two\r\n");
        t.press("kill this\x15word by word\x17\x17\r");
        t.expect("\r\nword \r\n");
        t.press("\x04");
        t.expect(PROMPT);
        // readline: history, movement, a line that is given up.
        t.line("echo fir\"\"st", &["first"]);
        t.line("\x1b[A\x7f\x7f\x7f\x7fth", &["firth"]);
        t.line("echo end\x01\x1b[C\x1b[C\x1b[C\x1b[C -n\x05", &["end"]);
        t.press("partial");
        settle();
        t.press("\x03");
        t.expect(PROMPT);
        t.press("read -s -p 'secret: ' x; echo \"<$x>\"\r");
        t.expect("secret: ");
        settle();
        t.press("hidden\r");
        t.expect("<hidden>");
        t.expect(PROMPT);
        t.line("stty -echo; stty -a | tr ' ' '\\n' | grep '^-echo;*$'; stty echo", &["-echo"]);
        t.press("read -n1 -t 30 k; echo \"[$k]\"\r");
        settle();
        t.press("z");
        t.expect("[z]");
        t.expect(PROMPT);
        t.line("read -t 0.2 k; echo \"<$?>\"", &["<142>"]);
        t.line("stty raw; printf 'a\\nb'; stty sane; echo", &["a\nb"]);
        t.line("echo tab$((1+1)) | cat; echo /usr/sha\t.", &["tab2", "/usr/share/."]);
        t.press("\x04");
        t.expect("exit");
        assert_eq!(t.wait().code(), Some(0), "{}", t.place);
    });
}

#[test]
fn a_new_size_is_noticed() {
    everywhere("terminal-size", &BASH, |t| {
        t.expect(PROMPT);
        t.press("bash -c 'trap \"echo now \\$(stty size)\" WINCH; echo s\"\"et; while :; do sleep 0.05; done'\r");
        t.expect("set");
        settle();
        t.resize(40, 120);
        t.expect("now 40 120");
        // A signal that comes while bash runs its trap is lost by bash.
        settle();
        t.resize(24, 80);
        t.expect("now 24 80");
        t.press("\x03");
        t.expect(PROMPT);
        t.press("exit\r");
        assert_eq!(t.wait().code(), Some(130), "{}", t.place);
    });
}

#[test]
fn full_screen_programs_work() {
    everywhere("terminal-screen", &BASH, |t| {
        t.expect(PROMPT);
        t.press("vim.tiny notes\r");
        t.expect("~");
        settle();
        t.press("ihello from vi\x1b");
        settle();
        t.press("yyp:s/hello/goodbye/\r:wq\r");
        t.expect(PROMPT);
        t.line("cat notes; rm notes", &["hello from vi\r\ngoodbye from vi"]);
        t.line("top -b -n1 | head -1", &["top - "]);
        t.press("top\r");
        t.expect("Tasks");
        settle();
        t.press("q");
        t.expect(PROMPT);
        t.press("seq 500 | less\r");
        t.expect("29\r\n");
        settle();
        t.press("G");
        t.expect("500");
        settle();
        t.press("?^77\r");
        t.expect("77");
        settle();
        t.press("q");
        t.expect(PROMPT);
        // Stopped and brought back, it draws itself again.
        t.press("vim.tiny\r");
        t.expect("~");
        settle();
        t.press("\x1a");
        t.expect("Stopped");
        t.expect(PROMPT);
        t.press("fg\r");
        t.expect("~");
        settle();
        t.press(":q!\r");
        t.expect(PROMPT);
        t.press("exit 0\r");
        assert_eq!(t.wait().code(), Some(0), "{}", t.place);
    });
}

#[test]
fn a_terminal_that_goes_takes_its_session_along() {
    everywhere("terminal-hangup", &BASH, |t| {
        t.expect(PROMPT);
        t.line("sleep 1000 &", &["[1]"]);
        settle();
        t.hang_up();
        assert_eq!(t.wait().signal(), Some(1), "{}", t.place);
    });
}

/// Stops what is in front, and looks whether the shell outside has its terminal back: settings, and every key.
fn take_over(t: &mut Terminal) {
    settle();
    t.press("\x1a");
    t.expect("Stopped");
    t.expect(PROMPT);
    // The shell waits for its child only: natively too, another process of the job may take a key before it stops.
    settle();
    t.line("echo \"<$?>\"", &["<148>"]);
    t.line("stty -a | cmp - before && echo sa\"\"me", &["same"]);
    for n in 0..5 {
        t.line(&format!("echo the sh\"\"ell reads {n}"), &[&format!("the shell reads {n}")]);
    }
}

#[test]
fn a_command_in_front_is_a_job_of_the_shell_outside() {
    debian::install(&["bash", "vim-tiny"]).unwrap();
    let install = Install::with_services("terminal-front").unwrap();
    let cofferdam = install.folder.join("bin/cofferdam").display().to_string();
    for place in PLACES {
        let run = match place {
            "native" => "env".to_owned(),
            platform => format!("{cofferdam} --root {} --platform {platform} do --", install.root().display()),
        };
        let mut t = Terminal::start(&install, "native", &BASH);
        t.place = place.to_owned();
        t.expect(PROMPT);
        // bash notes a terminal's settings for readline; those that a command finds are the ones to compare.
        t.line("stty -a > before; echo no\"\"ted", &["noted"]);
        t.press(&format!("{run} sh -c 'echo st\"\"arted; cat; echo en\"\"ded'\r"));
        t.expect("started");
        take_over(&mut t);
        t.press("fg\r");
        t.expect("ded'\r\n");
        settle();
        t.press("to the cat\r");
        t.expect("to the cat\r\nto the cat\r\n");
        take_over(&mut t);
        t.press("fg\r");
        t.expect("ded'\r\n");
        settle();
        t.press("\x04");
        t.expect("ended");
        t.expect(PROMPT);
        // Behind the shell it runs on, and can be brought to the front again.
        t.press(&format!("{run} sh -c 'echo st\"\"arted; exec sleep 1000'\r"));
        t.expect("started");
        take_over(&mut t);
        t.line("bg", &["[1]", "&"]);
        settle();
        t.line("jobs; stty -a | cmp - before && echo sa\"\"me", &["Running", "same"]);
        t.line("echo the sh\"\"ell reads", &["the shell reads"]);
        t.press("fg\r");
        t.expect("exec sleep 1000'\r\n");
        settle();
        t.press("\x03");
        t.expect("^C");
        t.expect(PROMPT);
        t.line("echo \"<$?>\"", &["<130>"]);
        // Stopped, it can be ended.
        t.press(&format!("{run} sh -c 'echo st\"\"arted; exec sleep 1000'\r"));
        t.expect("started");
        take_over(&mut t);
        t.line("kill %1; sleep 1; jobs; echo do\"\"ne", &["Terminated", "done"]);
        // It may stop itself, in a way that nobody could catch.
        t.line(&format!("{run} sh -c 'kill -STOP $$; echo go\"\"es on'"), &["Stopped"]);
        t.press("fg\r");
        t.expect("goes on");
        t.expect(PROMPT);
        // Started behind, it leaves the terminal to the shell.
        t.line(&format!("{run} sleep 1000 &"), &["[1]"]);
        settle();
        t.line("stty -a | cmp - before && echo sa\"\"me", &["same"]);
        t.line("kill %1; wait %1; echo \"<$?>\"", &["<143>"]);
        // A script that runs it stops with it.
        t.press(&format!("sh -c '{run} sh -c \"echo st\\\"\\\"arted; cat\"; echo af\"\"ter'\r"));
        t.expect("started");
        take_over(&mut t);
        t.press("fg\r");
        t.expect("ter'\r\n");
        settle();
        t.press("\x04");
        t.expect("after");
        t.expect(PROMPT);
        t.press(&format!("{run} vim.tiny\r"));
        t.expect("~");
        take_over(&mut t);
        t.resize(24, 80);
        t.press("fg\r");
        t.expect("~");
        settle();
        t.press(":!stty size\r");
        t.expect("24 80");
        settle();
        t.press("\r:q!\r");
        t.expect(PROMPT);
        t.resize(30, 100);
        t.press("exit 0\r");
        assert_eq!(t.wait().code(), Some(0), "{place}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_terminal_is_left_as_it_was() {
    let install = Install::with_services("terminal-left").unwrap();
    let mut t = Terminal::start(&install, "native", &BASH);
    t.expect(PROMPT);
    t.line("stty -a > before; stty -g | wc -l", &["1"]);
    for platform in ["notify", "ptrace"] {
        let cofferdam = install.folder.join("bin/cofferdam").display().to_string();
        let run = format!("{cofferdam} --root {} --platform {platform} do --", install.root().display());
        t.line(&format!("{run} sh -c 'stty raw -echo; exit 9'; echo \"<$?>\""), &["<9>"]);
        t.line("stty -a | cmp - before && echo sa\"\"me", &["same"]);
        t.line(&format!("{run} sh -c 'kill -9 $$'; echo \"<$?>\""), &["<137>"]);
        t.line("stty -a | cmp - before && echo sa\"\"me", &["same"]);
    }
    t.press("exit 0\r");
    assert_eq!(t.wait().code(), Some(0));
    install.nothing_left().unwrap();
}

/// A command without a terminal, in a process group of its own, its stdout read by us.
fn without_terminal(install: &Install, place: &str, arguments: &[&str]) -> (Child, BufReader<PipeReader>) {
    let mut command = command(install, place, arguments);
    let (hear, voice) = std::io::pipe().unwrap();
    command.process_group(0).stdin(Stdio::null()).stdout(voice);
    let child = command.spawn().unwrap();
    (child, BufReader::new(hear))
}

fn heard(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

#[test]
fn signals_to_the_command_line_are_signals_to_the_command() {
    let install = Install::with_services("terminal-signals").unwrap();
    for place in PLACES {
        // Another sandbox of the same supervisor, which none of this may reach.
        let (mut other, mut says) = without_terminal(&install, place, &["sh", "-c", "echo up; exec sleep 1000"]);
        assert_eq!(heard(&mut says), "up\n");
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::ALARM] {
            let (mut child, mut says) = without_terminal(&install, place, &["sh", "-c", "echo up; exec sleep 1000"]);
            assert_eq!(heard(&mut says), "up\n");
            // As ^C at a terminal whose stdin is redirected: the whole process group gets it.
            rustix::process::kill_process_group(Pid::from_child(&child), signal).unwrap();
            assert_eq!(ended(&mut child, place).signal(), Some(signal.as_raw()), "{place}");
        }
        let handler = "trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let (mut child, mut says) = without_terminal(&install, place, &["sh", "-c", handler]);
        assert_eq!(heard(&mut says), "up\n");
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(heard(&mut says), "got it\n", "{place}");
        assert_eq!(ended(&mut child, place).code(), Some(5), "{place}");
        assert!(other.try_wait().unwrap().is_none(), "{place}: a signal reached another sandbox");
        rustix::process::kill_process(Pid::from_child(&other), Signal::TERM).unwrap();
        assert_eq!(ended(&mut other, place).signal(), Some(15), "{place}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_stopped_command_line_is_a_stopped_command() {
    let install = Install::with_services("terminal-stop").unwrap();
    for place in PLACES {
        // One process: a shell in vfork with a child that stopped before its exec is not stopped but waits (D).
        let script = "$| = 1; while (1) { print \"tick\\n\"; select undef, undef, undef, 0.02 }";
        let (mut child, mut says) = without_terminal(&install, place, &["perl", "-e", script]);
        assert_eq!(heard(&mut says), "tick\n");
        let pid = Pid::from_child(&child);
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
            stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
        };
        rustix::process::kill_process_group(pid, Signal::TSTP).unwrap();
        until(&format!("{place}: the stop"), || state() == 'T');
        settle();
        // What was said before the stop is taken; then there must be silence.
        let quiet = |says: &BufReader<PipeReader>| {
            let mut fds = [rustix::event::PollFd::new(says.get_ref(), rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
            rustix::event::poll(&mut fds, Some(&wait)).unwrap() == 0
        };
        let mut all = [0; 65536];
        if !quiet(&says) {
            let _ = rustix::io::read(says.get_ref(), &mut all).unwrap();
        }
        assert!(quiet(&says), "{place}: it still speaks");
        rustix::process::kill_process_group(pid, Signal::CONT).unwrap();
        heard(&mut says);
        assert_eq!(heard(&mut says), "tick\n", "{place}: it does not go on");
        rustix::process::kill_process_group(pid, Signal::TERM).unwrap();
        assert_eq!(ended(&mut child, place).signal(), Some(15), "{place}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn the_end_of_the_command_is_the_end_of_the_command_line() {
    let install = Install::with_services("terminal-end").unwrap();
    for place in PLACES {
        for (script, code, signal) in [
            ("exit 42", Some(42), None),
            ("kill -9 $$", None, Some(9)),
            ("kill -TERM $$; sleep 5", None, Some(15)),
            ("sh -c 'kill -9 $$'; exit $?", Some(137), None),
            ("yes", None, Some(13)),
        ] {
            let (mut child, mut says) =
                without_terminal(&install, place, &["sh", "-c", &format!("exec 2> /dev/null; {script}")]);
            if script == "yes" {
                assert_eq!(heard(&mut says), "y\n");
            }
            drop(says);
            let status = ended(&mut child, place);
            // dash runs the last command in its own place: `yes` itself, which a closed pipe ends.
            let got = (status.code(), status.signal());
            assert!(got == (code, signal) || (script == "yes" && got.0 == Some(141)), "{place}: {script}: {got:?}");
        }
    }
    install.nothing_left().unwrap();
}
