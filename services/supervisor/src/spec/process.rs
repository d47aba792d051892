//! A process of a document: that of config.json, and those of `exec`.

use std::os::unix::ffi::OsStrExt;

use cofferdam_control::client::Verbatim;
use cofferdam_control::oci;
use cofferdam_control::sentry::{CapabilitySets, Process, Scheduler};
use oci_spec::runtime::{Capabilities, IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy};

use super::Refused;

/// `struct sched_attr`'s policies that a sandbox has.
const SCHED_OTHER: i32 = 0;
const SCHED_BATCH: i32 = 3;
const SCHED_IDLE: i32 = 5;

/// A process of the document `name`; `verbatim` is what JSON could not say of it.
pub fn one_process(
    process: &oci_spec::runtime::Process,
    verbatim: Option<&Verbatim>,
    name: &str,
) -> Result<Process, Refused> {
    let invalid = |message: &str| Refused::invalid(format!("{name}: {message}"));
    let (args, env, cwd) = match verbatim {
        Some(v) => (v.args.clone(), v.env.clone(), v.cwd.clone()),
        None => (
            bytes(process.args().as_deref().unwrap_or_default()),
            bytes(process.env().as_deref().unwrap_or_default()),
            process.cwd().as_os_str().as_bytes().to_vec(),
        ),
    };
    without_nul(&args, name, "process.args")?;
    without_nul(&env, name, "process.env")?;
    if cwd.is_empty() {
        return Err(invalid("Cwd property must not be empty"));
    }
    if cwd.first() != Some(&b'/') || cwd.contains(&0) {
        return Err(invalid("Cwd must be an absolute path"));
    }
    if args.first().is_none_or(Vec::is_empty) {
        return Err(invalid("args must not be empty"));
    }
    let user = process.user();
    // -1 is no id to setuid(2) and setgid(2).
    let groups = user.additional_gids().clone().unwrap_or_default();
    if user.uid() == u32::MAX || user.gid() == u32::MAX || groups.contains(&u32::MAX) {
        return Err(invalid("process.user: setresuid: invalid argument"));
    }
    let caps = process.capabilities().as_ref();
    let capabilities = CapabilitySets {
        bounding: bitmap(caps.and_then(|c| c.bounding().as_ref())),
        effective: bitmap(caps.and_then(|c| c.effective().as_ref())),
        permitted: bitmap(caps.and_then(|c| c.permitted().as_ref())),
        inheritable: bitmap(caps.and_then(|c| c.inheritable().as_ref())),
        ambient: bitmap(caps.and_then(|c| c.ambient().as_ref())),
    };
    if process.oom_score_adj().is_some_and(|adj| !(-1000..=1000).contains(&adj)) {
        return Err(invalid("process.oomScoreAdj: write oom_score_adj: invalid argument"));
    }
    Ok(Process {
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask().map(|m| m & 0o777),
        terminal: process.terminal().unwrap_or(false),
        more_files: 0,
        console_size: console(process.console_size()),
        rlimits: rlimits(process, name)?,
        capabilities,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        ignored: verbatim.map_or(0, |v| v.ignored),
        scheduler: scheduler(process, name)?,
        io_priority: io_priority(process, name)?,
    })
}

/// What a process asks for and does not get.
pub fn unheeded(process: &oci_spec::runtime::Process) -> Vec<String> {
    let mut told = Vec::new();
    let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    if given(process.apparmor_profile()) {
        told.push("process.apparmorProfile: there is no AppArmor inside a sandbox; no profile is set".to_owned());
    }
    if given(process.selinux_label()) {
        told.push("process.selinuxLabel: there is no SELinux inside a sandbox; no label is set".to_owned());
    }
    if process.exec_cpu_affinity().is_some() {
        told.push("process.execCPUAffinity: processes of exec run on the processors of the container".to_owned());
    }
    if given(process.command_line()) {
        told.push("process.commandLine: means something on Windows only".to_owned());
    }
    if given(process.user().username()) {
        told.push("process.user.username: means something on Windows only".to_owned());
    }
    if process.scheduler().as_ref().is_some_and(|s| s.runtime().is_some() || s.deadline().is_some()) {
        told.push("process.scheduler: runtime, deadline and period count for SCHED_DEADLINE only".to_owned());
    }
    told
}

