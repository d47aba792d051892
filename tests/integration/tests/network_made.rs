//! `do` with a network that is made for it: a namespace is the host, another one is what is beyond it, and the sandbox is behind the first.
//!
//! Each program runs natively in the host's namespace, too: what is told must be the same. Needs root, as it does itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::Mutex;

use cofferdam_integration::compare;
use cofferdam_integration::install::{Install, need, until};
use cofferdam_integration::network::{LIMIT, Peer, Rig, SOMEBODY, script, served, the_same, within};

/// One after the other: the interfaces of all have the same addresses.
static ONE: Mutex<()> = Mutex::new(());

const MADE: [&str; 2] = ["--network", "sandbox"];

/// What is printed by a command in the host's namespace.
fn on_host(rig: &Rig, arguments: &[&str]) -> String {
    let output = Rig::natively(&rig.inner, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host that forwards.
fn host(name: &str) -> Rig {
    need("nft", "nftables").unwrap();
    let rig = Rig::new(name);
    on_host(
        &rig,
        &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"],
    );
    until("its addresses are its own", || !on_host(&rig, &["ip", "addr"]).contains("tentative"));
    rig
}

/// All that a made network could leave on its host: interfaces, addresses, routes, tables, settings. A namespace that is left would have left its pair
/// of interfaces.
fn state(rig: &Rig) -> String {
    let look = "ip -o link | sed 's/.*: \\(.*\\): <.*/\\1/'; ip -o addr | sed 's/valid_lft.*//'; ip route show table all; \
                ip -6 route show table all | sed 's/expires.*//'; nft list ruleset; grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward \
                /proc/sys/net/ipv6/conf 2>/dev/null | sort";
    on_host(rig, &["sh", "-c", look])
}

/// Waits until the host is as it was.
fn is_as_before(rig: &Rig, before: &str) {
    let mut now = String::new();
    for _ in 0..100 {
        now = state(rig);
        if now == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("something is left: {:?}", compare::differences(before, &now));
}

/// Starts a command that says a line when it is up.
fn begin(mut command: std::process::Command) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"up\n");
    child
}

#[test]
fn clients_reach_what_their_caller_does() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-client").unwrap(), host("u"));
    let before = state(&rig);
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &script("client.py"), "user"];
    let native = compare::run(Rig::natively(&rig.inner, &arguments), LIMIT).unwrap();
    let sandbox = compare::run(within(&install, &rig, &MADE, &arguments), LIMIT).unwrap();
    the_same("client", &native, &sandbox, "");
    install.nothing_left().unwrap();
    is_as_before(&rig, &before);
}

/// A server within, called from beyond the host by published ports. What either side says is compared.
#[test]
fn published_ports_lead_inside() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-ports").unwrap(), host("p"));
    let before = state(&rig);
    let caller = ["python3", "-u", &script("caller.py"), "user"];
    let server = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &script("server.py"), "user"];
    let native = served(&rig, Rig::natively(&rig.inner, &server), &caller);
    let ports = ["-p", "7:7", "-p", "8:8", "-p", "10.99.0.2:9:9/tcp", "--publish", "7:7/udp"];
    let sandbox = served(&rig, within(&install, &rig, &[&MADE[..], &ports].concat(), &server), &caller);
    the_same("published", &native, &sandbox, "");
    install.nothing_left().unwrap();
    is_as_before(&rig, &before);
}

