//! Why a command failed, and what to do next. Becomes the last lines on standard error and the exit code.

use std::{error::Error, fmt::Write as _, process::ExitCode};

/// Exit code for everything that went wrong on the way, as kubectl has it.
const FAILED: u8 = 1;
/// Exit code for input that cannot be right, as clap has it for flags.
const BAD_INPUT: u8 = 2;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Faults, each told on a line of its own.
    pub(crate) what: Vec<String>,
    /// What to type or look at next.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// Something went wrong on the way.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { code: FAILED, what: vec![what.into()], hints: Vec::new() }
    }

    /// Something went wrong on the way, with its causes.
    pub(crate) fn because(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self::failed(format!("{what}: {}", chain(error)))
    }

    /// The answer is no, and was already given: nothing more is said.
    pub(crate) const fn no() -> Self {
        Self { code: FAILED, what: Vec::new(), hints: Vec::new() }
    }

    /// All that is wrong with the input.
    pub(crate) fn bad_input(what: impl IntoIterator<Item = String>) -> Self {
        Self { code: BAD_INPUT, what: what.into_iter().collect(), hints: Vec::new() }
    }

    /// Both, or all that is wrong with either.
    pub(crate) fn together<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(mut one), Err(other)) => {
                one.what.extend(other.what);
                one.hints.extend(other.hints);
                Err(one)
            }
            (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        }
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// An error with its causes on one line, none said twice.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            // Writing to a String cannot fail.
            let _infallible = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}