fn rlimits(process: &oci_spec::runtime::Process, name: &str) -> Result<Vec<(u32, u64, u64)>, Refused> {
    let mut rlimits: Vec<(u32, u64, u64)> = Vec::new();
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        let word = limit.typ().to_string();
        let number = oci::RLIMITS.iter().position(|l| *l == word).and_then(|n| u32::try_from(n).ok());
        let number = number.ok_or_else(|| Refused::invalid(format!("invalid rlimit type: {word}")))?;
        if rlimits.iter().any(|(n, ..)| *n == number) {
            return Err(Refused::invalid(format!("{name}: process.rlimits: {word} is there twice")));
        }
        if limit.soft() > limit.hard() {
            let message =
                format!("{name}: error setting rlimit {word}: a soft limit above the hard one: invalid argument");
            return Err(Refused::invalid(message));
        }
        rlimits.push((number, limit.soft(), limit.hard()));
    }
    Ok(rlimits)
}

fn scheduler(process: &oci_spec::runtime::Process, name: &str) -> Result<Option<Scheduler>, Refused> {
    let Some(s) = process.scheduler() else { return Ok(None) };
    let refused = |what: &str| Err(Refused::invalid(format!("{name}: process.scheduler: {what}")));
    let policy = match s.policy() {
        LinuxSchedulerPolicy::SchedOther => SCHED_OTHER,
        LinuxSchedulerPolicy::SchedBatch => SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => SCHED_IDLE,
        other => return refused(&format!("{other} is not supported: a sandbox has no real-time policies")),
    };
    if s.priority().is_some_and(|p| p != 0) {
        return refused("scheduler priority can only be specified for SchedFIFO or SchedRR policy");
    }
    let nice = s.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return refused(&format!("invalid scheduler nice value: {nice}"));
    }
    let mut reset_on_fork = false;
    for flag in s.flags().as_deref().unwrap_or_default() {
        match flag {
            LinuxSchedulerFlag::SchedResetOnFork => reset_on_fork = true,
            other => return refused(&format!("flag {other:?} is not supported")),
        }
    }
    Ok(Some(Scheduler { policy, nice, reset_on_fork }))
}

fn io_priority(process: &oci_spec::runtime::Process, name: &str) -> Result<Option<i32>, Refused> {
    let Some(p) = process.io_priority() else { return Ok(None) };
    let class = match p.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match i32::try_from(p.priority()) {
        Ok(level @ 0..=7) => Ok(Some(class << 13 | level)),
        _ => {
            Err(Refused::invalid(format!("{name}: process.ioPriority: invalid ioPriority.Priority: {}", p.priority())))
        }
    }
}

fn console(size: Option<oci_spec::runtime::Box>) -> Option<(u16, u16)> {
    let size = size?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))
}

fn bytes(words: &[String]) -> Vec<Vec<u8>> {
    words.iter().map(|w| w.as_bytes().to_vec()).collect()
}

fn without_nul(words: &[Vec<u8>], name: &str, what: &str) -> Result<(), Refused> {
    if words.iter().any(|w| w.contains(&0)) {
        return Err(Refused::invalid(format!("{name}: {what} contains a NUL byte")));
    }
    Ok(())
}

fn bitmap(set: Option<&Capabilities>) -> u64 {
    let mut bits = 0;
    for capability in set.into_iter().flatten() {
        let name = serde_json::to_value(capability).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str);
        if let Some(number) = oci::CAPABILITIES.iter().position(|c| Some(*c) == name) {
            bits |= 1 << number;
        }
    }
    bits
}
