//! Rules, and floods: what passes, what does not, and what is counted.
//!
//! The control of the rules is the host's kernel with the same rules for iptables, of the floods a bound.

use super::*;

/// Our rules as commands for iptables, which has none for both families at once.
fn iptables(rules: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (command, icmp, six) in [("iptables", "icmp", false), ("ip6tables", "icmpv6", true)] {
        for (chain, lo) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            all.push(format!("{command} -A {chain} {lo} lo -j ACCEPT"));
            all.push(format!("{command} -A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"));
            // Neighbours are nobody's rule's business.
            let neighbours = (133..=137).filter(|_| six);
            all.extend(neighbours.map(|n| format!("{command} -A {chain} -p icmpv6 --icmpv6-type {n} -j ACCEPT")));
        }
        for rule in rules.split(';').map(str::trim) {
            let words: Vec<&str> = rule.split(' ').collect();
            let (chain, end) = if words[0] == "in" { ("INPUT", "-s") } else { ("OUTPUT", "-d") };
            let deny = if words[0] == "in" { "DROP" } else { "REJECT" };
            let jump = |action| if action == "allow" { "ACCEPT" } else { deny };
            if words[1] == "default" {
                all.push(format!("{command} -A {chain} -j {}", jump(words[2])));
                continue;
            }
            let mut matches = match words[2] {
                "any" | "all" => String::new(),
                "icmp" => format!(" -p {icmp}"),
                protocol => format!(" -p {protocol}"),
            };
            if let Some(place) = words.get(3) {
                let (network, port) = place.rsplit_once(':').filter(|(n, _)| !n.contains(':')).unwrap_or((place, ""));
                if !network.is_empty() && network.contains(':') != six {
                    continue;
                }
                if !network.is_empty() {
                    matches += &format!(" {end} {network}");
                }
                if !port.is_empty() {
                    matches += &format!(" --dport {port}");
                }
            }
            all.push(format!("{command} -A {chain}{matches} -j {}", jump(words[1])));
        }
    }
    all
}

/// The inner namespace with such rules, until it is dropped.
struct Ruled<'a>(&'a Rig);

impl<'a> Ruled<'a> {
    fn new(rig: &'a Rig, rules: &str) -> Self {
        need("iptables", "iptables").unwrap();
        let ruled = Self(rig);
        for command in iptables(rules) {
            let words: Vec<&str> = command.split(' ').collect();
            let done = Rig::natively(&rig.inner, &words).output().unwrap();
            assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        }
        ruled
    }
}

impl Drop for Ruled<'_> {
    fn drop(&mut self) {
        for command in ["iptables", "ip6tables"] {
            let _ = Rig::natively(&self.0.inner, &[command, "-F"]).status();
        }
    }
}

/// A sandbox with rules.
fn ruled(install: &Install, rig: &Rig, name: &str, rules: &str, arguments: &[&str]) -> Command {
    let command = boxed(install, rig, name, arguments);
    let bundle = install.folder.join(name);
    Install::edit(&bundle, |d| d["annotations"] = serde_json::json!({"dev.cofferdam.network-rules": rules})).unwrap();
    command
}

fn stats(install: &Install, name: &str) -> serde_json::Value {
    let said = install.run(&["events", "--stats", name]).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let all: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    all["data"].clone()
}

