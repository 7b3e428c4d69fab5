//! Frames of HTTP/2 (RFC 9113, sections 4 and 6).

use alloc::{format, string::String, vec::Vec};

/// Types of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags. The first means "ack" on SETTINGS and PING.
pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The most bytes of a frame's payload, ours and the peer's: nobody is told otherwise.
pub const MOST: usize = 16_384;
const HEADER: usize = 9;

/// The connection is of no more use, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    /// The peer does what HTTP/2 does not have.
    pub fn protocol(what: &str) -> Self {
        Self(format!("its answer is not HTTP/2: {what}"))
    }
}

/// A frame that was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of `input` and how many bytes it has; `None` while it is not whole.
    ///
    /// # Errors
    /// [`Broken`] when it is longer than [`MOST`].
    pub fn first(input: &'a [u8]) -> Result<Option<(Self, usize)>, Broken> {
        let Some((header, rest)) = input.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        if length > MOST {
            return Err(Broken::protocol("a frame is too long"));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let stream = number([s0, s1, s2, s3]);
        Ok(Some((Self { kind, flags, stream, payload }, HEADER + length)))
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority.
    ///
    /// # Errors
    /// [`Broken`] when it is shorter than what it should hold.
    pub fn content(&self) -> Result<&'a [u8], Broken> {
        let short = || Broken::protocol("a frame is shorter than its padding");
        let mut content = self.payload;
        if self.has(PADDED) {
            let (padding, rest) = content.split_first().ok_or_else(short)?;
            let length = rest.len().checked_sub(usize::from(*padding)).ok_or_else(short)?;
            content = &rest[..length];
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content = content.get(5..).ok_or_else(short)?;
        }
        Ok(content)
    }

    /// The payload as one number of 31 bits: an increment, an error code, a stream.
    ///
    /// # Errors
    /// [`Broken`] when it is shorter.
    pub fn number(&self) -> Result<u32, Broken> {
        let bytes = self.payload.first_chunk::<4>();
        Ok(number(*bytes.ok_or_else(|| Broken::protocol("a frame is too short"))?))
    }
}

fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}

/// Appends a frame; `payload` has at most [`MOST`] bytes.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, l0, l1, l2] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Name of an error code (RFC 9113, section 7).
pub fn error_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).map_or_else(|| format!("error {code}"), |name| (*name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_once_it_is_whole() {
        let mut out = Vec::new();
        put(&mut out, DATA, END_STREAM, 3, b"abc");
        for n in 0..out.len() {
            assert_eq!(Frame::first(&out[..n]), Ok(None));
        }
        let frame = Frame { kind: DATA, flags: END_STREAM, stream: 3, payload: b"abc" };
        assert_eq!(Frame::first(&out), Ok(Some((frame, 12))));
        assert!(Frame::first(b"\x00\x40\x01\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn padding_and_priority_are_left_out() {
        let content = |kind, flags, payload| {
            Frame { kind, flags, stream: 1, payload }.content().map(<[u8]>::to_vec)
        };
        assert_eq!(content(DATA, PADDED, b"\x02abc\0\0").unwrap(), b"abc");
        assert_eq!(content(HEADERS, PADDED | PRIORITY, b"\x01\0\0\0\0\0x\0").unwrap(), b"x");
        for (kind, flags, payload) in
            [(DATA, PADDED, &b""[..]), (DATA, PADDED, b"\x02a"), (HEADERS, PRIORITY, b"abcd")]
        {
            assert!(content(kind, flags, payload).is_err());
        }
    }
}
