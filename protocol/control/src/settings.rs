//! How a service logs. Services hold no log file: their lines travel over the control channel to the supervisor,
//! which bounds them, escapes them and writes them where the command line asked.

use serde::{Deserialize, Serialize};

/// How much a service reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Only what ends a sandbox or a request.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And the milestones of a sandbox's life.
    Info,
    /// And each decision (`--debug`).
    Debug,
    /// And each system call.
    Trace,
}

/// The shape of a line in the log file (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// `time="..." level=... msg="..."`, as runc writes it.
    Text,
    /// One JSON object a line with `level`, `msg` and `time`.
    Json,
}

/// What a service is told about logging. A service sends a [`LogLine`] for everything at or above `level` in
/// severity, over its control channel, and never writes to the container's stdio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// The least severe level to report.
    pub level: LogLevel,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Warn }
    }
}

/// One line of a service's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its severity.
    pub level: LogLevel,
    /// The module it comes from.
    pub target: String,
    /// The text. The receiver cuts it at 4 KiB and escapes control characters.
    pub message: String,
}

/// Seconds since 1970 as `2026-01-02T03:04:05Z` (days to date as in the civil calendar's 400-year cycles).
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_258_800), "2026-11-21T11:00:00Z");
    }
}
