//! The life of containers under pressure: callers at once, the death of every part at every step, every command in every state next
//! to runc, and many containers one after another and beside each other. Nothing may be left, and nobody may wait for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::process::Command;
use std::time::Duration;

use cofferdam_integration::asked::{Answer, ask, begin, bundle, must, nothing_left, say, wait_for};
use cofferdam_integration::chance::{Random, struck};
use cofferdam_integration::install::{Install, need, until};

/// What may be answered about a container that another caller removes or ends.
const GONE: &[&str] = &["container does not exist", "container not running", "is gone"];

#[test]
fn callers_at_once_get_answers_and_leave_nothing() {
    let install = Install::with_services("life-callers").unwrap();
    let bundle = bundle(&install, "b", &["sleep", "1000"]);
    let mut random = Random::default();
    let seed = random.seed();
    let create = ["create", "-b", &bundle, "c"];
    for round in 0..24 {
        let case = round % 8;
        let delay = Duration::from_millis(random.below(40));
        println!("round {round}, case {case}, delay {delay:?}, seed {seed}");
        // What is there before, who comes first, who second.
        let (before, first, second): (&str, &[&str], &[&str]) = match case {
            0 => ("running", &["delete", "--force", "c"], &["delete", "--force", "c"]),
            1 => ("created", &["delete", "--force", "c"], &["start", "c"]),
            2 => ("running", &["kill", "c", "KILL"], &["exec", "c", "true"]),
            3 => ("none", &create, &["state", "c"]),
            4 => ("running", &["exec", "c", "sleep", "0.05"], &["pause", "c"]),
            5 => ("none", &create, &create),
            6 => ("running", &["exec", "--detach", "c", "sleep", "1000"], &["kill", "c", "KILL"]),
            _ => ("none", &create, &["delete", "--force", "c"]),
        };
        if before != "none" {
            must(&install, &create);
            install.note();
        }
        if before == "running" {
            must(&install, &["start", "c"]);
        }
        let one = ask(&install, first);
        std::thread::sleep(delay);
        let two = ask(&install, second);
        let more = (case == 3).then(|| say(&install, &["list"]));
        if case == 4 {
            // One that runs is frozen with everything else: it goes on afterwards.
            let two = two.end();
            two.is_one_of(&[]);
            must(&install, &["resume", "c"]);
            one.end().is_one_of(&["cannot exec in a paused container"]);
        } else {
            let (one, two) = (one.end(), two.end());
            install.note();
            match case {
                0 => assert!(one.fine() && two.fine(), "{one:?} {two:?}"),
                1 => {
                    assert!(one.fine(), "{one:?}");
                    two.is_one_of(&[GONE, &["cannot start a container that has stopped"]].concat());
                }
                2 => {
                    assert!(one.fine(), "{one:?}");
                    if two.code() != Some(137) {
                        two.is_one_of(
                            &[GONE, &["cannot exec in a stopped container", "process already finished"]].concat(),
                        );
                    }
                    wait_for(&install, "c", "stopped");
                }
                3 => {
                    assert!(one.fine(), "{one:?}");
                    two.is_one_of(GONE);
                    assert!(!two.fine() || two.text.contains("creat"), "{two:?}");
                    assert!(more.as_ref().is_some_and(Answer::fine), "{more:?}");
                }
                5 => {
                    assert!(one.fine() != two.fine(), "one must win: {one:?} {two:?}");
                    let lost = if one.fine() { &two } else { &one };
                    assert!(lost.text.contains("container with given ID already exists"), "{lost:?}");
                    wait_for(&install, "c", "created");
                }
                6 => {
                    assert!(two.fine(), "{two:?}");
                    one.is_one_of(
                        &[GONE, &["cannot exec in a stopped container", "process already finished", "stand-in"]]
                            .concat(),
                    );
                    wait_for(&install, "c", "stopped");
                }
                _ => assert!(two.fine(), "{two:?}"),
            }
        }
        must(&install, &["delete", "--force", "c"]);
        assert!(say(&install, &["state", "c"]).text.contains("container does not exist"));
    }
    nothing_left(&install).unwrap();
}

#[test]
fn whatever_is_killed_at_whatever_moment_delete_force_clears_up() {
    let install = Install::with_services("life-kill").unwrap();
    let bundle = bundle(&install, "b", &["sleep", "1000"]);
    let mut random = Random::default();
    let seed = random.seed();
    let victims = ["cli", "stand-in", "cofferdam-sentry", "cofferdam-gofer", "cofferdam-supervisor"];
    let steps: [&[&str]; 5] = [
        &["create", "-b", &bundle, "c"],
        &["start", "c"],
        &["exec", "c", "sleep", "0.05"],
        &["exec", "--detach", "c", "sleep", "1000"],
        &["delete", "--force", "c"],
    ];
    for (n, step) in steps.iter().enumerate() {
        for victim in victims {
            let delay = Duration::from_millis(random.below(if n == 0 { 60 } else { 25 }));
            println!("{victim} dies {delay:?} into {step:?}, seed {seed}");
            if n > 0 {
                must(&install, &["create", "-b", &bundle, "c"]);
                install.note();
            }
            if n > 1 {
                must(&install, &["start", "c"]);
            }
            let answer = struck(&install, step, delay, |cli| match victim {
                "cli" => vec![cli],
                "stand-in" => install.pids("cofferdam").into_iter().filter(|pid| *pid != cli).collect(),
                service => install.pids(service),
            });
            let cleared = say(&install, &["delete", "--force", "c"]);
            assert!(cleared.fine(), "{victim} {delay:?} into {step:?} (seed {seed}): {answer:?}, {cleared:?}");
            nothing_left(&install)
                .unwrap_or_else(|e| panic!("{victim} {delay:?} into {step:?} (seed {seed}): {e}; {answer:?}"));
        }
    }
}

