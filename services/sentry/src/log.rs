//! The Sentry's log: lines travel to the supervisor over the control channel, never to a file and never to the
//! container's stdio.

use std::fmt::Write as _;
use std::sync::Arc;

use cofferdam_control::sentry::FromSentry;
use cofferdam_control::{Channel, LogLevel, LogLine, LogSettings};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

struct ToSupervisor(Arc<Channel>);

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
        let mut text = Text::default();
        event.record(&mut text);
        let meta = event.metadata();
        let line = LogLine { level: level(*meta.level()), target: meta.target().to_owned(), message: text.0 };
        // A supervisor that is gone ends the Sentry elsewhere.
        let _ = self.0.send(&FromSentry::Log(line), &[]);
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
    let subscriber = tracing_subscriber::registry().with(ToSupervisor(channel).with_filter(filter));
    // Fails only if there is one already: then that one logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
