//! Captured logs: tests assert on what operators would read, and any ERROR or leaked secret fails them.

use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

/// Lines kept: enough for the busiest ring, bounded so that a loop that logs cannot eat the machine.
const MOST_LINES: usize = 200_000;

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();

/// One event as an operator would see it, with the fields of the spans around it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Target, spans, message and fields.
    pub text: String,
}

/// Checks, when dropped, that no ERROR was logged and no registered secret appeared since it was made.
#[must_use = "the check happens when this is dropped"]
pub struct Logs {
    since: usize,
}

impl Logs {
    /// Starts capturing in this process (once) and remembers where this test begins.
    pub fn capture() -> Self {
        INSTALL.call_once(|| {
            let filter = tracing_subscriber::filter::Targets::new()
                .with_default(Level::WARN)
                .with_targets(MOORLINE.iter().map(|name| (*name, Level::TRACE)));
            tracing_subscriber::registry().with(Capture.with_filter(filter)).init();
        });
        Self { since: lock(&LINES).len() }
    }

    /// From now on a log line that holds `secret` fails the tests.
    pub fn forbid(&self, secret: &str) {
        lock(&SECRETS).push(secret.to_owned());
    }

    /// All lines since the start of this test (of other tests of the process that run beside it, too).
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        lock(&LINES).get(self.since..).unwrap_or_default().to_vec()
    }

    /// Whether some line holds all of `parts`.
    #[must_use]
    pub fn contain(&self, parts: &[&str]) -> bool {
        self.lines().iter().any(|line| parts.iter().all(|part| line.text.contains(part)))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let secrets = lock(&SECRETS).clone();
        for line in self.lines() {
            assert!(line.level != Level::ERROR, "an ERROR was logged: {}", line.text);
            for secret in &secrets {
                assert!(!line.text.contains(secret.as_str()), "a secret was logged: {}", line.text);
            }
        }
    }
}

/// Targets that are ours.
const MOORLINE: &[&str] = &[
    "moorline_agent",
    "moorline_server",
    "moorline_mux",
    "moorline_mtls",
    "moorline_process",
    "moorline_store",
    "moorline_cli",
    "moorline_demo",
    "moorline",
];

struct Capture;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut text = Text(String::new());
            attributes.record(&mut text);
            span.extensions_mut().insert(text);
        }
    }

    fn on_record(&self, id: &tracing::Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(text) = span.extensions_mut().get_mut::<Text>()
        {
            values.record(text);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut text = Text(event.metadata().target().to_owned());
        for span in context.event_scope(event).into_iter().flatten() {
            text.0.push(' ');
            text.0.push_str(span.name());
            if let Some(fields) = span.extensions().get::<Text>() {
                text.0.push_str(&fields.0);
            }
        }
        event.record(&mut text);
        let mut lines = lock(&LINES);
        if lines.len() < MOST_LINES {
            lines.push(Line { level: *event.metadata().level(), text: text.0 });
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push_str(&format!(" {}={value}", field.name()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_the_fields_of_their_spans() {
        let logs = Logs::capture();
        let span = tracing::info_span!(target: "moorline", "session", cluster = "east");
        span.in_scope(|| tracing::info!(target: "moorline", peer = "10.0.0.1", "connected"));
        assert!(logs.contain(&["east", "connected", "10.0.0.1"]));
    }
}
