//! The CNI plugin where `netd-hook` is called as one. Runtimes call `netd-cni`, which is
//! the same alone.

use std::{
    env::var_os,
    io::{self, Write},
    os::unix::ffi::OsStringExt as _,
    process::ExitCode,
};

pub use netd_cni::plugin::*;

/// The plugin: environment and stdin in, result or error on stdout, exit status 1 on
/// error. `issued_at` is when the process began, see [`crate::clock`].
pub fn main(issued_at: u64) -> ExitCode {
    let lookup = |name: &str| var_os(name).map(|value| value.into_vec());
    let outcome = answer(&lookup, io::stdin(), issued_at);
    match io::stdout().lock().write_all(outcome.line.as_bytes()) {
        Ok(()) if outcome.success => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("netd-hook: can't write the result to stdout: {e}");
            ExitCode::FAILURE
        }
    }
}
