//! The log: lines to the supervisor over the control channel, never to a container's stdio.

use std::fmt::Write as _;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::orders::{Control, FromGofer, LogLevel, LogLine, LogSettings};

/// Sends what is logged from here on to the supervisor. Without effect where a log exists already (tests).
pub(crate) fn to_supervisor(control: &Arc<Control>, settings: LogSettings) {
    let lines = Lines { control: control.clone(), level: settings.level };
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

struct Lines {
    control: Arc<Control>,
    level: LogLevel,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        if level > self.level {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = LogLine { level, target: event.metadata().target().to_owned(), message: text.0 };
        // A supervisor that is gone ends this process soon enough.
        let _ = self.control.send(&FromGofer::Log(line));
    }
}
