//! Writes to standard output and standard error.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs; field names are stable
    Json,
}

/// A result that can be printed as text and as JSON.
pub(crate) trait Output: Serialize {
    /// The text for people; it ends with a newline.
    fn text(&self) -> String;

    fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => print(&self.text()),
            Format::Json => print_json(self),
        }
    }
}

/// Prints indented JSON.
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|e| Failure::Other(e.to_string()))?;
    print(&(json + "\n"))
}

/// Prints one line of JSON.
pub(crate) fn print_json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::Other(e.to_string()))?;
    print(&(json + "\n"))
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // The reader has stopped reading: `netd endpoint list | head`.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Failure::Other(format!("can't print: {e}"))),
    }
}

pub(crate) fn print_errors(lines: &[String]) {
    let mut err = io::stderr().lock();
    for line in lines {
        // When standard error is closed, there is no place left to report to.
        let _ = writeln!(err, "{line}");
    }
}
