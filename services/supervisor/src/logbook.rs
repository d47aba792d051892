//! Where the services' log lines go: the file that the command line handed over.
//!
//! A line's text may hold what a container wrote (a path, a name): it is cut and its control characters are escaped.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_control::{LogFormat, LogLevel, LogLine, LogSettings, rfc3339};

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
