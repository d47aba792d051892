//! Blows at random moments: numbers that differ from run to run, and the end of processes that may have ended already.

use std::time::Duration;

use crate::asked::{Answer, ask};
use crate::install::Install;
use rustix::process::{Pid, Signal, kill_process};

/// Numbers that are different each time; the seed is told where something fails.
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos());
        Self(now as u64 | 1)
    }
}

impl Random {
    /// What the numbers come from.
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// The next number, smaller than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills a process, if there still is one.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Has the command line carry out a step, of which these die so long after it began; what it answered. `victims` is told its pid.
pub fn struck(install: &Install, step: &[&str], delay: Duration, victims: impl FnOnce(i32) -> Vec<i32>) -> Answer {
    let asked = ask(install, step);
    std::thread::sleep(delay);
    install.note();
    victims(asked.pid()).into_iter().for_each(kill);
    install.note();
    asked.end()
}
