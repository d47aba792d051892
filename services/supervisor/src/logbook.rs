//! Where the services' log lines go: the file that the command line handed over.
//!
//! A line's text may hold what a container wrote (a path, a name): it is cut and its control characters are escaped.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_control::{LogFormat, LogLevel, LogLine, LogSettings};

/// The longest text of a line in bytes.
const MAX_LINE: usize = 4096;

/// A log file.
#[derive(Debug)]
pub struct Logbook {
    to: Option<(File, LogFormat, LogLevel)>,
}

impl Logbook {
    /// Writes to `file`, or nowhere.
    pub fn new(file: Option<OwnedFd>, settings: Option<(LogFormat, LogLevel)>) -> Self {
        Self { to: file.zip(settings).map(|(file, (format, level))| (file.into(), format, level)) }
    }

    /// What services are told.
    pub fn settings(&self) -> LogSettings {
        self.to.as_ref().map_or_else(LogSettings::default, |(_, _, level)| LogSettings { level: *level })
    }

    /// Writes a line that `service` sent. A full disk loses lines, not sandboxes.
    pub fn write(&self, service: &str, line: &LogLine) {
        let Some((file, format, level)) = &self.to else { return };
        if line.level > *level {
            return;
        }
        let mut text: String = line.message.chars().take(MAX_LINE).flat_map(char::escape_debug).collect();
        text.truncate(text.floor_char_boundary(MAX_LINE));
        let target: String = line.target.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
        let word = match line.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warning",
            LogLevel::Info => "info",
            LogLevel::Debug | LogLevel::Trace => "debug",
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = rfc3339(now.as_secs());
        let out = match format {
            LogFormat::Text => format!("time=\"{time}\" level={word} msg=\"{service}: {text}\" source={target}\n"),
            LogFormat::Json => format!(
                "{{\"level\":\"{word}\",\"msg\":{},\"time\":\"{time}\",\"source\":\"{}\"}}\n",
                serde_json::Value::from(format!("{service}: {text}")),
                target.replace(['"', '\\'], "")
            ),
        };
        let _ = (&*file).write_all(out.as_bytes());
    }
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
