//! Where log lines go and what they look like: standard error, as text or as one JSON object a line.
//!
//! Called once by each program, before anything else. Nothing here redacts: callers never hand a secret to a log
//! line in the first place.

use std::{io::IsTerminal as _, str::FromStr};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The filter used when none is given: what an operator wants to read day by day.
pub const DEFAULT_FILTER: &str = "info";

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, level, target, message and fields on one line, for people.
    #[default]
    Text,
    /// One JSON object a line, for collectors. Fields stand at the top level of the object.
    Json,
}

/// A log format that does not exist.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown log format {0:?}: write \"text\" or \"json\"")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum InitError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?} is not valid: {reason}; write a level (\"info\") or directives (\"info,moorline_mux=debug\")"
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What was wrong with it.
        reason: String,
    },
    /// Something in this process set up logging before.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Checks a filter such as `info` or `info,moorline_mux=debug` without putting it to use.
///
/// # Errors
/// [`InitError::Filter`] with the reason.
pub fn check_filter(filter: &str) -> Result<(), InitError> {
    parse(filter).map(drop)
}

/// Sends the log lines of this process to standard error from now on. An empty filter means [`DEFAULT_FILTER`].
///
/// # Errors
/// When the filter does not parse, or when logging is already set up.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let registry = tracing_subscriber::registry().with(parse(filter)?);
    let done = match format {
        Format::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colours)).try_init()
        }
        Format::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    done.map_err(|_already| InitError::AlreadySet)
}

fn parse(filter: &str) -> Result<EnvFilter, InitError> {
    let meant = if filter.trim().is_empty() { DEFAULT_FILTER } else { filter };
    EnvFilter::builder()
        .parse(meant)
        .map_err(|error| InitError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_by_name_only() {
        assert_eq!("text".parse(), Ok(Format::Text));
        assert_eq!("json".parse(), Ok(Format::Json));
        let error = "JSON".parse::<Format>().unwrap_err();
        assert_eq!(error.to_string(), "unknown log format \"JSON\": write \"text\" or \"json\"");
    }

    #[test]
    fn filters_are_checked_before_use() {
        check_filter("").unwrap();
        check_filter("warn,moorline_mux=trace").unwrap();
        let error = check_filter("info,moorline_mux=loudly").unwrap_err();
        assert!(error.to_string().contains("info,moorline_mux=loudly"), "{error}");
    }
}