/// From where published ports are reached, who seems to call, and what is not published.
#[test]
fn published_ports_are_reached_from_everywhere() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-where").unwrap(), host("w"));
    let server = "import socket, threading\n\
                  def serve(s):\n    while True:\n        c, who = s.accept(); c.sendall(who[0].replace('::ffff:', '').encode()); c.close()\n\
                  u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 53))\n\
                  for port in (80, 81): threading.Thread(target=serve, args=(socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True),)).start()\n\
                  print('up', flush=True)\n\
                  while True: data, who = u.recvfrom(99); u.sendto(who[0].encode(), who)\n";
    let ports = ["-p", "8080:80", "-p", "10.99.0.2:8081:80", "-p", "127.0.0.1:8082:80", "-p", "5353:53/udp"];
    let mut child = begin(within(&install, &rig, &[&MADE[..], &ports].concat(), &["python3", "-uc", server]));
    let router = on_host(&rig, &["sh", "-c", "ip -4 -o addr | sed -n 's/.* cfd[^ ]* *inet \\([^/]*\\).*/\\1/p'"]);
    let router = router.trim();
    let inside: std::net::Ipv4Addr = router.parse::<std::net::Ipv4Addr>().unwrap();
    let inside = std::net::Ipv4Addr::from_bits(inside.to_bits() + 1).to_string();
    let call = "import errno, socket, sys\n\
                for to in sys.argv[1:]:\n    ip, port = to.rsplit('/', 1)\n    kind = socket.SOCK_DGRAM if port == '5353' else socket.SOCK_STREAM\n    \
                s = socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, kind); s.settimeout(2)\n    \
                try: s.connect((ip, int(port))); kind == socket.SOCK_DGRAM and s.send(b'x'); print(to, s.recv(99).decode())\n    \
                except OSError as e: print(to, errno.errorcode.get(e.errno, 'late'))\n";
    let from = |namespace: &str, to: &[&str]| {
        let output = Rig::natively(namespace, &[&["python3", "-c", call][..], to].concat()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().replace('\n', ", ")
    };
    let unpublished = format!("{inside}/81");
    assert_eq!(
        from(
            &rig.inner,
            &[
                "127.0.0.1/8080",
                "127.1.2.3/8080",
                "10.99.0.2/8080",
                "::1/8080",
                "fd99::2/8080",
                "127.0.0.1/8081",
                "127.0.0.1/8082",
                "127.0.0.1/5353",
                &unpublished
            ]
        ),
        format!(
            "127.0.0.1/8080 {router}, 127.1.2.3/8080 {router}, 10.99.0.2/8080 10.99.0.2, ::1/8080 ECONNREFUSED, fd99::2/8080 fd99::2, 127.0.0.1/8081 ECONNREFUSED, \
             127.0.0.1/8082 {router}, 127.0.0.1/5353 {router}, {unpublished} {router}"
        )
    );
    // Somebody beyond who knows the way: only by what is published.
    let way = format!(
        "ip -n {} route add {router}/32 via 10.99.0.2; ip -n {0} route add {inside}/32 via 10.99.0.2",
        rig.outer
    );
    assert!(Rig::natively(&rig.outer, &["sh", "-c", &way]).status().unwrap().success());
    assert_eq!(
        from(
            &rig.outer,
            &[
                "10.99.0.2/8080",
                "fd99::2/8080",
                "10.99.0.2/8081",
                "10.99.0.2/8082",
                "10.99.0.2/5353",
                "10.99.0.2/81",
                &unpublished,
                &format!("{inside}/80")
            ]
        ),
        format!(
            "10.99.0.2/8080 10.99.0.1, fd99::2/8080 fd99::1, 10.99.0.2/8081 10.99.0.1, 10.99.0.2/8082 ECONNREFUSED, 10.99.0.2/5353 10.99.0.1, \
             10.99.0.2/81 ECONNREFUSED, {unpublished} late, {inside}/80 late"
        )
    );
    child.kill().unwrap();
    child.wait().unwrap();
    install.nothing_left().unwrap();
}

/// What is killed leaves nothing: the command line, the supervisor, netd, all by SIGKILL.
#[test]
fn nothing_is_left_of_what_is_killed() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-killed").unwrap(), host("k"));
    let before = state(&rig);
    let options = [&MADE[..], &["-p", "8080:80"]].concat();
    for who in ["cofferdam", "cofferdam-supervisor", "cofferdam-sentry", ""] {
        let mut child = begin(within(&install, &rig, &options, &["sh", "-c", "echo up; sleep 1000"]));
        assert_ne!(state(&rig), before);
        assert!(on_host(&rig, &["nft", "list", "tables"]).contains("table inet cofferdam-cfd"));
        let kill = |pid: i32, signal| {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
        };
        match who {
            // `ip netns exec` becomes what it runs.
            "cofferdam" => kill(child.id() as i32, rustix::process::Signal::KILL),
            "" => kill(child.id() as i32, rustix::process::Signal::TERM),
            service => install.pids(service).iter().for_each(|pid| kill(*pid, rustix::process::Signal::KILL)),
        }
        child.wait().unwrap();
        install.nothing_left().unwrap();
        is_as_before(&rig, &before);
    }
}

