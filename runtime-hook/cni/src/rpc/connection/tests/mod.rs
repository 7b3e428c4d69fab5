//! What RFC 9113 says about a client's connection, with a server written by hand.

use super::*;
use alloc::{string::String, vec};

mod answers;
mod flow;
mod hostile;
mod several;

/// A frame as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// `:status: 200`.
const OK: &[u8] = b"\x88";
/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// A message of two bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x02ab";
/// END_STREAM and END_HEADERS.
const LAST: u8 = 0x5;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

fn headers(stream: u32) -> Vec<u8> {
    frame(1, 0x4, stream, OK)
}

fn trailers(stream: u32) -> Vec<u8> {
    frame(1, LAST, stream, TRAILERS)
}

fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0, 0, stream, payload)
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(8, 0, stream, &increment.to_be_bytes())
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
fn initial_window(size: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat())
}

/// Headers, a message, trailers.
fn success(stream: u32) -> Vec<u8> {
    [headers(stream), data(stream, MESSAGE), trailers(stream)].concat()
}

fn answer() -> Answer {
    let fields = vec![Field::Status(b"200".to_vec()), Field::Code(b"0".to_vec())];
    Answer { fields, body: MESSAGE.to_vec() }
}

/// What the connection wants to send, which is taken.
fn sent(connection: &mut Connection) -> Vec<Sent> {
    let output = mem::take(&mut connection.output);
    let mut rest = output.strip_prefix(PREFACE).unwrap_or(&output);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
        let payload = rest[9..9 + length].to_vec();
        all.push(Sent { kind: rest[3], flags: rest[4], stream, payload });
        rest = &rest[9 + length..];
    }
    all
}

/// The body's bytes among them, and whether the last frame ends the stream.
fn body(sent: &[Sent]) -> (usize, bool) {
    let frames: Vec<&Sent> = sent.iter().filter(|f| f.kind == 0).collect();
    assert!(frames.iter().all(|f| f.payload.len() <= 16_384));
    let ends = frames.iter().filter(|f| f.flags & 1 != 0).count();
    let ended = frames.last().is_some_and(|f| f.flags & 1 != 0);
    assert_eq!(ends, usize::from(ended));
    (frames.iter().map(|f| f.payload.len()).sum(), ended)
}

/// A connection with a call under way whose body has so many bytes.
fn calling(size: usize) -> Connection {
    let mut connection = Connection::new();
    connection.request(b"\x83", vec![7; size]);
    connection
}

/// The same, after what could be sent was.
fn waiting(size: usize) -> Connection {
    let mut connection = calling(size);
    sent(&mut connection);
    connection
}

fn receive(connection: &mut Connection, bytes: &[u8]) -> Result<Option<Answer>, Broken> {
    connection.input.extend_from_slice(bytes);
    connection.read()
}

/// What one who waits for an answer is told of these bytes.
fn told(bytes: &[u8]) -> Result<Option<Answer>, Broken> {
    receive(&mut waiting(5), bytes)
}

fn reason(bytes: &[u8]) -> String {
    told(bytes).expect_err("no error").0
}
