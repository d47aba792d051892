//! What a caller hands over by its environment, beside runc with the same bundle: a socket where its service manager waits to hear that
//! the container is ready (NOTIFY_SOCKET), descriptors that such a manager handed to it (LISTEN_FDS). And what a caller opens for the
//! container itself: a file system of his that hangs is his own trouble, and what he opens is looked at.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cofferdam_integration::asked::{Answer, Asked, ask, begin};
use cofferdam_integration::install::{Install, need, until};
use serde_json::{Value, json};

/// `tell MESSAGE...`: says where it is to say so and what is there, then sends each message, `\n` a new line; `@FILE` waits for a file.
const TELL: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
int main(int n, char **v) {
    const char *at = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {AF_UNIX};
    struct stat is;
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (!at) return puts("nowhere") < 0;
    strcpy(to.sun_path, at);
    printf("%s %d", at, stat(at, &is));
    printf(" %o\n", is.st_mode);
    printf("%d", open("/run/notify/more", O_CREAT | O_WRONLY, 0600));
    printf(" %s\n", strerror(errno));
    fflush(stdout);
    for (int i = 1; i < n; i++) {
        char text[5000], *t = text;
        if (v[i][0] == '@') {
            while (access(v[i] + 1, F_OK)) usleep(5000);
            continue;
        }
        for (char *f = v[i]; *f; f++) *t++ = f[0] == '\\' && f[1] == 'n' ? (f++, '\n') : *f;
        if (sendto(s, text, t - text, 0, (void *)&to, sizeof to) < 0) printf("%s: %s\n", v[i], strerror(errno));
    }
    return 0;
}
"#;

/// Who waits for news on the host.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn at(path: PathBuf) -> Self {
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        Self { socket, path }
    }

    /// What comes until nothing comes for a while. Descriptors that come with it are closed.
    fn heard(&self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let mut text = [0; 5000];
            match self.socket.recv(&mut text) {
                Ok(n) => all.push(String::from_utf8_lossy(&text[..n]).into_owned()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return all,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// One of the two runtimes.
struct Runtime<'a> {
    install: &'a Install,
    ours: bool,
    id: String,
}

impl Runtime<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let arguments: Vec<&str> = arguments.iter().map(|a| if *a == "ID" { self.id.as_str() } else { a }).collect();
        if self.ours {
            return self.install.command(&arguments);
        }
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.install.folder.join("runc")).args(arguments);
        command
    }

    /// Begins a command of a caller with such a socket.
    fn begin(&self, manager: Option<&Manager>, arguments: &[&str]) -> Asked {
        let mut command = self.command(arguments);
        command.env_remove("NOTIFY_SOCKET");
        if let Some(manager) = manager {
            command.env("NOTIFY_SOCKET", &manager.path);
        }
        begin(command, &self.install.folder)
    }

    fn must(&self, manager: Option<&Manager>, arguments: &[&str]) -> Answer {
        let answer = self.begin(manager, arguments).end();
        assert!(answer.fine(), "{answer:?}");
        answer
    }

    fn pid(&self) -> i64 {
        let state: Value = serde_json::from_str(&self.must(None, &["state", "ID"]).text).unwrap();
        state["pid"].as_i64().unwrap()
    }
}

/// An installation and a bundle whose process runs `tell` with these words, as an ordinary user, with a folder of the host at `/v`.
fn prepare(name: &str, words: &[&str]) -> (Install, PathBuf) {
    need("runc", "runc").unwrap();
    let install = Install::with_services(name).unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    let source = install.folder.join("tell.c");
    std::fs::write(&source, TELL).unwrap();
    let mut compiler = Command::new("gcc");
    let made = compiler.args(["-static", "-o"]).arg(bundle.join("rootfs/bin/tell")).arg(&source).status().unwrap();
    assert!(made.success());
    let volume = install.folder.join("v");
    std::fs::create_dir(&volume).unwrap();
    let words: Vec<&str> = std::iter::once("/bin/tell").chain(words.iter().copied()).collect();
    Install::edit(&bundle, |d| {
        d["process"]["args"] = json!(words);
        d["process"]["user"] = json!({"uid": 33, "gid": 33});
        let volume = json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rw"]});
        d["mounts"].as_array_mut().unwrap().push(volume);
    })
    .unwrap();
    (install, bundle)
}