/// Brings a container into a state.
fn bring(run: &dyn Fn(&[&str]) -> Answer, bundle: &str, state: &str) {
    if state == "none" {
        return;
    }
    let must = |arguments: &[&str]| {
        let answer = run(arguments);
        assert!(answer.fine(), "{answer:?}");
    };
    must(&["create", "-b", bundle, "c"]);
    if !["created", "thawed"].contains(&state) {
        must(&["start", "c"]);
    }
    match state {
        // Created, and frozen for a while.
        "thawed" => {
            must(&["pause", "c"]);
            must(&["resume", "c"]);
            assert!(run(&["state", "c"]).text.contains("\"created\""));
        }
        "paused" => must(&["pause", "c"]),
        "stopped" => {
            must(&["kill", "c", "KILL"]);
            until("its end", || run(&["state", "c"]).text.contains("\"stopped\""));
        }
        _ => {}
    }
}

#[test]
fn every_state_answers_as_runc_does() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("life-states").unwrap();
    let bundle = bundle(&install, "b", &["sleep", "1000"]);
    let theirs = install.folder.join("runc");
    let runc = |arguments: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&theirs).args(arguments);
        begin(command, &install.folder).end()
    };
    let ours = |arguments: &[&str]| say(&install, arguments);
    let commands: [&[&str]; 10] = [
        &["delete", "c"],
        &["delete", "--force", "c"],
        &["kill", "c", "TERM"],
        &["kill", "c", "KILL"],
        &["kill", "--all", "c", "KILL"],
        &["kill", "c", "NOPE"],
        &["start", "c"],
        &["pause", "c"],
        &["resume", "c"],
        &["exec", "c", "true"],
    ];
    let mut different = Vec::new();
    for state in ["none", "created", "thawed", "running", "paused", "stopped"] {
        for command in commands {
            let told = [&runc as &dyn Fn(&[&str]) -> Answer, &ours].map(|run| {
                bring(run, &bundle, state);
                let answer = run(command);
                install.note();
                let _ = run(&["delete", "--force", "c"]);
                let gone = run(&["state", "c"]);
                assert!(gone.text.contains("container does not exist"), "{state}, {command:?}: {gone:?}");
                answer
            });
            let [runc, ours] = told;
            let plain = runc.text.replace("\\\"", "\"");
            let message = ours.text.trim().trim_start_matches("cofferdam: ");
            // runc adds what it tried again on its way to success.
            if runc.code() != ours.code() || (!runc.fine() && !plain.contains(message)) {
                different.push(format!("{state}: {command:?}: runc {runc:?}, ours {ours:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    nothing_left(&install).unwrap();
}

/// What the supervisor and its launcher hold: descriptors, threads, resident KiB.
fn held(install: &Install) -> (usize, usize, usize) {
    let pids = install.pids("cofferdam-supervisor");
    let count = |pid: &i32, what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let resident = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (
        pids.iter().map(|p| count(p, "fd")).sum(),
        pids.iter().map(|p| count(p, "task")).sum(),
        pids.iter().map(resident).sum::<usize>(),
    )
}

#[test]
fn two_hundred_in_sequence_and_fifty_at_once_leave_nothing() {
    let install = Install::with_services("life-many").unwrap();
    // Without a place of their own in the cgroups: that is one for all.
    let short = install.busybox("short", &["true"], false).unwrap();
    let long = install.busybox("long", &["sleep", "1000"], false).unwrap();
    let (short, long) = (short.to_str().unwrap(), long.to_str().unwrap());
    // So that it is one supervisor all the time.
    must(&install, &["create", "-b", long, "keeper"]);
    let supervisors = install.pids("cofferdam-supervisor");
    let mut marks = Vec::new();
    for n in 0..200 {
        let id = format!("c{n}");
        must(&install, &["create", "-b", short, &id]);
        must(&install, &["start", &id]);
        must(&install, &["delete", "--force", &id]);
        if matches!(n, 19 | 99 | 199) {
            marks.push(held(&install));
        }
    }
    println!("descriptors, threads, KiB after 20, 100, 200: {marks:?}");
    let (first, second) = (marks[1], marks[2]);
    assert!(second.0 <= first.0 + 2 && second.1 <= first.1, "{marks:?}");
    assert!(second.2 <= first.2 + 512, "{marks:?}");

    let ids: Vec<String> = (0..50).map(|n| format!("l{n}")).collect();
    for id in &ids {
        must(&install, &["run", "--detach", "-b", long, id]);
    }
    install.note();
    for id in &ids {
        assert_eq!(must(&install, &["exec", id, "echo", id]).text.trim(), id.as_str());
    }
    assert_eq!(must(&install, &["list", "-q"]).text.lines().count(), 51);
    for id in &ids {
        must(&install, &["delete", "--force", id]);
    }
    until("the last connections' end", || held(&install).0 <= second.0 + 2);
    let after = held(&install);
    println!("after 50 at once: {after:?}");
    assert!(after.1 <= second.1 && after.2 <= second.2 + 4096, "{after:?}, before {second:?}");
    assert_eq!(install.pids("cofferdam-supervisor"), supervisors);
    must(&install, &["delete", "--force", "keeper"]);
    nothing_left(&install).unwrap();
}