fn counter(stats: &serde_json::Value, name: &str) -> u64 {
    stats["cofferdam"]["network"]["counters"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

#[test]
fn what_rules_let_out_and_what_comes_back() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-out").unwrap(), Rig::new("o"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let client = script("ruled.py");
    for (n, rules) in [
        "out allow tcp 10.99.0.1:7; out deny tcp; out allow udp :7; out allow icmp 10.99.0.0/24; out default deny; in default deny",
        "out deny tcp 10.99.0.0/24:7; out deny udp fd99::/64; out deny icmp fd99::1; out allow all; in deny all",
        "out deny all",
        "out allow all; in allow icmp; in deny all",
    ]
    .iter()
    .enumerate()
    {
        let native = {
            let _ruled = Ruled::new(&rig, rules);
            compare::run(Rig::natively(&rig.inner, &["python3", "-u", &client]), LIMIT).unwrap()
        };
        // The third lets nothing pass but what is the sandbox's own; the others some.
        assert_eq!(native.output.matches("True").count() > 1, n != 2, "{rules}: {}", native.output);
        assert!(n == 3 || native.output.contains("ECONNREFUSED"), "{rules}: {}", native.output);
        let name = format!("out{n}");
        let sandbox = compare::run(ruled(&install, &rig, &name, rules, &["python3", "-u", &client]), LIMIT).unwrap();
        the_same(&install, &name, &native, &sandbox);
    }
    install.nothing_left().unwrap();
}

#[test]
fn what_rules_let_in_and_what_goes_back() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-in").unwrap(), Rig::new("i"));
    let (server, caller) = (script("server.py"), script("intruder.py"));
    let rules =
        "in allow tcp 10.99.0.1:7; in allow udp :7; in allow icmp 10.99.0.0/24; in default deny; out default deny";
    let both = |mut server: Command, look: &dyn Fn()| {
        let mut serves = server.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut calls = Rig::natively(&rig.outer, &["python3", "-u", &caller]);
        let mut calls = calls.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = std::io::BufReader::new(calls.stdout.take().unwrap());
        while !said.ends_with("-- over\n") {
            assert!(std::io::BufRead::read_line(&mut lines, &mut said).unwrap() > 0, "{said}");
        }
        look();
        drop(calls.stdin.take());
        assert!(calls.wait().unwrap().success());
        serves.wait().unwrap();
        Run { output: said, success: true, ..compare::run(Command::new("true"), LIMIT).unwrap() }
    };
    let native = {
        let _ruled = Ruled::new(&rig, rules);
        both(Rig::natively(&rig.inner, &["python3", "-u", &server]), &|| {})
    };
    assert_eq!(native.output.matches("True").count(), 6, "{}", native.output);
    let sandbox = both(ruled(&install, &rig, "in", rules, &["python3", "-u", &server]), &|| {
        let stats = stats(&install, "in");
        let rules = stats["cofferdam"]["network"]["rules"].as_array().unwrap().clone();
        let of = |rule: &str| rules.iter().find(|r| r["rule"] == rule).unwrap()["count"].as_u64().unwrap();
        let names: Vec<_> = rules.iter().map(|r| r["rule"].as_str().unwrap()).collect();
        let expected = ["in allow tcp 10.99.0.1/32:7", "in allow udp :7", "in allow icmp 10.99.0.0/24"];
        assert_eq!(names, [&expected[..], &["in default deny", "out default deny"]].concat());
        // A connection each for looking whether it is there and for the transfer (a first SYN may come before there is a listener), and the
        // four flows of UDP; two of TCP to port 8, over the other family to port 7, and so on, with their repetitions.
        assert!(of(names[0]) >= 2 && of(names[1]) == 4 && of(names[2]) == 1, "{rules:?}");
        assert!(of("in default deny") >= 6 && of("out default deny") <= 20, "{rules:?}");
        assert!(counter(&stats, "filter_denied") >= 6 && counter(&stats, "filter_flows") >= 4, "{stats}");
        assert!(counter(&stats, "tcp_passive_opens") >= 2, "{stats}");
        let interface = &stats["network_interfaces"][0];
        assert_eq!(interface["Name"], "eth0");
        for name in ["RxBytes", "TxBytes"] {
            assert!(interface[name].as_u64().unwrap() > 100_000, "{interface}");
        }
    });
    the_same(&install, "in", &native, &sandbox);
    install.nothing_left().unwrap();
}

#[test]
fn another_netd_has_the_same_rules() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-rules-again").unwrap(), Rig::new("g"));
    let rules = "in allow tcp :7; in default deny";
    let mut child = ruled(&install, &rig, "again", rules, &["python3", "-u", &script("server.py")]).spawn().unwrap();
    let reached = |port: u16| {
        let connect = format!("import socket; socket.create_connection(('10.99.0.2', {port}), 1)");
        let tried = Rig::natively(&rig.outer, &["python3", "-c", &connect]).stderr(Stdio::null()).status();
        tried.unwrap().success()
    };
    for _ in 0..2 {
        until("the port that may be reached", || reached(7));
        assert!(!reached(8), "port 8 is reached");
        assert!(counter(&stats(&install, "again"), "filter_denied") > 0);
        let before = install.pids("cofferdam-netd");
        let pid = rustix::process::Pid::from_raw(before[0]).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("another netd", || install.pids("cofferdam-netd").iter().any(|pid| !before.contains(pid)));
    }
    until("the port that may be reached", || reached(7));
    let over = compare::run(Rig::natively(&rig.outer, &["python3", "-u", &script("over.py")]), LIMIT).unwrap();
    assert!(over.success, "{}", over.output);
    assert!(child.wait().unwrap().success());
    install.nothing_left().unwrap();
}