/// Both, runc first; each begins with an empty `/v`.
fn both<T>(install: &Install, mut f: impl FnMut(&Runtime<'_>) -> T) -> [T; 2] {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    [false, true].map(|ours| {
        let volume = install.folder.join("v");
        std::fs::remove_dir_all(&volume).unwrap();
        std::fs::create_dir(&volume).unwrap();
        // Short, as it is part of the path of a socket.
        let id = format!("c{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        f(&Runtime { install, ours, id })
    })
}

fn b(bundle: &Path) -> &str {
    bundle.to_str().unwrap()
}

#[test]
fn a_manager_is_told_of_a_container_in_the_foreground() {
    let words = ["STATUS=not yet", "READY=1\\nSTATUS=words of its own\\nMAINPID=1", "READY=1", "STATUS=after"];
    let (install, bundle) = prepare("callers-run", &words);
    // Until it has been told: a container that ends first is another case.
    Install::edit(&bundle, |d| d["process"]["args"].as_array_mut().unwrap().push("@/v/go".into())).unwrap();
    let manager = Manager::at(install.folder.join("manager"));
    let [runc, ours] = both(&install, |runtime| {
        let run = runtime.begin(Some(&manager), &["run", "--bundle", b(&bundle), "ID"]);
        let mut heard = Vec::new();
        until("news", || {
            heard.extend(manager.heard());
            heard.len() >= if runtime.ours { 3 } else { 4 }
        });
        let pid = run.pid();
        std::fs::write(install.folder.join("v/go"), "").unwrap();
        let said = run.end();
        assert!(said.fine(), "{said:?}");
        assert_eq!(manager.heard(), [""; 0], "nothing comes after");
        (said.text, heard.join("").replace(&pid.to_string(), "PID"))
    });
    assert_eq!(ours.0, runc.0);
    // runc 1.1.5 knows no barrier, and says all again with pid 0 when the container does.
    assert_eq!(runc.1, "READY=1\nMAINPID=PID\nREADY=1\nMAINPID=0\n");
    assert_eq!(ours.1, "READY=1\nMAINPID=PID\nBARRIER=1");
    install.nothing_left().unwrap();
}

#[test]
fn start_waits_until_the_container_is_ready() {
    let (install, bundle) = prepare("callers-start", &["STATUS=x", "@/v/ready", "READY=1", "@/v/end"]);
    let manager = Manager::at(install.folder.join("manager"));
    let [runc, ours] = both(&install, |runtime| {
        runtime.must(Some(&manager), &["create", "--bundle", b(&bundle), "ID"]);
        let start = runtime.begin(Some(&manager), &["start", "ID"]);
        assert_eq!(manager.heard(), [""; 0], "it is not ready");
        until("its run", || runtime.must(None, &["state", "ID"]).text.contains("running"));
        assert!(Path::new(&format!("/proc/{}", start.pid())).exists(), "start waits");
        let pid = runtime.pid();
        std::fs::write(install.folder.join("v/ready"), "").unwrap();
        let mut heard = manager.heard();
        let started = start.end();
        assert!(started.fine(), "{started:?}");
        heard.extend(manager.heard());
        std::fs::write(install.folder.join("v/end"), "").unwrap();
        until("its end", || runtime.must(None, &["state", "ID"]).text.contains("stopped"));
        runtime.must(None, &["delete", "ID"]);
        heard.join("").replace(&pid.to_string(), "PID")
    });
    assert_eq!(ours, format!("{runc}BARRIER=1"), "runc 1.1.5 knows no barrier");
    assert_eq!(runc, "READY=1\nMAINPID=PID\n");
    // `run --detach` waits as well.
    both(&install, |runtime| {
        let run = runtime.begin(Some(&manager), &["run", "--detach", "--bundle", b(&bundle), "ID"]);
        assert_eq!(manager.heard(), [""; 0], "it is not ready");
        std::fs::write(install.folder.join("v/ready"), "").unwrap();
        assert_eq!(manager.heard().len(), 2 + usize::from(runtime.ours));
        assert!(run.end().fine());
        runtime.must(None, &["delete", "--force", "ID"]);
    });
    install.nothing_left().unwrap();
}

