//! `cofferdam-sentry`: the application kernel of one sandbox.
//!
//! It answers the system calls of a container. It holds no host file and no host socket but the channels it was born
//! with; files come from the Gofer over 9P. Started by the supervisor only: takes its orders from descriptor 3, starts
//! its stubs, raises its walls, reports ready, and only then makes a container.

mod abi;
mod begin;
mod bpf;
mod errno;
mod filesystems;
mod interval;
mod ipc;
mod kernel;
mod limits;
mod loader;
mod log;
mod memory;
mod namespaces;
mod net;
mod sandbox;
mod signal;
mod sync;
mod syscalls;
mod task;
mod time;
mod uio;
mod vfs;
mod wait;

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use cofferdam_confine::Walls;
use cofferdam_control::Channel;
use cofferdam_control::sentry::{FailureKind, FromSentry, PlatformChoice, Said, SentryOrders};
use cofferdam_platform::{Platform, Setup, StartError, notify, ptrace};
use cofferdam_shm::Window;

use crate::kernel::Kernel;
use crate::sandbox::Sandbox;

/// Sizes tried for the Sentry's own memory window, bytes: as much as the host lets us reserve.
const MEMORY_SIZES: [u64; 3] = [1 << 44, 1 << 40, 1 << 36];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--compatibility") {
        print!("{}", syscalls::compatibility::page());
        return ExitCode::SUCCESS;
    }
    let channel = match cofferdam_confine::inherited_channel() {
        Ok(fd) => Arc::new(Channel::new(fd)),
        Err(e) => {
            eprintln!("cofferdam-sentry: started by the supervisor only ({e})");
            return ExitCode::from(64);
        }
    };
    match run(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let failed = FromSentry::Failed {
                id: None,
                kind: FailureKind::Host,
                message: format!("the Sentry could not start: {e}"),
            };
            let _ = channel.send(&Said::from(failed), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Which platform, and why.
fn choose(wanted: PlatformChoice) -> Result<(&'static str, String), Failure> {
    match wanted {
        PlatformChoice::Notify => notify::probe().map(|()| ("notify", "asked for".into())).map_err(Into::into),
        PlatformChoice::Ptrace => ptrace::probe().map(|()| ("ptrace", "asked for".into())).map_err(Into::into),
        PlatformChoice::Auto => match notify::probe() {
            Ok(()) => Ok(("notify", "the host has seccomp user notification".into())),
            Err(why) => match ptrace::probe() {
                Ok(()) => Ok(("ptrace", format!("notify cannot run here: {why}"))),
                Err(no) => Err(format!("no platform can run here: notify: {why}; ptrace: {no}").into()),
            },
        },
    }
}

/// How much sooner the host shall kill a stub than the Sentry, in thousandths of the memory that there is.
const STUBS_FIRST: i32 = 500;

/// The host's `oom_score_adj` of stubs. Where a limit of memory is met the host kills in the container's cgroup, which the Sentry and the
/// Gofer are in, too: it shall find a container's process first. (Lower than it is here it could be set by few.)
fn oom_score(orders: &SentryOrders) -> Option<i32> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse::<i32>().ok()?;
    let asked = orders.oom_score_adj.unwrap_or(own).max(own);
    let raised = if orders.memory_limited { asked.saturating_add(STUBS_FIRST) } else { asked };
    Some(raised.min(1000)).filter(|n| *n != own)
}

/// A descriptor of a window that gives no mapping which could ever be written through, whatever `mprotect` is asked.
fn read_only(window: &Window) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/self/fd/{}", window.fd().as_raw_fd());
    let file = std::fs::File::open(&path).map_err(|e| format!("a window for reading only ({path}): {e}"))?;
    Ok(file.into())
}