#[test]
fn nothing_gets_round_a_rule() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-evade").unwrap(), Rig::new("e"));
    let evade = script("evade.py");
    let heard = |command: Command| {
        let mut hears = Rig::natively(&rig.outer, &["python3", "-u", &script("heard.py")]);
        let mut hears = hears.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(hears.stdout.take().unwrap());
        let mut said = String::new();
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        assert_eq!(said, "ready\n");
        let tried = compare::run(command, LIMIT).unwrap();
        assert!(tried.output.contains("tried"), "{}", tried.output);
        drop(hears.stdin.take());
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        hears.wait().unwrap();
        said
    };
    let native = heard(Rig::natively(&rig.inner, &["python3", "-u", &evade]));
    for word in ["long", "made", "with options", "in pieces", "behind options", "one piece", "mapped", "raw6"] {
        assert!(native.contains(word), "{word}: {native}");
    }
    let run = |name: &str, rules: &str| heard(ruled(&install, &rig, name, rules, &["python3", "-u", &evade]));
    assert_eq!(run("open", ""), native);
    // Where there are rules, a frame with a piece is none that could be judged.
    let whole = native.replace(" 'frames in pieces',", "");
    assert!(whole != native);
    assert_eq!(run("allowed", "out allow udp :77; out allow tcp :7; out default deny"), whole);
    for (name, rules) in
        [("port", "out deny udp :77"), ("udp", "out deny udp"), ("all", "out allow tcp; out default deny")]
    {
        assert_eq!(run(name, rules), "ready\n[]\n", "{rules}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn rules_that_are_none_are_named_before_anything_is_made() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-bad-rule").unwrap(), Rig::new("n"));
    let refused =
        compare::run(ruled(&install, &rig, "bad", "in allow all; out deny tcp 10.0.0.0/40", &["true"]), LIMIT);
    let refused = refused.unwrap();
    let says = "annotation dev.cofferdam.network-rules: rule \"out deny tcp 10.0.0.0/40\": no address";
    assert!(!refused.success && refused.output.contains(says), "{}", refused.output);
    let refused = install.run(&["do", "--net-rule", "out deny all", "--net-rule", "out perhaps all", "true"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("rule \"out perhaps all\": neither allow nor deny"), "{said}");
    // A good one is taken, whatever network there is.
    assert!(install.run(&["do", "--net-rule", "out deny all", "true"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

/// netd under floods: its memory has a bound, it lives, others get through, and counters tell of it.
#[test]
fn floods_are_borne_and_counted() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-flood").unwrap(), Rig::new("f"));
    // Answers to nobody are not to come back as errors, which would end what they are about.
    let rules = "in allow tcp :7; in allow udp; in default deny";
    let mut child = ruled(&install, &rig, "flood", rules, &["python3", "-u", &script("flooded.py")]).spawn().unwrap();
    until("a netd", || install.pids("cofferdam-netd").len() == 1);
    let netd = install.pids("cofferdam-netd")[0];
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{netd}/status")).unwrap();
        // All of it, with the part of the window that is in use.
        field(&status, "VmRSS").split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    };
    let flood = |what: &str| {
        let said =
            compare::run(Rig::natively(&rig.outer, &["python3", "-u", &script("flood.py"), what]), LIMIT).unwrap();
        assert!(
            said.success && said.output.contains("transferred"),
            "{what}: {}\n{}",
            said.output,
            log_of(&install, "flood")
        );
        let now = stats(&install, "flood");
        println!("{what}: {} MiB, {}", memory(), now["cofferdam"]["network"]["counters"]);
        now
    };
    flood("none");
    let calm = memory();
    let after = flood("syn");
    assert!(counter(&after, "tcp_cookies_sent") > 10_000 && counter(&after, "tcp_half_open") <= 4096, "{after}");
    let after = flood("pieces");
    assert!(counter(&after, "fragments_received") > 10_000 && counter(&after, "fragments_lost") > 10_000, "{after}");
    let after = flood("udp");
    assert!(after["network_interfaces"][0]["RxPackets"].as_u64().unwrap() > 100_000, "{after}");
    // One that cannot look for a while finds what there was room for, and knows of the rest.
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(netd).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let lost = after["network_interfaces"][0]["RxDropped"].as_u64().unwrap();
    signal(rustix::process::Signal::STOP);
    let mut full = Rig::natively(&rig.outer, &["python3", "-u", &script("flood.py"), "full"]);
    let mut full = full.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(full.stdout.as_mut().unwrap(), &mut word).unwrap();
    signal(rustix::process::Signal::CONT);
    drop(full.stdin.take());
    let said = full.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "transferred\n");
    let after = stats(&install, "flood");
    let lost = after["network_interfaces"][0]["RxDropped"].as_u64().unwrap() - lost;
    assert!((1000..40_000).contains(&lost), "{lost} were lost");
    println!("full: {lost} lost");
    let before = counter(&after, "tcp_passive_opens");
    let after = flood("connections");
    assert!(counter(&after, "tcp_passive_opens") >= before + 4000, "{after}");
    until("all connections are forgotten", || counter(&stats(&install, "flood"), "tcp_connections") < 10);
    let grown = memory().saturating_sub(calm);
    // The bounds of pieces (4 MiB), handshakes and flows, and a ring each of 4000 connections (256 MiB together at most, see `Limits`).
    assert!(grown < 300, "netd has grown by {grown} MiB");
    assert_eq!(install.pids("cofferdam-netd"), [netd], "{}", log_of(&install, "flood"));
    let over = compare::run(Rig::natively(&rig.outer, &["python3", "-u", &script("flood.py"), "over"]), LIMIT).unwrap();
    assert!(over.success, "{}", over.output);
    assert!(child.wait().unwrap().success());
    install.nothing_left().unwrap();
}

/// A person's command whose caller is in the inner namespace, with rules.
fn commanded(install: &Install, rig: &Rig, rules: &str, more: &[&str]) -> Command {
    let flags: Vec<&str> = rules.split("; ").flat_map(|rule| ["--net-rule", rule]).collect();
    let own = install.command(&[&["do"], &flags[..], more].concat());
    let mut command = Rig::natively(&rig.inner, &[own.get_program().to_str().unwrap()]);
    command.args(own.get_args());
    command
}

/// The same rules for a person's command, whose network is behind its caller's sockets.
#[test]
fn rules_of_a_network_behind_the_callers_sockets() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-user-rules").unwrap(), Rig::new("u"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let client = script("ruled.py");
    // Whoever it is may ask for echoes.
    let all = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
    assert!(Rig::natively(&rig.inner, &["sh", "-c", all]).status().unwrap().success());
    for rules in [
        "out allow tcp 10.99.0.1:7; out deny tcp; out allow udp :7; out allow icmp 10.99.0.0/24; out default deny",
        "out deny tcp 10.99.0.0/24:7; out deny udp fd99::/64; out deny icmp fd99::1",
        "out deny all",
    ] {
        let native = {
            let _ruled = Ruled::new(&rig, rules);
            compare::run(Rig::natively(&rig.inner, &["python3", "-u", &client]), LIMIT).unwrap()
        };
        let sandbox = compare::run(commanded(&install, &rig, rules, &["python3", "-u", &client]), LIMIT).unwrap();
        the_same(&install, "user", &native, &sandbox);
    }
    install.nothing_left().unwrap();
}

