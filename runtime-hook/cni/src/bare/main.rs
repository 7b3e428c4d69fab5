//! `netd-cni`: the CNI plugin as a runtime executes it. Without std and without libc:
//! finding out about the processor takes libc longer than the plugin takes in all.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::{
    fmt::{self, Write as _},
    panic::PanicInfo,
};

use netd_cni::{clock, error::system, heap::Heap, plugin};
use rustix::{
    fd::BorrowedFd,
    io::{Errno, fcntl_getfd, write},
    stdio::{stderr, stdin, stdout},
};
use start::Process;

mod memory;
mod start;
mod unwind;

// SAFETY: nothing here starts a thread.
#[global_allocator]
static HEAP: Heap = unsafe { Heap::new() };

/// Runs the plugin; the exit status.
fn main(process: &Process) -> i32 {
    // First: an attach that waited behind a detach must not look younger than it is.
    let issued_at = clock::boottime_ns();
    start::block_sigpipe();
    let lookup = |name: &str| process.variable(name).map(<[u8]>::to_vec);
    if process.has_arguments() || process.variable("CNI_COMMAND").is_none() {
        return say(&format!("netd-cni {}; CNI_COMMAND says what to do\n", plugin::about()));
    }
    // SAFETY: of stdin and stdout: nothing here closes them. Were stdout closed, netd's
    // socket would take its number and be sent the result; so that is found out first.
    let (stdin, stdout) = unsafe { (stdin(), stdout()) };
    let done = fcntl_getfd(stdout).and_then(|_| {
        let outcome = plugin::answer(&lookup, stdin, issued_at);
        write_all(stdout, outcome.line.as_bytes()).map(|()| outcome.success)
    });
    match done {
        Ok(success) => i32::from(!success),
        Err(e) => {
            say(&format!("netd-cni: can't write the result to stdout: {}\n", system(e)));
            1
        }
    }
}

/// To whoever reads stderr, if anybody does.
fn say(text: &str) -> i32 {
    // SAFETY: if it is closed, the text is lost.
    let _ = write_all(unsafe { stderr() }, text.as_bytes());
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

/// A fault of the plugin's own; what the runtime asked for is not known to be done.
/// Memory may be what is missing, so the words are not put together first.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Stderr, "netd-cni: {info}");
    start::exit(101)
}

struct Stderr;

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        say(text);
        Ok(())
    }
}
