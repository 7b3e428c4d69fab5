//! Frames that nobody waits for, held back until there is an answer to go with them.
//!
//! A client that has sent its request whole waits for nothing but the answer. Settings and
//! windows sent to it meanwhile only wake it, and netd's processor does the waking: two
//! writes fewer are some 3 % of an attach. A client that waits for our settings first, as
//! most do, or that says anything more, gets every frame at once.

use super::authority::HEAD;

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// What is on its way to a client.
#[derive(Debug, Default)]
pub struct Outbox {
    state: State,
    held: Vec<u8>,
    /// How much of it was written.
    written: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    #[default]
    New,
    /// The client waits for its answer.
    Holding,
    /// Everything goes out as it comes.
    Open,
}

impl Outbox {
    /// Nothing was sent to this client yet.
    pub fn is_new(&self) -> bool {
        self.state == State::New
    }

    /// Before the first write: whether the client has sent a whole request.
    pub fn begin(&mut self, asked: bool) {
        self.state = if asked { State::Holding } else { State::Open };
    }

    /// From now on nothing is held back: the client says more, or it is over.
    pub fn open(&mut self) {
        self.state = State::Open;
    }

    /// Takes what is to be sent, all of it, if it is to wait, or if something waits that
    /// it can go with.
    pub fn take<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        if self.state != State::Holding {
            return None;
        }
        let start = self.held.len();
        parts.for_each(|part| self.held.extend_from_slice(part));
        if !only_control(&self.held[start..]) {
            self.state = State::Open;
        }
        Some(self.held.len() - start)
    }

    /// What has to be written before anything else.
    pub fn due(&self) -> &[u8] {
        if self.state == State::Holding { &[] } else { &self.held[self.written..] }
    }

    /// So much of that was written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.held.len() {
            *self = Self { state: self.state, ..Self::default() };
        }
    }
}

/// Whether these are whole frames that hold no part of an answer.
fn only_control(mut bytes: &[u8]) -> bool {
    while let Some(&[a, b, c, kind, ..]) = bytes.first_chunk::<HEAD>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        match bytes.get(HEAD + length..) {
            Some(rest) if matches!(kind, SETTINGS | WINDOW_UPDATE) => bytes = rest,
            _ => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS_FRAME: [u8; 15] = [0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9];
    const ACK: [u8; 9] = [0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];

    fn take(outbox: &mut Outbox, bytes: &[u8]) -> Option<usize> {
        outbox.take(bytes.chunks(4))
    }

    #[test]
    fn settings_wait_for_the_answer_and_go_before_it() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_new());
        outbox.begin(true);
        for frame in [SETTINGS_FRAME.as_slice(), &ACK] {
            assert_eq!(take(&mut outbox, frame), Some(frame.len()));
            assert!(outbox.due().is_empty());
        }
        assert_eq!(take(&mut outbox, &HEADERS), Some(HEADERS.len()));
        let all = [SETTINGS_FRAME.as_slice(), &ACK, &HEADERS].concat();
        assert_eq!(outbox.due(), all);
        outbox.wrote(20);
        assert_eq!(outbox.due(), &all[20..]);
        outbox.wrote(all.len() - 20);
        assert!(outbox.due().is_empty() && !outbox.is_new());
        assert_eq!(take(&mut outbox, &ACK), None, "the rest goes its own way");
    }

    #[test]
    fn whatever_else_there_is_to_say_is_said_at_once() {
        for more in [PING.as_slice(), &HEADERS, &ACK[..5], &[0; 30]] {
            let mut outbox = Outbox::default();
            outbox.begin(true);
            assert!(take(&mut outbox, &SETTINGS_FRAME).is_some());
            assert!(take(&mut outbox, more).is_some());
            assert_eq!(outbox.due().len(), SETTINGS_FRAME.len() + more.len());
        }
    }

    #[test]
    fn a_client_that_has_not_asked_or_says_more_waits_for_nothing() {
        let mut outbox = Outbox::default();
        outbox.begin(false);
        assert_eq!(take(&mut outbox, &SETTINGS_FRAME), None);
        let mut outbox = Outbox::default();
        outbox.begin(true);
        assert!(take(&mut outbox, &SETTINGS_FRAME).is_some());
        outbox.open();
        assert_eq!(outbox.due(), SETTINGS_FRAME);
    }
}
