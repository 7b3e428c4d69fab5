//! `netd-cni`: the CNI plugin as a runtime executes it, for every pod.
//!
//! Without Rust's own start, which makes a stack for signals and opens standard streams
//! that are closed: this is executed for every pod and needs neither.
#![no_main]

use std::{
    env::var_os,
    ffi::{c_char, c_int},
    os::unix::ffi::OsStringExt,
};

use netd_cni::{clock, error::system, plugin};
use rustix::{
    fd::BorrowedFd,
    io::{Errno, fcntl_getfd, write},
    stdio::{stderr, stdin, stdout},
};

/// Musl's own allocator maps and unmaps pages for each few allocations.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Where libc's start calls.
#[unsafe(no_mangle)]
extern "C" fn main(arguments: c_int, _: *const *const c_char) -> c_int {
    // First: an attach that waited behind a detach must not look younger than it is.
    let issued_at = clock::boottime_ns();
    // Whoever reads stdout may be gone: that is an error to be reported, not to die of.
    // SAFETY: no handler is installed, and there is one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let lookup = |name: &str| var_os(name).map(OsStringExt::into_vec);
    if arguments > 1 || var_os("CNI_COMMAND").is_none() {
        return say(&format!("netd-cni {}; CNI_COMMAND says what to do\n", plugin::about()));
    }
    // Were stdout closed, netd's socket would take its number and be sent the result.
    let done = fcntl_getfd(stdout()).and_then(|_| {
        let outcome = plugin::answer(&lookup, stdin(), issued_at);
        write_all(stdout(), outcome.line.as_bytes()).map(|()| outcome.success)
    });
    match done {
        Ok(success) => c_int::from(!success),
        Err(e) => {
            say(&format!("netd-cni: can't write the result to stdout: {}\n", system(e)));
            1
        }
    }
}

/// To whoever reads stderr, if anybody does.
fn say(text: &str) -> c_int {
    // If it is closed, the text is lost.
    let _ = write_all(stderr(), text.as_bytes());
    0
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(written) => bytes = &bytes[written.min(bytes.len())..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
