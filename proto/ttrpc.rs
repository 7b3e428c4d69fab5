//! ttrpc (containerd/ttrpc, PROTOCOL.md), as NRI and netd's hooks speak it: bytes in,
//! messages out, no I/O.
//!
//! On the wire: `u32 BE length | u32 BE stream | u8 type | u8 flags | payload`. Flags
//! belong to streaming calls, which neither has; they are ignored.
//!
//! Written here because the `ttrpc` crate is tied to its own runtime and protobuf stack,
//! and can't pass a descriptor along with a call.
//!
//! A decoder holds at most one unfinished message, grown as its bytes arrive and never as
//! its header promises.

use alloc::{string::String, vec::Vec};

/// Type of a call.
pub const REQUEST: u8 = 1;
/// Type of an answer.
pub const RESPONSE: u8 = 2;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 4 << 20;

const HEADER: usize = 10;

/// Whose message it is, and what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Length of the payload, as the header gives it.
    pub length: u32,
    /// Joins an answer to its call.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`] or one to ignore.
    pub kind: u8,
}

/// `ttrpc.Request`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Full name of the service: `netd.v1.EndpointService`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Name of the method: `Attach`.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// Nanoseconds that the caller gives, from when it sent the request; 0: unlimited.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// What goes with the call besides the message.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// `ttrpc.KeyValue`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `ttrpc.Response`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// Missing, or with code 0: the call succeeded.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// As in gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// `google.rpc.ErrorInfo`, `google.rpc.BadRequest`, ...
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

impl Status {
    /// A status without details.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// Ends with the message's full name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// What a stream of bytes holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A whole message.
    Message(Head, Vec<u8>),
    /// A message that is too long. Its payload was skipped, or is being skipped:
    /// the stream stays usable.
    TooLong(Head),
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER], filled: usize },
    Body { head: Head, bytes: Vec<u8> },
    Skip { left: usize },
}

const START: State = State::Header { bytes: [0; HEADER], filled: 0 };

/// Puts messages together.
#[derive(Debug)]
pub struct Decoder(State);

impl Default for Decoder {
    fn default() -> Self {
        Self(START)
    }
}

impl Decoder {
    /// Hands every message that `input` completes to `sink`.
    pub fn push(&mut self, mut input: &[u8], mut sink: impl FnMut(Item)) {
        while !input.is_empty() {
            let taken = match &mut self.0 {
                State::Header { bytes, filled } => {
                    let n = (HEADER - *filled).min(input.len());
                    bytes[*filled..*filled + n].copy_from_slice(&input[..n]);
                    *filled += n;
                    n
                }
                State::Body { head, bytes } => {
                    let whole = head.length as usize;
                    let n = (whole - bytes.len()).min(input.len());
                    if bytes.capacity() < bytes.len() + n {
                        // Doubled as usual, but never beyond the message's end.
                        let room = (2 * bytes.capacity()).max(bytes.len() + n).min(whole);
                        bytes.reserve_exact(room - bytes.len());
                    }
                    bytes.extend_from_slice(&input[..n]);
                    n
                }
                State::Skip { left } => {
                    let n = (*left).min(input.len());
                    *left -= n;
                    n
                }
            };
            input = &input[taken..];
            self.advance(&mut sink);
        }
    }

    /// The head of the message whose payload is being received, if there is one.
    pub fn unfinished(&self) -> Option<Head> {
        match &self.0 {
            State::Body { head, .. } => Some(*head),
            State::Header { .. } | State::Skip { .. } => None,
        }
    }

    /// Moves on to the next state if the present one has all its bytes.
    fn advance(&mut self, sink: &mut impl FnMut(Item)) {
        match &mut self.0 {
            State::Header { bytes, filled: HEADER } => {
                let head = parse(*bytes);
                let length = head.length as usize;
                self.0 = if length > MAX_PAYLOAD {
                    sink(Item::TooLong(head));
                    State::Skip { left: length }
                } else if length == 0 {
                    sink(Item::Message(head, Vec::new()));
                    START
                } else {
                    State::Body { head, bytes: Vec::new() }
                };
            }
            State::Body { head, bytes } if bytes.len() == head.length as usize => {
                sink(Item::Message(*head, core::mem::take(bytes)));
                self.0 = START;
            }
            State::Skip { left: 0 } => self.0 = START,
            _ => {}
        }
    }
}

fn parse(bytes: [u8; HEADER]) -> Head {
    let [a, b, c, d, e, f, g, h, kind, _flags] = bytes;
    Head {
        length: u32::from_be_bytes([a, b, c, d]),
        stream: u32::from_be_bytes([e, f, g, h]),
        kind,
    }
}

/// A message's bytes. `payload` must not be longer than [`MAX_PAYLOAD`].
pub fn encode(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(payload);
    out
}