fn run(channel: &Arc<Channel>) -> Result<(), Failure> {
    let mut phases: Vec<(String, u64)> = Vec::new();
    let mut phase = |name: &str| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        phases.push((
            name.into(),
            seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0)),
        ));
    };
    let received = channel.receive::<SentryOrders>()?;
    let orders = received.message;
    let [cache_fd]: [OwnedFd; 1] = received.descriptors.try_into().map_err(|_| "orders need the cache memfd")?;
    log::start(channel.clone(), &orders.log);
    namespaces::number(orders.own_namespaces)?;
    phase("orders taken");

    let (mut platform_name, mut why) = choose(orders.platform)?;
    let cache = Window::from_peer(cache_fd, orders.cache_size)?;
    let memory = MEMORY_SIZES.iter().find_map(|s| Window::create("cofferdam-memory", *s).ok());
    let memory = memory.ok_or("no memory window could be reserved")?;
    phase("memory windows");

    let starter_filter = cofferdam_confine::policy::named("stub").map(words).unwrap_or_default();
    let oom_score_adj = oom_score(&orders);
    let setup = || -> Result<Setup, Failure> {
        let windows = vec![
            cache.fd().try_clone_to_owned()?,
            memory.fd().try_clone_to_owned()?,
            read_only(&cache)?,
            read_only(&memory)?,
        ];
        Ok(Setup { windows, starter_filter: starter_filter.clone(), oom_score_adj, after: wait::after_call })
    };
    let mut platform: Option<Arc<dyn Platform>> = None;
    if platform_name == "notify" {
        match notify::Notify::start(setup()?) {
            Ok(notify) => platform = Some(Arc::new(notify)),
            // The host knows of it and gives none: another listener is there already (seccomp(2): EBUSY).
            Err(StartError::Unsupported(no)) if orders.platform == PlatformChoice::Auto => {
                ptrace::probe().map_err(|e| format!("no platform can run here: notify: {no}; ptrace: {e}"))?;
                (platform_name, why) = ("ptrace", format!("notify cannot run here: {no}"));
            }
            Err(e) => return Err(e.into()),
        }
    }
    let platform = match platform {
        Some(platform) => platform,
        None => Arc::new(ptrace::Ptrace::start(setup()?)?),
    };
    phase("stub starter and template");

    let kernel = Kernel::new(cache, memory);
    let _ = kernel.platform.set(platform.clone());
    kernel.patch.store(orders.patch, std::sync::atomic::Ordering::Relaxed);
    kernel.first.uts.names.write().0 = orders.hostname.clone().into_bytes();
    kernel.log(format!("Linux version {} ({})", syscalls::system::RELEASE, syscalls::system::VERSION));
    kernel.log(format!("Cofferdam {}: platform {platform_name}, {why}", env!("CARGO_PKG_VERSION")));

    let mut keep = vec![channel_fd(channel)];
    keep.extend(platform.descriptors());
    keep.extend([kernel.cache.window().fd().as_raw_fd(), kernel.memory.window().fd().as_raw_fd()]);
    let policy = format!("sentry-{platform_name}");
    // Stubs are made readable by the Sentry's being their like: same uid, no capability; it is itself not dumpable.
    let walls = Walls { policy: &policy, keep: &keep, capabilities: &[], landlock: None, trees: &[], dumpable: false };
    syscalls::sched::cpus();
    cofferdam_platform::learn_scheduling();
    let raised = walls.raise()?;
    phase("walls");
    tracing::info!(?raised, platform_name, "walls are up");

    let timers = kernel.timers.clone();
    std::thread::Builder::new().name("timers".into()).stack_size(128 << 10).spawn(move || timers.run())?;
    let serving = platform.clone();
    std::thread::Builder::new().name("waker".into()).stack_size(128 << 10).spawn(|| wait::serve_later())?;
    std::thread::Builder::new().name("platform".into()).stack_size(256 << 10).spawn(move || serving.run())?;
    phase("threads");

    let sandbox = Sandbox::new(kernel.clone(), channel.clone());
    let told = Arc::downgrade(&sandbox);
    let _ = kernel.outer_exit.set(Box::new(move |pid, status| {
        if let Some(sandbox) = told.upgrade() {
            sandbox.ended(pid, status);
        }
    }));
    let told = Arc::downgrade(&sandbox);
    let _ = kernel.outer_stopped.set(Box::new(move |pid, code, signal| {
        if let (Some(sandbox), signal::code::CLD_STOPPED) = (told.upgrade(), code) {
            sandbox.stopped(pid, signal);
        }
    }));
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    channel.send(&Said::from(FromSentry::Ready { platform: platform_name.into(), why, pid }), &[])?;
    if orders.trace_startup {
        channel.send(&Said::from(FromSentry::Trace(phases)), &[])?;
    }
    sandbox.run()
}

fn channel_fd(channel: &Channel) -> i32 {
    std::os::fd::AsFd::as_fd(channel).as_raw_fd()
}

/// A compiled policy as the starter takes it: one instruction a word.
fn words(policy: &cofferdam_confine::Policy) -> Vec<u64> {
    let word = |i: &libc::sock_filter| {
        u64::from(i.code) | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | u64::from(i.k) << 32
    };
    policy.program.iter().map(word).collect()
}