/// Who calls at a published port is judged by who he is.
#[test]
fn rules_of_published_ports() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-published-rules").unwrap(), Rig::new("p"));
    let published = script("published.py");
    let ports = ["--publish", "7007:7", "--publish", "7007:7/udp", "python3", "-u", &published, "serve"];
    for (rules, expected) in [
        ("out default deny", "tcp True udp True\n"),
        ("in allow tcp 10.99.0.1:7; in allow udp 10.99.0.9:7; in default deny", "tcp True udp timed out\n"),
        ("in deny tcp 10.99.0.0/24:7; in allow udp :7; out default deny; in default deny", "tcp ECONNRESET udp True\n"),
        ("in deny tcp :7007", "tcp True udp True\n"),
    ] {
        // The sandbox before it may still have the ports.
        until("the ports are free", || {
            let bind = "import socket; socket.create_server(('', 7007)); socket.socket(type=socket.SOCK_DGRAM).bind(('', 7007))";
            Rig::natively(&rig.inner, &["python3", "-c", bind]).stderr(Stdio::null()).status().unwrap().success()
        });
        let mut serves = commanded(&install, &rig, rules, &ports).stderr(Stdio::piped()).spawn().unwrap();
        let called = compare::run(Rig::natively(&rig.outer, &["python3", "-u", &published, "call"]), LIMIT).unwrap();
        serves.kill().unwrap();
        let said = serves.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(called.output.starts_with(expected), "{rules}: {}\n{said}", called.output);
    }
    install.nothing_left().unwrap();
}
