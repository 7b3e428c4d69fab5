//! flannel's words: `<prefix>/config`, lease keys and values, `subnet.env`. Text in, values
//! out, and back to exactly the text that flannel writes. No I/O.

pub mod config;
mod fields;
pub mod key;
mod range;
pub mod subnet_env;
pub mod value;

/// Longest configuration or lease value that is read, bytes. flannel's own are below 1 KiB.
pub(crate) const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests;