#[test]
fn what_cannot_be_is_told() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-wrong").unwrap(), host("r"));
    let listens = "import socket, time; s = socket.create_server(('', 8080)); print('ready'); time.sleep(1000)";
    let _peer = Peer::begin(Rig::natively(&rig.inner, &["python3", "-uc", listens]));
    let before = state(&rig);
    let told = |install: &Install, options: &[&str]| {
        let output = within(install, &rig, &[&MADE[..], options].concat(), &["true"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (options, wanted) in [
        (&["-p", "8080:80"][..], "port 8080/tcp: Address already in use"),
        (&["-p", "10.1.2.3:8081:80"], "10.1.2.3 port 8081/tcp: Cannot assign requested address"),
        (&["--net-rule", "nonsense"], "--net-rule nonsense"),
        (&["--user", "nobody-like-this"], "nobody-like-this"),
    ] {
        let (status, said) = told(&install, options);
        assert!(status == Some(1) && said.contains(wanted), "{options:?}: {status:?} {said}");
    }
    // No network is free.
    on_host(
        &rig,
        &["sh", "-c", "for net in 192.168.0.0/16 172.16.0.0/12 10.0.0.0/8; do ip route add unreachable $net; done"],
    );
    let (status, said) = told(&install, &[]);
    assert!(status == Some(1) && said.contains("no private network is free"), "{said}");
    on_host(
        &rig,
        &["sh", "-c", "for net in 192.168.0.0/16 172.16.0.0/12 10.0.0.0/8; do ip route del unreachable $net; done"],
    );
    is_as_before(&rig, &before);
    // A host that does not forward.
    on_host(&rig, &["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]);
    let (status, said) = told(&install, &[]);
    assert!(status == Some(0) && said.contains("reaches this host only: `sysctl net.ipv4.ip_forward=1`"), "{said}");
    install.nothing_left().unwrap();
    let somebody = Install::with_services("made-somebody").unwrap().as_user(SOMEBODY).unwrap();
    let (status, said) = told(&somebody, &[]);
    assert!(status == Some(1) && said.contains("only for root") && said.contains("--network user"), "{said}");
    somebody.nothing_left().unwrap();
}

/// Several at once have different networks, which meet none that the host has.
#[test]
fn each_has_a_network_of_its_own() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-many").unwrap(), host("m"));
    // All but eight of the first pool is taken.
    on_host(&rig, &["ip", "route", "add", "192.168.240.0/20", "via", "10.99.0.1"]);
    on_host(&rig, &["ip", "route", "add", "172.30.0.0/17", "via", "10.99.0.1"]);
    let before = state(&rig);
    let look = "echo up; ip -4 -o addr show eth0 | sed 's/.*inet \\([^/]*\\).*/\\1/'; ping -qc1 -W5 10.99.0.1 > /dev/null && echo answer; sleep 3";
    let all: Vec<Child> = (0..5)
        .map(|_| within(&install, &rig, &MADE, &["sh", "-c", look]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let mut said: Vec<String> =
        all.into_iter().map(|c| String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap()).collect();
    for one in &said {
        let own: std::net::Ipv4Addr = one.lines().nth(1).unwrap().parse().unwrap();
        assert!(own.octets()[..2] == [172, 30] && own.octets()[2] >= 128 && one.ends_with("answer\n"), "{one}");
    }
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 5, "{said:?}");
    install.nothing_left().unwrap();
    is_as_before(&rig, &before);
}

/// Who is asked for names at the host's loopback address answers inside, too.
#[test]
fn names_are_asked_of_the_hosts_own() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-names").unwrap(), host("q"));
    let folder = std::path::Path::new("/etc/netns").join(&rig.inner);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.53\noptions ndots:0\n").unwrap();
    let _names = Peer::begin(Rig::natively(&rig.inner, &["python3", "-u", &script("names.py"), "127.0.0.53"]));
    let asks = script("asks.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &asks, "127.0.0.53"]), LIMIT).unwrap();
    let sandbox = within(&install, &rig, &MADE, &["python3", "-u", &asks, "127.0.0.11"]);
    let sandbox = compare::run(sandbox, LIMIT).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let _ = std::fs::remove_dir("/etc/netns");
    the_same("names", &native, &sandbox, "");
    assert!(native.output.starts_with("200\n('10.9.8.2', 80)"), "{}", native.output);
    install.nothing_left().unwrap();
}

/// Frames by hand: neither the host's loopback addresses are reached nor anybody's else's used, and rules hold.
#[test]
fn it_is_nobody_else_and_goes_by_its_rules() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("made-walls").unwrap(), host("h"));
    let hears = "import socket, sys\n\
                 u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 77)); print('ready', flush=True)\n\
                 while True: data, who = u.recvfrom(99); open(sys.argv[1], 'a').write(data.decode() + '\\n')\n";
    let heard = [install.folder.join("host"), install.folder.join("beyond")];
    let hear = |namespace: &str, at: &std::path::Path| {
        std::fs::write(at, "").unwrap();
        Peer::begin(Rig::natively(namespace, &["python3", "-uc", hears, &at.display().to_string()]))
    };
    let _both = [hear(&rig.inner, &heard[0]), hear(&rig.outer, &heard[1])];
    let program = "import socket, struct, fcntl, subprocess, sys, time\n\
        def sum16(b):\n    s = sum(struct.unpack('!%dH' % (len(b) // 2), b)); s = (s >> 16) + (s & 65535); return ~(s + (s >> 16)) & 65535\n\
        route = [l.split() for l in open('/proc/net/route')][1:]\n\
        router = next(struct.pack('<I', int(r[2], 16)) for r in route if r[1] == '00000000')\n\
        own = router[:3] + bytes([router[3] + 1])\n\
        p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); p.bind(('eth0', 3)); p.settimeout(5)\n\
        mac = p.getsockname()[4]\n\
        p.send(b'\\xff' * 6 + mac + b'\\x08\\x06\\0\\1\\x08\\0\\6\\4\\0\\1' + mac + own + bytes(6) + router)\n\
        while True:\n    f = p.recv(2000)\n    if f[12:14] == b'\\x08\\x06' and f[20:22] == b'\\0\\2': break\n\
        def send(text, src, dst):\n    u = struct.pack('!4H', 5, 77, 8 + len(text), 0) + text\n    \
            h = struct.pack('!BBHHHBBH', 69, 0, 20 + len(u), 1, 0, 9, 17, 0) + src + dst\n    \
            p.send(f[6:12] + mac + b'\\x08\\0' + h[:10] + struct.pack('!H', sum16(h)) + h[12:] + u)\n\
        ip = socket.inet_aton\n\
        send(b'loopback', own, ip('127.0.0.1'))\n\
        send(b'loopback from router', router, ip('127.0.0.1'))\n\
        send(b'as the router', router, ip('10.99.0.1'))\n\
        send(b'as another', ip('10.99.0.77'), ip('10.99.0.1'))\n\
        send(b'as itself', own, ip('10.99.0.1'))\n\
        send(b'as another', ip('10.99.0.77'), router)\n\
        send(b'as loopback', ip('127.0.0.1'), router)\n\
        send(b'as itself', own, router)\n\
        time.sleep(1)\n";
    let run = compare::run(within(&install, &rig, &MADE, &["python3", "-c", program]), LIMIT).unwrap();
    assert!(run.success, "{}", run.output);
    let all = heard.each_ref().map(|at| std::fs::read_to_string(at).unwrap());
    assert_eq!(all, ["as itself\n", "as itself\n"]);
    let rules = ["--net-rule", "out default deny", "--net-rule", "out allow udp 10.99.0.1:77"];
    let asks = "import socket\n\
                for to in (('10.99.0.1', 77), ('10.99.0.2', 77)):\n    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(to); u.send(b'ruled')\n";
    let run =
        compare::run(within(&install, &rig, &[&MADE[..], &rules].concat(), &["python3", "-c", asks]), LIMIT).unwrap();
    assert!(run.success, "{}", run.output);
    until("what may leave arrives", || std::fs::read_to_string(&heard[1]).unwrap().contains("ruled"));
    assert!(!std::fs::read_to_string(&heard[0]).unwrap().contains("ruled"));
    install.nothing_left().unwrap();
}
