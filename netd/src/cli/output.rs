//! Standard output and standard error.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs; field names are stable
    Json,
}

/// A result that can be printed both ways.
pub(super) trait Output: Serialize {
    /// For people, ending with a new line.
    fn text(&self) -> String;

    /// Prints it as asked for.
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
pub(super) fn print_json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::Other(e.to_string()))?;
    print(&(json + "\n"))
}

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // `netd endpoint list | head`: the reader has enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Failure::Other(format!("can't print: {e}"))),
    }
}

pub(super) fn complain(lines: &[String]) {
    let mut err = io::stderr().lock();
    for line in lines {
        // Nobody is left to be told when standard error is closed.
        let _ = writeln!(err, "{line}");
    }
}

/// A table without lines; long cells are not wrapped, so that it can be cut and searched.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Without control characters: names come from pods, and a terminal obeys escapes.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
