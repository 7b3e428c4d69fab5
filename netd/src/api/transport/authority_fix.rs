//! Clients whose `:authority` is the socket's path. gRPC's C core (Python, Ruby), Java,
//! grpcurl before 1.9 and others send it so over a Unix socket (grpc/grpc#38142), and
//! the h2 crate refuses it as no authority (hyperium/h2#487). Nobody needs it here: it
//! is replaced before h2 sees it.
//!
//! Of HPACK (RFC 7541) this only needs to know where each field ends. A replaced value
//! is shorter than what it replaces, so the decoder's dynamic table holds at least what
//! the encoder counts on, at the same places.

/// "PRI * HTTP/2.0..." (RFC 9113, 3.4)
pub(super) const PREFACE: usize = 24;
/// A frame's head: length 3, type 1, flags 1, stream 4 (RFC 9113, 4.1).
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that h2 accepts unless told otherwise; larger ones it refuses itself.
const MOST: usize = 16384;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// What it becomes: one byte, as a string of HPACK's. No path is shorter.
const REPLACEMENT: [u8; 2] = [1, b'u'];
/// First bytes of a value that begins with '/' or, percent-encoded, '%'; and the same
/// by HPACK's Huffman code, which has six bits for each.
const PLAIN: [u8; 2] = [b'/', b'%'];
const CODED: [u8; 2] = [0b01_1000, 0b01_0101];

/// Where in the client's bytes we are.
#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes pass as they are; then a frame begins.
    Pass(usize),
    /// A frame's head is being gathered.
    Head,
    /// A HEADERS frame is being gathered: its whole length.
    Headers(usize),
}

/// Rewrites a client's bytes as they come.
#[derive(Debug)]
pub(crate) struct Rewriter {
    state: State,
    held: Vec<u8>,
}

impl Rewriter {
    /// For a connection's bytes from the first one on.
    pub(crate) fn new() -> Self {
        Self { state: State::Pass(PREFACE), held: Vec::new() }
    }

    /// Takes the next bytes and appends what becomes of them to `out`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Pass(left) => left,
                State::Head => HEAD - self.held.len(),
                State::Headers(whole) => whole - self.held.len(),
            };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if let State::Pass(left) = self.state {
                out.extend(now);
                let left = left - now.len();
                self.state = if left == 0 { State::Head } else { State::Pass(left) };
                continue;
            }
            self.held.extend(now);
            if now.len() == wanted {
                self.complete(out);
            }
        }
    }

    /// What was to be gathered is there.
    fn complete(&mut self, out: &mut Vec<u8>) {
        if let (State::Head, &[a, b, c, kind, ..]) = (self.state, self.held.as_slice()) {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == HEADERS && (1..=MOST).contains(&length) {
                self.state = State::Headers(HEAD + length);
                return;
            }
            self.state = if length == 0 { State::Head } else { State::Pass(length) };
        } else {
            replace(&mut self.held);
            self.state = State::Head;
        }
        out.append(&mut self.held);
    }
}

/// Replaces a path for an authority in a whole HEADERS frame.
fn replace(frame: &mut Vec<u8>) {
    let Some(place) = path(frame) else { return };
    frame.splice(place, REPLACEMENT);
    let length = (frame.len() - HEAD).to_be_bytes();
    frame.splice(..3, length[length.len() - 3..].iter().copied());
}

/// Where an authority that is a path is, its length byte included.
fn path(frame: &[u8]) -> Option<std::ops::Range<usize>> {
    let flags = *frame.get(4)?;
    let padded = usize::from(flags & PADDED != 0);
    let padding = if padded == 1 { usize::from(*frame.get(HEAD)?) } else { 0 };
    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
    let block = frame.get(..frame.len().checked_sub(padding)?)?;
    let mut fields = Fields { block, at: HEAD + padded + priority };
    loop {
        let (name, value) = fields.next()?;
        if name == AUTHORITY {
            let (range, huffman, first) = value?;
            let is_path =
                if huffman { CODED.contains(&(first >> 2)) } else { PLAIN.contains(&first) };
            return is_path.then_some(range);
        }
    }
}

/// A literal value: where it is, its length byte included; whether it is
/// Huffman-coded; its first byte.
type Value = Option<(std::ops::Range<usize>, bool, u8)>;

/// Walks over the fields of a header block (RFC 7541, 6).
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    /// The name's index (0: none, or no literal field) and the literal value. `None` at
    /// the end, also at one in the middle of a field, and for what is no HPACK.
    fn next(&mut self) -> Option<(usize, Value)> {
        let prefix = match *self.block.get(self.at)? {
            // An indexed field; a change of the table's size.
            byte if byte & 0x80 != 0 => return self.integer(7).map(|_| (0, None)),
            byte if byte & 0xe0 == 0x20 => return self.integer(5).map(|_| (0, None)),
            byte if byte & 0xc0 == 0x40 => 6,
            _ => 4,
        };
        let name = self.integer(prefix)?;
        if name == 0 {
            self.string()?;
        }
        let start = self.at;
        let huffman = self.block.get(start)? & 0x80 != 0;
        let text = self.string()?;
        let value = self.block.get(text)?.first();
        Some((name, value.map(|first| (start..self.at, huffman, *first))))
    }

    /// An integer of which the first byte has `prefix` bits (RFC 7541, 5.1).
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        const MAX_SHIFT: u32 = 21;
        let mask = (1usize << prefix) - 1;
        let mut value = usize::from(*self.block.get(self.at)?) & mask;
        self.at += 1;
        if value < mask {
            return Some(value);
        }
        for shift in (0..=MAX_SHIFT).step_by(7) {
            let byte = usize::from(*self.block.get(self.at)?);
            self.at += 1;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<std::ops::Range<usize>> {
        let length = self.integer(7)?;
        let start = self.at;
        self.at = start.checked_add(length).filter(|end| *end <= self.block.len())?;
        Some(start..self.at)
    }
}

#[cfg(test)]
#[path = "authority_fix_tests.rs"]
mod tests;
