//! What netd's commands print: results as text or JSON, and errors.

mod failure;
mod print;
mod table;

/// Exit code of a command that was carried out and found something wrong: netd is not
/// ready (`status`), or pods do not get their network (`doctor`).
pub(crate) const EXIT_NOT_READY: u8 = 3;

pub(crate) use failure::Failure;
pub(crate) use print::{
    Format, Output, print, print_bytes, print_errors, print_json, print_json_line,
};
pub(crate) use table::{printable, table};