#[test]
fn a_container_that_never_says_so_ends_the_wait_by_its_end() {
    let (install, bundle) = prepare("callers-never", &["STATUS=x", "@/v/end"]);
    let manager = Manager::at(install.folder.join("manager"));
    both(&install, |runtime| {
        for by_itself in [true, false] {
            runtime.must(Some(&manager), &["create", "--bundle", b(&bundle), "ID"]);
            let start = runtime.begin(Some(&manager), &["start", "ID"]);
            until("its run", || runtime.must(None, &["state", "ID"]).text.contains("running"));
            if by_itself {
                std::fs::write(install.folder.join("v/end"), "").unwrap();
            } else {
                runtime.must(None, &["kill", "ID", "KILL"]);
            }
            assert!(start.end().fine());
            runtime.must(None, &["delete", "--force", "ID"]);
            let _ = std::fs::remove_file(install.folder.join("v/end"));
        }
        // Without a caller who waits there is no such socket.
        std::fs::write(install.folder.join("v/end"), "").unwrap();
        assert_eq!(runtime.must(None, &["run", "--bundle", b(&bundle), "ID"]).text, "nowhere\n");
    });
    assert_eq!(manager.heard(), [""; 0]);
    install.nothing_left().unwrap();
}

/// As podman and conmon do it (`--sdnotify=container`): conmon listens in a folder that the document shows inside.
#[test]
fn a_socket_that_the_document_names_is_told_too() {
    let (install, bundle) = prepare("callers-conmon", &["READY=1", "@/v/end"]);
    let folder = install.folder.join("notify");
    std::fs::create_dir(&folder).unwrap();
    let manager = Manager::at(folder.join("notify.sock"));
    // Its path is longer than an address can be.
    let deep = install.folder.join("d".repeat(100));
    std::fs::rename(&folder, &deep).unwrap();
    let (folder, manager) = (deep.clone(), Manager { path: deep.join("notify.sock"), ..manager });
    std::os::unix::fs::chown(&manager.path, Some(33), Some(33)).unwrap();
    Install::edit(&bundle, |d| {
        d["process"]["env"].as_array_mut().unwrap().push("NOTIFY_SOCKET=/run/notify/notify.sock".into());
        let mount = json!({"destination": "/run/notify", "type": "bind", "source": folder, "options": ["bind", "ro"]});
        d["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    let [runc, ours] = both(&install, |runtime| {
        runtime.must(None, &["create", "--bundle", b(&bundle), "ID"]);
        runtime.must(None, &["start", "ID"]);
        let heard = manager.heard().join("");
        std::fs::write(install.folder.join("v/end"), "").unwrap();
        runtime.must(None, &["delete", "--force", "ID"]);
        heard.trim().to_owned()
    });
    assert_eq!(ours, runc);
    assert_eq!(runc, "READY=1");
    install.nothing_left().unwrap();
}

/// What a container says that is run by a shell with descriptors 3, 4 and 5, whose environment is as `exports` says.
fn handed(runtime: &Runtime<'_>, bundle: &Path, exports: &str, flags: &[&str]) -> Answer {
    let run: Vec<&str> = ["run"].iter().chain(flags).copied().chain(["--bundle", b(bundle), "ID"]).collect();
    let runtime = runtime.command(&run);
    let words = runtime.get_args().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let program = runtime.get_program().to_str().unwrap();
    let mut shell = Command::new("bash");
    // The number of the shell is the runtime's, once it is that.
    let files = "3</v/three 4< <(echo four) 5<>/v/five".replace("/v", install_of(bundle).join("v").to_str().unwrap());
    shell.arg("-c").arg(format!("{exports} exec {program} {words} {files}"));
    begin(shell, install_of(bundle)).end()
}

fn install_of(bundle: &Path) -> &Path {
    bundle.parent().unwrap()
}

#[test]
fn descriptors_that_a_manager_hands_over_are_passed_on() {
    let (install, bundle) = prepare("callers-listen", &[]);
    let script = "echo \"$LISTEN_FDS $LISTEN_PID\"; for n in 3 4 5; do cat <&$n; done 2>/dev/null; (echo back >&5) 2>/dev/null; \
                  for n in 3 4 5 6; do test -e /proc/$$/fd/$n && echo has $n; done";
    std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin/test")).unwrap();
    Install::edit(&bundle, |d| d["process"]["args"] = json!(["sh", "-c", script])).unwrap();
    let whose = "export LISTEN_PID=$$ LISTEN_FDS=2;";
    for (exports, flags) in [
        (whose, &[][..]),
        (whose, &["--preserve-fds", "1"]),
        // Not meant for it, or nothing.
        ("export LISTEN_PID=1 LISTEN_FDS=2;", &[]),
        ("export LISTEN_FDS=2;", &[]),
        ("export LISTEN_PID=$$ LISTEN_FDS=0;", &["--preserve-fds", "2"]),
    ] {
        let [runc, ours] = both(&install, |runtime| {
            std::fs::write(install.folder.join("v/three"), "three\n").unwrap();
            std::fs::write(install.folder.join("v/five"), "").unwrap();
            let said = handed(runtime, &bundle, exports, flags);
            (said.status.code(), said.text, std::fs::read_to_string(install.folder.join("v/five")).unwrap())
        });
        assert_eq!(ours, runc, "{exports} {flags:?}");
        assert_eq!(runc.1.contains("2 1\nthree\nfour\n"), exports == whose, "{runc:?}");
        assert_eq!(runc.2 == "back\n", flags == ["--preserve-fds", "1"], "{runc:?}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn what_cannot_be_used_of_a_socket_of_the_host_is_told() {
    let (install, bundle) = prepare("callers-socket", &[]);
    Install::edit(&bundle, |d| d["process"]["args"] = json!(["sh", "-c", "echo $LISTEN_FDS; ls /proc/$$/fd | wc -l"]))
        .unwrap();
    let listener = std::os::unix::net::UnixListener::bind(install.folder.join("l")).unwrap();
    let log = install.folder.join("log");
    let mut shell = Command::new("bash");
    let program = install.folder.join("bin/cofferdam");
    let words = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=1; exec {} --root {} --log {} run --bundle {} c 3<&0 0</dev/null",
        program.display(),
        install.root().display(),
        log.display(),
        b(&bundle)
    );
    let output = shell.arg("-c").arg(words).stdin(std::os::fd::OwnedFd::from(listener)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n4\n", "{output:?}");
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("level=warning") && told.contains("descriptor 3: a listening socket of the host"), "{told}");
    install.nothing_left().unwrap();
}

/// A file system that answers nothing but its beginning. Its end wakes who waits for it.
struct Hanging {
    at: PathBuf,
    device: Option<std::fs::File>,
}

impl Hanging {
    fn at(at: &Path) -> Self {
        use std::io::{Read, Write};
        use std::os::fd::AsRawFd;
        std::fs::create_dir_all(at).unwrap();
        let mut device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        rustix::mount::mount("hanging", at, "fuse", rustix::mount::MountFlags::empty(), Some(data.as_c_str())).unwrap();
        // FUSE_INIT: its number is in bytes 8 to 16; the answer says version 7.31 and nothing else.
        let mut asked = [0; 9000];
        let n = device.read(&mut asked).unwrap();
        assert!(n > 16 && asked[4..8] == 26u32.to_le_bytes());
        let mut answer = vec![0; 80];
        answer[0..4].copy_from_slice(&80u32.to_le_bytes());
        answer[8..16].copy_from_slice(&asked[8..16]);
        answer[16..20].copy_from_slice(&7u32.to_le_bytes());
        answer[20..24].copy_from_slice(&31u32.to_le_bytes());
        device.write_all(&answer).unwrap();
        Self { at: at.to_owned(), device: Some(device) }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        drop(self.device.take());
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_file_system_that_hangs_holds_up_its_caller_alone() {
    let install = Install::with_services("callers-hang").unwrap();
    let must = |arguments: &[&str]| cofferdam_integration::asked::must(&install, arguments).text;
    let hanging = Hanging::at(&install.folder.join("hanging"));
    let fine = install.busybox("fine", &["sleep", "1000"], false).unwrap();
    must(&["create", "--bundle", b(&fine), "fine"]);
    must(&["start", "fine"]);
    for source in [hanging.at.clone(), hanging.at.join("below")] {
        let bundle = install.busybox("hangs", &["sleep", "1000"], false).unwrap();
        Install::edit(&bundle, |d| {
            let mount = json!({"destination": "/h", "type": "bind", "source": source, "options": ["rbind"]});
            d["mounts"].as_array_mut().unwrap().push(mount);
        })
        .unwrap();
        let create = ask(&install, &["create", "--bundle", b(&bundle), "hangs"]);
        // Where a process waits for an answer of the file system.
        let waits = || std::fs::read_to_string(format!("/proc/{}/wchan", create.pid())).unwrap_or_default();
        until("its wait", || waits().contains("request_wait_answer"));
        let begun = std::time::Instant::now();
        assert_eq!(must(&["exec", "fine", "echo", "here"]), "here\n");
        assert!(must(&["list"]).contains("fine"));
        assert!(cofferdam_integration::asked::say(&install, &["state", "hangs"]).text.contains("does not exist"));
        must(&["run", "--detach", "--bundle", b(&fine), "more"]);
        must(&["delete", "--force", "more"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
        cofferdam_integration::chance::kill(create.pid());
        assert!(!create.end().fine());
        std::fs::remove_dir_all(&bundle).unwrap();
    }
    must(&["delete", "--force", "fine"]);
    drop(hanging);
    install.nothing_left().unwrap();
}

#[test]
fn what_a_caller_opens_for_a_container_is_looked_at() {
    use cofferdam_control::Channel;
    use cofferdam_control::client::{Create, Opened, Owner, Request, Response};
    use cofferdam_control::gofer::ExportKind::{Directory, File};
    use cofferdam_control::sentry::{FileAccess, PlatformChoice};
    use rustix::fs::{CWD, Mode, OFlags};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    let install = Install::with_services("callers-opened").unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    let file = install.folder.join("file");
    std::fs::write(&file, "").unwrap();
    Install::edit(&bundle, |d| {
        let mount = json!({"destination": "/f", "type": "bind", "source": file, "options": ["bind", "ro"]});
        d["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    // Keeps the supervisor there.
    let kept = install.busybox("kept", &["sleep", "1000"], false).unwrap();
    cofferdam_integration::asked::must(&install, &["create", "--bundle", b(&kept), "kept"]);
    let open = |path: &Path, flags| rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let root: OwnedFd = open(&bundle.join("rootfs"), OFlags::PATH);
    let listed = open(&bundle.join("rootfs"), OFlags::RDONLY);
    let read = open(&file, OFlags::RDONLY);
    let written = open(&file, OFlags::RDWR);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let is = |kind| Opened { kind, read_only: true, follows: false };
    let both = vec![is(Directory), is(File)];
    let cases: [(Vec<Opened>, Vec<BorrowedFd<'_>>, &str); 7] = [
        (vec![is(Directory)], vec![root.as_fd()], "a wrong number"),
        (both.clone(), vec![root.as_fd()], "a wrong number"),
        (vec![is(File), is(File)], vec![root.as_fd(), read.as_fd()], "a root that is not a directory"),
        (both.clone(), vec![root.as_fd(), socket.as_fd()], "a descriptor of another kind"),
        (both.clone(), vec![socket.as_fd(), read.as_fd()], "a descriptor of another kind"),
        (both.clone(), vec![listed.as_fd(), read.as_fd()], "a descriptor of another kind"),
        (both, vec![root.as_fd(), written.as_fd()], "a descriptor to write by"),
    ];
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let all = open(Path::new("/"), OFlags::PATH);
    for (opened, descriptors, refusal) in cases {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let kind = rustix::net::SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
        let address = rustix::net::SocketAddrUnix::new(install.root().join("supervisor.sock")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let channel = Channel::new(socket);
        let next = || channel.receive::<Response>().unwrap().message;
        assert_eq!(next(), Response::Done);
        let create = Create {
            id: "c".into(),
            bundle: b(&bundle).into(),
            config: None,
            overlay: false,
            root_access: FileAccess::Exclusive,
            mounts_access: FileAccess::Shared,
            platform: PlatformChoice::Auto,
            patch: true,
            plain: false,
            owner: Owner::Itself,
            systemd_cgroup: false,
            tty: false,
            more_files: 0,
            listen_files: 0,
            console_size: None,
            log: None,
            trace_startup: false,
            notify: false,
            verbatim: None,
        };
        let (null, all) = (null.as_fd(), all.as_fd());
        channel.send(&Request::Create(Box::new(create)), &[null, null, null, all]).unwrap();
        let Response::Open(sources) = next() else { panic!("it does not ask") };
        assert_eq!((sources.len(), sources[1].path.as_slice()), (2, b(&file).as_bytes()));
        channel.send(&Request::Opened(Ok(opened)), &descriptors).unwrap();
        let Response::Failed { message, .. } = next() else { panic!("{refusal}: taken") };
        assert!(message.contains(refusal), "{message}");
    }
    cofferdam_integration::asked::must(&install, &["delete", "--force", "kept"]);
    install.nothing_left().unwrap();
}
