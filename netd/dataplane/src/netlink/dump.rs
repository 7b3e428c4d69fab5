//! The answer to a dump, put together from its messages. Pure.

use std::io;

use super::message::{Received, flags, outcome, sequence};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What a dump has found so far.
#[derive(Debug)]
pub(super) struct Dump {
    sequence: u32,
    pub found: Vec<Received>,
    /// Nothing changed while the kernel went through its tables (no `NLM_F_DUMP_INTR`).
    pub consistent: bool,
}

impl Dump {
    /// Waits for the answer to the request with this sequence number.
    pub(super) fn new(sequence: u32) -> Self {
        Self { sequence, found: Vec::new(), consistent: true }
    }

    /// Adds a message; `true`: it was the last one.
    ///
    /// # Errors
    /// The kernel refused the dump, or gave up in the midst of it: then its last message
    /// carries the errno, and what was found is not everything.
    pub(super) fn add(&mut self, message: Received) -> io::Result<bool> {
        if sequence(&message.bytes) != self.sequence {
            return Ok(false);
        }
        self.consistent &= flags(&message.bytes) & libc::NLM_F_DUMP_INTR as u16 == 0;
        match message.kind {
            NLMSG_DONE | NLMSG_ERROR => match outcome(&message.bytes) {
                Ok(()) => Ok(message.kind == NLMSG_DONE),
                Err(refusal) => Err(io::Error::from_raw_os_error(refusal.errno)),
            },
            _ => {
                self.found.push(message);
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: i32, sequence: u32, errno: i32) -> Received {
        let mut bytes = 20u32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags as u16).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&errno.to_ne_bytes());
        Received { kind, port: 0, nsid: None, bytes }
    }

    #[test]
    fn an_answer_ends_with_its_last_message() {
        let mut dump = Dump::new(7);
        assert!(!dump.add(message(16, 0, 7, 0)).unwrap());
        assert!(!dump.add(message(NLMSG_DONE, 0, 6, 0)).unwrap(), "of an earlier request");
        assert!(dump.add(message(NLMSG_DONE, 0, 7, 0)).unwrap());
        assert_eq!((dump.found.len(), dump.consistent), (1, true));
    }

    #[test]
    fn a_dump_that_the_kernel_gave_up_is_a_failure() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let mut dump = Dump::new(7);
            assert!(!dump.add(message(16, 0, 7, 0)).unwrap());
            let error = dump.add(message(kind, 0, 7, -libc::ENOMEM)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{kind}");
        }
    }

    #[test]
    fn a_change_meanwhile_makes_it_inconsistent() {
        for kind in [16, NLMSG_DONE] {
            let mut dump = Dump::new(7);
            dump.add(message(kind, libc::NLM_F_DUMP_INTR, 7, 0)).unwrap();
            assert!(!dump.consistent, "{kind}");
        }
    }
}
