//! The only place that prints. Results go to standard output, everything about the way there to standard error.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::failure::Failure;

pub(crate) use self::table::Table;

mod table;

/// Writes results and remarks.
pub(crate) struct Printer<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
}

/// How a result is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
    /// A table with more columns.
    Wide,
    /// Only resource and name, one a line.
    Name,
}

/// How a result is wanted that is no list of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Structured {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send), err: &'a mut (dyn Write + Send)) -> Self {
        Self { out, err }
    }

    /// A line of the result.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// A text that is the result, as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        written(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
    }

    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        self.text(&table.to_string())
    }

    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::because("cannot write the result as JSON", &error))?;
        self.line(&text)
    }

    pub(crate) fn yaml(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let text = serde_saphyr::to_string_with_options(value, options)
            .map_err(|error| Failure::because("cannot write the result as YAML", &error))?;
        self.text(&text)
    }

    pub(crate) fn structured(&mut self, value: &impl Serialize, format: Structured) -> Result<(), Failure> {
        match format {
            Structured::Json => self.json(value),
            Structured::Yaml => self.yaml(value),
        }
    }

    /// A remark about the way there.
    pub(crate) fn note(&mut self, text: &str) {
        // Where standard error is gone there is nobody to tell.
        drop(writeln!(self.err, "{text}").and_then(|()| self.err.flush()));
    }

    /// The end of a command that failed.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        for what in &failure.what {
            // What a server says is worded as kubectl words it.
            let prefix = if what.starts_with("Error from server") { "" } else { "error: " };
            self.note(&format!("{prefix}{what}"));
        }
        for hint in &failure.hints {
            self.note(&format!("hint: {hint}"));
        }
    }
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        // The reader has seen enough: `moorline … | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::because("cannot write to standard output", &error)),
    }
}
