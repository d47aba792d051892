//! The Sentry's log: lines travel to the supervisor over the control channel, never to a file and never to the
//! container's stdio. What a container does may make lines without end: below the debugging levels only so many a second
//! are sent, and how many were not is told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use cofferdam_control::sentry::{FromSentry, Said};
use cofferdam_control::{Channel, LogLevel, LogLine, LogSettings};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::sync::Mutex;

/// Lines a second.
const MOST: u32 = 100;

/// How many lines may still be sent, and how many were not.
#[derive(Default)]
struct Budget {
    second: u64,
    sent: u32,
    lost: u64,
}

impl Budget {
    /// Whether one more line may be sent in that second; with it, how many were not sent before it.
    fn take(&mut self, second: u64) -> Option<u64> {
        if second != self.second {
            (self.second, self.sent) = (second, 0);
        }
        if self.sent >= MOST {
            self.lost = self.lost.saturating_add(1);
            return None;
        }
        self.sent += 1;
        Some(std::mem::take(&mut self.lost))
    }
}

struct ToSupervisor {
    channel: Arc<Channel>,
    /// `None`: every line is wanted.
    budget: Option<Mutex<Budget>>,
    begun: Instant,
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

fn level(l: Level) -> LogLevel {
    match l {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

impl<S: Subscriber> Layer<S> for ToSupervisor {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let mut text = Text::default();
        if let Some(budget) = &self.budget {
            match budget.lock().take(self.begun.elapsed().as_secs()) {
                Some(0) => {}
                Some(lost) => text.0 = format!("({lost} lines before this one were too many) "),
                None => return,
            }
        }
        event.record(&mut text);
        let line = LogLine { level: level(*meta.level()), target: meta.target().to_owned(), message: text.0 };
        // A supervisor that is gone ends the Sentry elsewhere.
        let _ = self.channel.send(&Said::from(FromSentry::Log(line)), &[]);
    }
}

/// Starts logging as the orders say.
pub fn start(channel: Arc<Channel>, settings: &LogSettings) {
    let filter = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    if settings.level >= LogLevel::Debug {
        crate::syscalls::STRACE.store(true, std::sync::atomic::Ordering::Relaxed);
    }
    let budget = (settings.level < LogLevel::Debug).then(Mutex::default);
    let layer = ToSupervisor { channel, budget, begun: Instant::now() };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    // Fails only if there is one already: then that one logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_end_are_cut_and_counted() {
        let mut budget = Budget::default();
        let sent = (0..1000).filter(|_| budget.take(7).is_some()).count();
        assert_eq!(sent, MOST as usize);
        assert_eq!(budget.take(8), Some(900));
        assert_eq!(budget.take(8), Some(0));
    }
}
