//! `do` with the real services, for root and for an unprivileged user: what a person who runs it sees. One test a
//! promise; nothing may be left behind by any of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cofferdam_integration::install::{Install, until};

/// An id that no account has. (Not 65534: other people's files look like that one's in a user namespace.)
const SOMEBODY: u32 = 54_321;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Root,
    Somebody,
}

/// A module a user with a test a case.
macro_rules! for_each_user {
    ($($case:ident),* $(,)?) => {
        mod root {
            $(#[test] fn $case() { super::$case(&super::install(super::Who::Root, stringify!($case))) })*
        }
        mod somebody {
            $(#[test] fn $case() { super::$case(&super::install(super::Who::Somebody, stringify!($case))) })*
        }
    };
}

for_each_user! {
    do_ends_with_the_status_of_its_command,
    environment_and_directory_are_those_asked_for,
    nothing_on_the_host_changes,
    the_host_is_the_lower_layer_and_changes_stay_in_memory,
    a_rootfs_is_the_root_and_stays_as_it_is,
    a_writable_bind_writes_to_the_host_and_a_read_only_one_refuses,
    what_a_mapping_writes_to_a_bind_reaches_the_host,
    a_file_can_be_bound,
    users_go_by_name_and_by_number,
    a_read_only_root_refuses_writes_but_for_its_mounts,
    without_a_network_there_is_loopback,
    each_platform_can_be_chosen_and_is_told,
    figures_of_memory_and_time_are_the_containers,
    a_truncated_program_ends_as_on_linux,
    arguments_and_environment_are_bytes,
    stdio_passes_unchanged_and_a_closed_pipe_ends_the_writer,
    signals_reach_the_command,
    signals_ignored_at_the_start_are_ignored_inside,
    a_signal_ends_the_command_as_it_does_natively,
    the_supervisor_leaves_when_it_has_nothing_left,
    many_at_once,
    cgroups_that_are_not_there_or_read_only_are_not_missed,
}

fn install(who: Who, case: &str) -> Install {
    assert!(rustix::process::geteuid().is_root(), "these tests run as root, and as somebody from there");
    // Short: the socket's path has 108 bytes.
    let name: String = case.split('_').filter_map(|w| w.get(..2.min(w.len()))).collect();
    let install = Install::with_services(&format!("do-{name}-{who:?}")).unwrap();
    match who {
        Who::Root => install,
        Who::Somebody => install.as_user(SOMEBODY).unwrap(),
    }
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// stdout of a `do` that succeeds.
fn out(install: &Install, arguments: &[&str]) -> String {
    let output = install.run(&[&["do"], arguments].concat()).unwrap();
    let (out, err) = said(&output);
    assert!(output.status.success(), "{arguments:?}: {:?} {out}{err}", output.status);
    out
}

/// A directory that the user of the installation owns.
fn own_dir(install: &Install, name: &str) -> PathBuf {
    let dir = install.folder.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(install.uid()), Some(install.uid())).unwrap();
    dir
}

fn do_ends_with_the_status_of_its_command(install: &Install) {
    for (command, code) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 3"], 3),
        (&["no-such-program"], 127),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
        (&["/etc"], 126),
    ] {
        let output = install.run(&[&["do", "--"], command].concat()).unwrap();
        let (_, err) = said(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {err}");
        assert_eq!(err.is_empty(), code < 126, "{command:?}: {err}");
    }
    install.nothing_left().unwrap();
}

fn environment_and_directory_are_those_asked_for(install: &Install) {
    let script = "echo \"$A\"; pwd; echo \"$B\"";
    let output = install
        .command(&["do", "--env", "A=b c", "--env", "A=d=e", "--cwd", "/usr", "--", "sh", "-c", script])
        .env("B", "inherited")
        .output()
        .unwrap();
    assert_eq!(said(&output), ("d=e\n/usr\ninherited\n".into(), String::new()));
    let here = own_dir(install, "here");
    let output = install.command(&["do", "pwd"]).current_dir(&here).output().unwrap();
    assert_eq!(said(&output).0.trim(), here.to_str().unwrap(), "the caller's own directory: {:?}", said(&output));
    let output = install.run(&["do", "--cwd", "/no/such", "true"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("/no/such"), "{}", said(&output).1);
    install.nothing_left().unwrap();
}

fn nothing_on_the_host_changes(install: &Install) {
    let dir = own_dir(install, "mine");
    std::fs::write(dir.join("old"), "before").unwrap();
    std::os::unix::fs::chown(dir.join("old"), Some(install.uid()), None).unwrap();
    let script = "cd \"$0\" && echo x > mark && cat mark && echo after > old && cat old && rm old && mkdir d && ls";
    assert_eq!(out(install, &["sh", "-c", script, dir.to_str().unwrap()]), "x\nafter\nd\nmark\n");
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["old"]);
    assert_eq!(std::fs::read(dir.join("old")).unwrap(), b"before");
    install.nothing_left().unwrap();
}

fn the_host_is_the_lower_layer_and_changes_stay_in_memory(install: &Install) {
    let native = Command::new("sh").args(["-c", "cat /etc/debian_version; ls /usr/bin | wc -l"]).output().unwrap();
    let inside = out(install, &["sh", "-c", "cat /etc/debian_version; ls /usr/bin | wc -l"]);
    assert_eq!(inside, said(&native).0);
    install.nothing_left().unwrap();
}

fn a_rootfs_is_the_root_and_stays_as_it_is(install: &Install) {
    let rootfs = install.rootfs("r").unwrap();
    let rootfs = rootfs.to_str().unwrap();
    let uid = install.uid();
    let inside =
        out(install, &["--rootfs", rootfs, "--user", "0:0", "sh", "-c", "ls /; pwd; echo x > /new; cat /new; id -u"]);
    assert_eq!(inside, "bin\ndev\netc\nproc\nsys\ntmp\n/\nx\n0\n");
    let mut names: Vec<_> = std::fs::read_dir(rootfs).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bin", "etc", "tmp"], "mount points and files are made in memory");
    assert_eq!(out(install, &["--rootfs", rootfs, "id", "-u"]).trim(), uid.to_string());
    install.nothing_left().unwrap();
}

/// By msync and munmap, at the end of a process however it ends, and when it runs another program.
fn what_a_mapping_writes_to_a_bind_reaches_the_host(install: &Install) {
    let data = own_dir(install, "mapped");
    let program = data.join("writes");
    let source =
        "#include <sys/mman.h>\n#include <fcntl.h>\n#include <string.h>\n#include <signal.h>\n#include <unistd.h>
        int main(int n, char **a) {
            int fd = open(\"file\", O_RDWR);
            char *m = mmap(0, 20000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            close(fd);
            strcpy(m + 10000, a[1]);
            if (a[1][0] == 'm') return msync(m, 20000, MS_SYNC), kill(getpid(), SIGKILL);
            if (a[1][0] == 'u') return munmap(m, 20000), kill(getpid(), SIGKILL);
            if (a[1][0] == 'k') return kill(getpid(), SIGKILL);
            if (a[1][0] == 's') return *(volatile int *)0;
            if (a[1][0] == 'x') return execl(\"/bin/sh\", \"sh\", \"-c\", \"cat file\", (char *)0);
            _exit(0);
        }";
    std::fs::write(data.join("writes.c"), source).unwrap();
    let built = Command::new("gcc").args(["-w", "-o"]).arg(&program).arg(data.join("writes.c")).output().unwrap();
    assert!(built.status.success(), "{}", said(&built).1);
    let bind = format!("{}:/tmp/mapped", data.display());
    for how in ["msync", "unmapped", "end", "killed", "segv", "x-another"] {
        std::fs::write(data.join("file"), [b'.'; 20_000]).unwrap();
        std::os::unix::fs::chown(data.join("file"), Some(install.uid()), None).unwrap();
        let script = format!("cd /tmp/mapped; ./writes {how} > /dev/null; true");
        out(install, &["--bind", &bind, "sh", "-c", &script]);
        let there = std::fs::read(data.join("file")).unwrap();
        assert_eq!(there.len(), 20_000, "{how}");
        assert_eq!(String::from_utf8_lossy(&there[10_000..10_000 + how.len()]), how);
        assert!(there[..10_000].iter().all(|b| *b == b'.'), "{how}");
    }
    install.nothing_left().unwrap();
}

fn a_writable_bind_writes_to_the_host_and_a_read_only_one_refuses(install: &Install) {
    let data = own_dir(install, "data");
    std::fs::write(data.join("given"), "content\n").unwrap();
    std::os::unix::fs::chown(data.join("given"), Some(install.uid()), None).unwrap();
    let bind = |suffix: &str| format!("{}:/tmp/inside/data{suffix}", data.display());
    let script = "cd /tmp/inside/data && cat given && echo new > made && mkdir sub && mv made sub/moved && ls";
    assert_eq!(out(install, &["--bind", &bind(""), "sh", "-c", script]), "content\ngiven\nsub\n");
    let made = data.join("sub/moved");
    assert_eq!(std::fs::read(&made).unwrap(), b"new\n");
    assert_eq!(std::fs::metadata(&made).unwrap().uid(), install.uid());

    let script = "cd /tmp/inside/data; cat given; for c in 'echo x >made' 'echo x >given' 'mkdir new' 'rm given' 'mv given g' 'chmod 0 given' 'ln -s a b' 'touch given'; do sh -c \"$c\" 2>&1 && echo DONE; done; true";
    let said = out(install, &["--bind", &bind(":ro"), "sh", "-c", script]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 9, "{said}");
    assert_eq!(lines[0], "content");
    for line in &lines[1..] {
        assert!(line.to_lowercase().contains("read-only file system"), "{said}");
    }
    let mut names: Vec<_> = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["given", "sub"]);
    // Two of them, and one beneath another.
    let other = own_dir(install, "other");
    let second = format!("{}:/tmp/inside/data/sub", other.display());
    out(install, &["--bind", &bind(":ro"), "--bind", &second, "sh", "-c", "echo y > /tmp/inside/data/sub/f"]);
    assert_eq!(std::fs::read(other.join("f")).unwrap(), b"y\n");
    install.nothing_left().unwrap();
}

fn a_file_can_be_bound(install: &Install) {
    let dir = own_dir(install, "d");
    let file = dir.join("one");
    std::fs::write(&file, "1\n").unwrap();
    std::os::unix::fs::chown(&file, Some(install.uid()), None).unwrap();
    let bind = format!("{}:/tmp/x/bound", file.display());
    assert_eq!(
        out(install, &["--bind", &bind, "sh", "-c", "cat /tmp/x/bound; echo 2 >> /tmp/x/bound; ls /tmp/x"]),
        "1\nbound\n"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"1\n2\n");
    let refused = install.run(&["do", "--bind", &format!("{bind}:ro"), "sh", "-c", "echo 3 > /tmp/x/bound"]).unwrap();
    assert!(said(&refused).1.to_lowercase().contains("read-only"), "{:?}", said(&refused));
    install.nothing_left().unwrap();
}

fn users_go_by_name_and_by_number(install: &Install) {
    let rootfs = install.rootfs("r").unwrap();
    let rootfs = rootfs.to_str().unwrap();
    for (user, ids) in [
        ("web", "33 33"),
        ("web:staff", "33 50"),
        ("33", "33 33"),
        ("5", "5 0"),
        ("5:6", "5 6"),
        ("web:7", "33 7"),
        ("root", "0 0"),
        ("4000000000:4000000001", "4000000000 4000000001"),
    ] {
        let said = out(install, &["--rootfs", rootfs, "--user", user, "sh", "-c", "echo $(id -u) $(id -g)"]);
        assert_eq!(said.trim(), ids, "{user}");
    }
    // Rights inside are those of the user inside.
    let output = install.run(&["do", "--rootfs", rootfs, "--user", "web", "sh", "-c", "echo x > /etc/passwd"]).unwrap();
    assert!(said(&output).1.contains("Permission denied"), "{:?}", said(&output));
    for wrong in ["nosuch", "web:nosuch", "-1", ""] {
        let output = install.run(&["do", "--rootfs", rootfs, &format!("--user={wrong}"), "true"]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
    }
    let native = Command::new("id").arg("-u").output().unwrap();
    if install.uid() == 0 {
        assert_eq!(out(install, &["id", "-u"]), said(&native).0);
    }
    install.nothing_left().unwrap();
}

fn a_read_only_root_refuses_writes_but_for_its_mounts(install: &Install) {
    let rootfs = install.rootfs("r").unwrap();
    let rootfs = rootfs.to_str().unwrap();
    for root in [&["--readonly"][..], &["--readonly", "--rootfs", rootfs, "--user", "0"]] {
        let script = "echo x > /tmp/x || echo > /x; echo y > /dev/shm/y && cat /dev/shm/y";
        let output = install.run(&[&["do"], root, &["sh", "-c", script]].concat()).unwrap();
        assert_eq!(said(&output).0, "y\n", "{:?}", said(&output));
        assert_eq!(said(&output).1.to_lowercase().matches("read-only file system").count(), 2, "{:?}", said(&output));
    }
    install.nothing_left().unwrap();
}

fn without_a_network_there_is_loopback(install: &Install) {
    let code = "import socket\nfor a in [('10.0.0.1',80),('8.8.8.8',53)]:\n try:\n  s=socket.socket(); s.settimeout(2); s.connect(a); print('CONNECTED')\n except OSError as e: print('refused')\n\
         l=socket.create_server(('127.0.0.1',0)); c=socket.create_connection(l.getsockname()); c.sendall(b'x'); print(l.accept()[0].recv(1))";
    let said = out(install, &["--network", "none", "python3", "-c", code]);
    assert_eq!(said, "refused\nrefused\nb'x'\n");
    install.nothing_left().unwrap();
}

fn each_platform_can_be_chosen_and_is_told(install: &Install) {
    for (choice, used) in [("auto", "notify"), ("notify", "notify"), ("ptrace", "ptrace")] {
        let output =
            install.run(&["--debug", "--platform", choice, "do", "sh", "-c", "echo $((6*7)) | cat; exit 6"]).unwrap();
        assert_eq!((output.status.code(), said(&output).0.as_str()), (Some(6), "42\n"), "{}", said(&output).1);
        assert!(said(&output).1.contains(&format!("platform {used}: ")), "{}", said(&output).1);
    }
    install.nothing_left().unwrap();
}

/// What the cgroup, `/proc` and the calls say of the same, held against what the container does. (Linux has it in other places
/// on a host with version 1, so no guest program compares it.)
fn figures_of_memory_and_time_are_the_containers(install: &Install) {
    let script = r#"
        cd /sys/fs/cgroup && grep -q memory cgroup.controllers && cat memory.max cpu.max pids.max cpuset.cpus.effective
        cat /proc/self/cgroup; grep -c ' - cgroup2 ' /proc/self/mountinfo; grep -c '^memory.0.1.1$' /proc/cgroups
        echo procs $(cat cgroup.procs | head -1) threads $(head -1 cgroup.threads); mkdir group 2>/dev/null || echo no groups
        value() { awk -v k="$2" '$1 == k { print $2 }' "$1"; }
        head -c 20000000 /dev/zero > /dev/shm/data
        a=$(value memory.stat shmem) c=$(cat memory.current) f=$(value /proc/meminfo Shmem:)
        [ "$a" -ge 20000000 ] && [ "$a" -lt 30000000 ] && [ "$c" -ge "$a" ] && [ "$f" -ge 19531 ] && echo shmem
        rm /dev/shm/data; [ "$(value memory.stat shmem)" -lt 20000000 ] && echo given back
        t=$(value cpu.stat usage_usec); i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done
        [ "$(value cpu.stat usage_usec)" -gt $((t + 10000)) ] && echo used time
        total=$(value /proc/meminfo MemTotal:) free=$(value /proc/meminfo MemFree:) cached=$(value /proc/meminfo Cached:)
        [ $((total - free - cached)) -ge 0 ] && [ $((total - free - cached)) -lt 200000 ] && echo adds up
    "#;
    let cpus = std::thread::available_parallelism().unwrap().get();
    let list = if cpus == 1 { String::from("0") } else { format!("0-{}", cpus - 1) };
    for platform in ["notify", "ptrace"] {
        let output = install.run(&["--platform", platform, "do", "sh", "-c", script]).unwrap();
        let expected = format!(
            "max\nmax 100000\nmax\n{list}\n0::/\n1\n1\nprocs 1 threads 1\nno groups\nshmem\ngiven back\nused time\nadds up\n"
        );
        assert_eq!(said(&output).0, expected, "{platform}: {}", said(&output).1);
    }
    install.nothing_left().unwrap();
}

/// On hosts that lack something (see `programs/without.c`): what `auto` chooses there, and what it says where nothing can run.
#[test]
fn auto_says_what_the_host_lacks() {
    // A supervisor of its own for each: it is what the host looks like to the sandboxes that it starts.
    for (lacks, platform, status, says) in [
        (
            "notify",
            "auto",
            6,
            "platform ptrace: notify cannot run here: no seccomp user notification (Operation not supported",
        ),
        ("notify", "notify", 1, "no seccomp user notification (Operation not supported"),
        ("notify", "ptrace", 6, "platform ptrace: asked for"),
        (
            "listener",
            "auto",
            6,
            "platform ptrace: notify cannot run here: seccomp user notification: Device or resource busy",
        ),
        (
            "listener",
            "notify",
            1,
            "this host cannot run the platform: seccomp user notification: Device or resource busy",
        ),
        ("both", "auto", 1, "no platform can run here: notify: no seccomp user notification (Operation not supported"),
        ("both", "ptrace", 1, "no ptrace (Operation not permitted"),
    ] {
        let install = Install::with_services(&format!("lacks-{lacks}-{platform}")).unwrap();
        let without = install.folder.join("without");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/without.c");
        let built =
            Command::new("gcc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&without).arg(source).output().unwrap();
        assert!(built.status.success(), "{}", said(&built).1);
        let plain =
            install.command(&["--debug", "--platform", platform, "do", "sh", "-c", "echo $((6*7)) | cat; exit 6"]);
        let mut command = Command::new(without);
        command.arg(lacks).arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let output = command.output().unwrap();
        let (out, err) = said(&output);
        assert_eq!(output.status.code(), Some(status), "{lacks} {platform}: {err}");
        assert_eq!(out, if status == 6 { "42\n" } else { "" }, "{lacks} {platform}");
        assert!(err.contains(says), "{lacks} {platform}: {err}");
        install.nothing_left().unwrap();
    }
}

fn a_truncated_program_ends_as_on_linux(install: &Install) {
    let whole = std::fs::read("/usr/bin/true").unwrap();
    for len in [30, 100, 1000, 4096, 9000, 20_000, whole.len() - 3000, whole.len() - 500] {
        let path = install.folder.join(format!("true-{len}"));
        std::fs::write(&path, &whole[..len]).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = format!("{} 2>/dev/null; echo $?", path.display());
        let native = Command::new("bash").args(["-c", &run]).output().unwrap();
        assert_eq!(out(install, &["bash", "-c", &run]), said(&native).0, "{len} bytes of {}", whole.len());
    }
    install.nothing_left().unwrap();
}

fn arguments_and_environment_are_bytes(install: &Install) {
    let odd = OsStr::from_bytes(b"a\xff\x80 \xc3\n'\"\\");
    let output = install.command(&["do", "--", "printf", "%s"]).arg(odd).env("ODD", odd).output().unwrap();
    assert_eq!(output.stdout, odd.as_bytes(), "{}", said(&output).1);
    let output = install.command(&["do", "sh", "-c", "printf %s \"$ODD\""]).env("ODD", odd).output().unwrap();
    assert_eq!(output.stdout, odd.as_bytes(), "{}", said(&output).1);
    let mut argument = std::ffi::OsString::from("ODD=");
    argument.push(odd);
    let output =
        install.command(&["do", "--env"]).arg(&argument).args(["sh", "-c", "printf %s \"$ODD\""]).output().unwrap();
    assert_eq!(output.stdout, odd.as_bytes(), "{}", said(&output).1);
    // Flags of the command are its own.
    assert_eq!(out(install, &["echo", "-n", "--help", "--rootfs"]), "--help --rootfs");
    let long = "x".repeat(100_000);
    assert_eq!(out(install, &["sh", "-c", "echo ${#0}", &long]), "100000\n");
    install.nothing_left().unwrap();
}

fn stdio_passes_unchanged_and_a_closed_pipe_ends_the_writer(install: &Install) {
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = install.command(&["do", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, given) = (child.stdin.take().unwrap(), data.clone());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut to, &given).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!((output.status.code(), output.stdout == data), (Some(0), true), "{} bytes", output.stdout.len());
    // The reader goes away: the writer inside is told, and ends.
    let mut child = install.command(&["do", "yes"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
    drop(child.stdout.take());
    until("yes to end", || child.try_wait().unwrap().is_some());
    // A file as stdout is appended to at its own position.
    let file = own_dir(install, "o").join("f");
    std::fs::write(&file, "first\n").unwrap();
    let open = std::fs::File::options().append(true).open(&file).unwrap();
    assert!(install.command(&["do", "echo", "second"]).stdout(open).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "first\nsecond\n");
    install.nothing_left().unwrap();
}

fn signals_reach_the_command(install: &Install) {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'echo caught; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child = install.command(&["do", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        line.clear();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!((line.as_str(), child.wait().unwrap().code()), ("caught\n", Some(7)), "{name}");
    }
    install.nothing_left().unwrap();
}

fn signals_ignored_at_the_start_are_ignored_inside(install: &Install) {
    // As nohup and a shell's background do it; natively and in the sandbox, the same set of a shell that asks.
    let show = ["grep", "SigIgn", "/proc/self/status"];
    let ignoring = |command: &Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' HUP INT QUIT USR1; exec \"$@\"", "sh"]).arg(command.get_program());
        shell.args(command.get_args());
        shell.env_remove("XDG_RUNTIME_DIR").current_dir("/").stdin(Stdio::null());
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        if install.uid() != 0 {
            shell.uid(install.uid()).gid(install.uid());
        }
        shell.output().unwrap()
    };
    let native = ignoring(Command::new(show[0]).args(&show[1..]));
    let mut arguments = vec!["do", "--"];
    arguments.extend(show);
    let sandbox = ignoring(&install.command(&arguments));
    let (native, sandbox) = (said(&native), said(&sandbox));
    assert!(native.0.contains("207"), "the shell ignores nothing: {native:?}");
    assert_eq!(native, sandbox);
    // One that nothing is ignored for ends by the signal; one that ignores it goes on.
    let mut arguments = vec!["do", "--"];
    arguments.extend(["sh", "-c", "kill -HUP $$; echo alive"]);
    assert_eq!(said(&ignoring(&install.command(&arguments))).0.trim(), "alive");
    assert_eq!(said(&install.run(&arguments).unwrap()).0.trim(), "");
}

fn a_signal_ends_the_command_as_it_does_natively(install: &Install) {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;
    for (script, signal) in [("kill -9 $$", 9), ("kill -TERM $$", 15), ("kill -SEGV $$", 11), ("exec yes | head -1", 0)]
    {
        let native =
            Command::new("sh").args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let inside = install.run(&["do", "sh", "-c", script]).unwrap().status;
        let ends = |s: std::process::ExitStatus| (s.code(), s.signal());
        assert_eq!(ends(inside), ends(native), "{script}");
        assert_eq!(inside.signal().unwrap_or(0), signal, "{script}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut child = install.command(&["do", "sleep", "1000"]).spawn().unwrap();
        until("running", || said(&install.run(&["list"]).unwrap()).0.contains("running"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()), "{signal:?}");
        until("it is gone", || !said(&install.run(&["list"]).unwrap()).0.contains("running"));
    }
    install.nothing_left().unwrap();
}

fn the_supervisor_leaves_when_it_has_nothing_left(install: &Install) {
    let mut child = install.command(&["do", "sleep", "1000"]).spawn().unwrap();
    until("running", || {
        let list = install.run(&["list"]).unwrap();
        said(&list).0.contains("running")
    });
    let first = install.pids("cofferdam-supervisor");
    assert_eq!(first.len(), 2, "the supervisor and its launcher");
    assert!(out(install, &["echo", "same"]).contains("same"));
    let mut now = install.pids("cofferdam-supervisor");
    now.sort_unstable();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(now, sorted, "one supervisor serves both");
    child.kill().unwrap();
    child.wait().unwrap();
    until("the supervisor's end", || first.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    install.nothing_left().unwrap();
}

fn many_at_once(install: &Install) {
    let children: Vec<_> = (0..6)
        .map(|n| install.command(&["do", "sh", "-c", &format!("sleep 0.2; exit {n}")]).spawn().unwrap())
        .collect();
    install.note();
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait().unwrap().code(), Some(n as i32));
    }
    install.nothing_left().unwrap();
}

/// Takes the cgroup file systems away, or makes them read-only, in a mount namespace of its own; then becomes the user `$2` and
/// runs the rest.
const CGROUPS: &str = r#"
case $1 in
none) ! grep -q " /sys/fs/cgroup" /proc/self/mountinfo || umount -R /sys/fs/cgroup || exit 90
      ! grep -q " /sys/fs/cgroup" /proc/self/mountinfo || exit 91;;
ro) awk '$5 ~ "^/sys/fs/cgroup" {print $5}' /proc/self/mountinfo | while read -r at; do mount -o remount,bind,ro "$at" || exit 1; done || exit 92
    awk '$5 ~ "^/sys/fs/cgroup" && $6 !~ "^ro" {exit 1}' /proc/self/mountinfo || exit 93;;
esac
user=$2; shift 2
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@""#;

/// Of a user's commands nothing needs the host's cgroups, where runc ends with "mountpoint for cgroup not found".
fn cgroups_that_are_not_there_or_read_only_are_not_missed(install: &Install) {
    let script = "nproc; ls /sys/fs/cgroup; cat /proc/self/cgroup; echo fine | cat; exit 4";
    own_dir(install, "b");
    let bundle = install.busybox("b", &["sh", "-c", "cat /proc/self/cgroup; echo fine; exit 4"], false).unwrap();
    let run = ["run", "-b", bundle.to_str().unwrap(), "c"];
    for platform in ["notify", "ptrace"] {
        for command in [&["do", "sh", "-c", script][..], &run] {
            let plain = install.command(&[&["--platform", platform], command].concat());
            let around = |how: &str| {
                let mut c = Command::new("unshare");
                c.args(["--mount", "sh", "-c", CGROUPS, "sh", how, &install.uid().to_string()]);
                c.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null()).current_dir("/");
                c.env_remove("XDG_RUNTIME_DIR").envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
                c.output().unwrap()
            };
            let as_ever = around("as ever");
            assert_eq!(as_ever.status.code(), Some(4), "{platform} {command:?}: {}", said(&as_ever).1);
            for how in ["none", "ro"] {
                let output = around(how);
                assert_eq!(said(&output), said(&as_ever), "{platform} {how} {command:?}");
                assert_eq!(output.status.code(), Some(4), "{platform} {how} {command:?}");
            }
        }
    }
    install.nothing_left().unwrap();
}

/// The host has no room for more processes: a fork fails as Linux says, nothing is ended, and works again when there is room.
/// Runs a command of an installation behind other programs, which say who runs it and with which limits.
fn behind(before: &[&str], plain: &Command) -> std::process::Output {
    Command::new(before[0])
        .args(&before[1..])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir("/")
        .env_remove("XDG_RUNTIME_DIR")
        .envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .output()
        .unwrap()
}

#[test]
fn a_host_without_room_for_processes_is_told_as_eagain() {
    const SCRIPT: &str = r#"
import os, threading, time
def forks(most):
    kids, failed = [], 0
    while len(kids) < most and failed < 20:
        try:
            pid = os.fork()
        except OSError as e:
            assert e.errno == 11, e
            failed += 1
            continue
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        kids.append(pid)
    for pid in kids:
        os.kill(pid, 9)
    for pid in kids:
        os.waitpid(pid, 0)
    return failed
ways = forks(300), forks(300)
try:
    held = [threading.Thread(target=time.sleep, args=(1,)) for i in range(300)]
    for t in held: t.start()
except RuntimeError as e:
    print(e)
for t in held:
    if t.ident: t.join()
pid = os.fork()
if pid == 0: os._exit(7)
print(ways, forks(3), os.waitpid(pid, 0)[1] >> 8, os.popen("echo shell").read())
"#;
    for (platform, user) in [("notify", 54_323), ("ptrace", 54_324)] {
        let install = Install::with_services(&format!("nproc-{platform}")).unwrap().as_user(user).unwrap();
        let plain = install.command(&["--platform", platform, "do", "python3", "-c", SCRIPT]);
        let id = user.to_string();
        let output =
            behind(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "prlimit", "--nproc=110"], &plain);
        let (out, err) = said(&output);
        assert_eq!(out, "can't start new thread\n(20, 20) 0 7 shell\n\n", "{platform}: {err}");
        assert_eq!(output.status.code(), Some(0), "{platform}: {err}");
        install.nothing_left().unwrap();
    }
}

#[test]
fn a_caller_who_gave_up_core_files_runs_containers() {
    for platform in ["notify", "ptrace"] {
        let install = Install::with_services(&format!("core-{platform}")).unwrap().as_user(54_325).unwrap();
        let plain = install.command(&["--platform", platform, "do", "sh", "-c", "echo runs; exit 3"]);
        let user = ["setpriv", "--reuid", "54325", "--regid", "54325", "--clear-groups"];
        let output = behind(&[&["prlimit", "--core=0:0"], &user[..]].concat(), &plain);
        let (out, err) = said(&output);
        assert_eq!((out.as_str(), output.status.code()), ("runs\n", Some(3)), "{platform}: {err}");
        install.nothing_left().unwrap();
    }
}
