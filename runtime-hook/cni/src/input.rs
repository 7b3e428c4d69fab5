//! Reading what a runtime sends.

use std::time::Duration;

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd,
    io::Errno,
};
use serde_json::Value;

use crate::{
    clock::Deadline,
    error::{HookError, system},
};

/// The most bytes that are read: four times what fits into one message to netd would
/// be of no use.
pub const MAX_BYTES: u64 = 4 << 20;

/// Bytes of the first read; a configuration is a few hundred.
const READ: usize = 1 << 10;

/// How long a runtime may take to send a document.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads all of `input`, at most [`MAX_BYTES`].
///
/// # Errors
/// [`HookError::Io`], or [`HookError::Decode`] when it is too much.
pub fn slurp(input: impl AsFd, what: &str) -> Result<Vec<u8>, HookError> {
    read(input, what, None)
}

/// Reads one JSON document from `input`, until it is whole or `input` ends: a runtime may keep
/// its end open, or may have made it non-blocking. At most [`MAX_BYTES`], within ten seconds.
///
/// # Errors
/// [`HookError::Io`], also when the time is over, or [`HookError::Decode`] when it is too much.
pub fn document(input: impl AsFd, what: &str) -> Result<Vec<u8>, HookError> {
    read(input, what, Some(Deadline::after(DOCUMENT_TIMEOUT)))
}

fn read(input: impl AsFd, what: &str, until: Option<Deadline>) -> Result<Vec<u8>, HookError> {
    let mut bytes = Vec::with_capacity(READ);
    let mut extent = Extent::default();
    loop {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(HookError::Decode(format!("{what} has more than {MAX_BYTES} bytes")));
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        if let Some(until) = until {
            wait(&input, until, what)?;
        }
        let before = bytes.len();
        match rustix::io::read(&input, spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) if until.is_some() && extent.is_whole(&bytes[before..]) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if until.is_some() => {}
            Err(e) => return Err(HookError::io(format!("can't read {what}"), system(e))),
        }
    }
}

/// Waits until there is something to read, or the end.
fn wait(input: impl AsFd, until: Deadline, what: &str) -> Result<(), HookError> {
    let failed = |e| HookError::io(format!("can't wait for {what}"), system(e));
    let left = until.left().unwrap_or_default();
    let time = Timespec::try_from(left).map_err(|_| failed(Errno::INVAL))?;
    match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&time)) {
        Ok(0) => {
            let limit = DOCUMENT_TIMEOUT.as_secs();
            let problem = format!("it did not come as a whole within {limit} s");
            Err(HookError::io(format!("can't read {what}"), problem))
        }
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

/// Finds the end of a JSON object or list by its brackets, without understanding it.
#[derive(Debug, Default)]
struct Extent {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Extent {
    /// Whether the outermost object or list ends in `bytes`, which follow those of the last
    /// call. Of what is no JSON it does not matter: the parser says so.
    fn is_whole(&mut self, bytes: &[u8]) -> bool {
        let mut whole = false;
        for byte in bytes {
            match (self.in_string, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (_, b'"') => self.in_string = !self.in_string,
                (true, _) => {}
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    whole |= self.depth == 0;
                }
                (false, _) => {}
            }
        }
        whole
    }
}

/// Parses one JSON document. Of a key given twice the last counts, as in Go, so that
/// every plugin of a chain reads the same.
///
/// # Errors
/// [`HookError::Decode`] with line and column.
pub fn parse(bytes: &[u8], what: &str) -> Result<Value, HookError> {
    serde_json::from_slice(bytes)
        .map_err(|e| HookError::Decode(format!("can't decode {what} as JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn input_over_the_limit_is_refused_without_reading_it_all() {
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let error = slurp(zero, "stdin").unwrap_err();
        assert_eq!(error.cni_code(), 6);
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(document(zero, "stdin").unwrap_err().cni_code(), 6);
    }

    #[test]
    fn a_document_ends_where_its_brackets_do_however_it_is_cut() {
        let text = br#" {"a": ["}", "\"]", {"b\\": 1}], "c": "{"} "#;
        let end = text.iter().rposition(|b| *b == b'}').unwrap();
        for at in 0..text.len() {
            let mut extent = Extent::default();
            let first = extent.is_whole(&text[..at]);
            assert_eq!(first, at > end, "{at}");
            assert_eq!(extent.is_whole(&text[at..]), at <= end, "{at}");
        }
    }

    #[test]
    fn an_input_that_stays_open_is_read_to_the_document_s_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"{\"a\": {}}\n").unwrap();
        assert_eq!(document(&reader, "stdin").unwrap(), b"{\"a\": {}}\n");
        drop(writer);
        assert_eq!(document(&reader, "stdin").unwrap(), b"");
    }
}
