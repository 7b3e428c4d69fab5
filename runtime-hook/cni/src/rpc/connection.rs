//! A client's connection of HTTP/2 (RFC 9113) with one call at a time: bytes in, bytes
//! out. It holds to the peer's windows, and gives the peer as much as an answer may have.

use alloc::{format, vec::Vec};
use core::mem;

use super::{
    frame::{self, Broken, Frame},
    hpack::{self, Field},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of an answer's messages; gRPC's usual.
pub const MOST_ANSWER: usize = 4 << 20;
/// The most bytes of its headers and trailers in all: a refusal's details can be some.
const MOST_HEADERS: usize = 64 << 10;

/// Settings (RFC 9113, section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Whatever the peer has begun may go on, and there is no error.
const GOOD_BYE: [u8; 8] = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Window before anybody says otherwise.
const WINDOW: i64 = 65_535;
const MOST_WINDOW: i64 = (1 << 31) - 1;

/// What came back: the fields of headers and trailers, the bytes between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
}

/// The connection.
pub struct Connection {
    /// Received, not read yet: the caller appends.
    pub input: Vec<u8>,
    /// To be sent: the caller takes it.
    pub output: Vec<u8>,
    /// Bytes that may be sent, in all and on a new stream.
    window: i64,
    initial_window: i64,
    /// Bytes of DATA received since the peer's window was last made good.
    consumed: usize,
    /// Headers of which more is to come, and the flags of their first frame.
    open: Option<(Vec<u8>, u8)>,
    call: Call,
    /// The next call is the last one.
    last: bool,
}

/// The call that is under way, or the last one.
#[derive(Default)]
struct Call {
    stream: u32,
    body: Vec<u8>,
    sent: usize,
    window: i64,
    answer: Answer,
    /// Bytes of its headers and trailers, as they came.
    headers: usize,
}

impl Connection {
    /// A new one, whose preface leaves with the first request.
    pub fn new() -> Self {
        let mut output = Vec::with_capacity(1 << 10);
        output.extend_from_slice(PREFACE);
        let mut settings = Vec::with_capacity(24);
        for (setting, value) in [
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, MOST_ANSWER as u32),
            (MAX_HEADER_LIST_SIZE, MOST_HEADERS as u32),
        ] {
            settings.extend_from_slice(&u16::to_be_bytes(setting));
            settings.extend_from_slice(&u32::to_be_bytes(value));
        }
        frame::put(&mut output, frame::SETTINGS, 0, 0, &settings);
        frame::put(&mut output, frame::WINDOW_UPDATE, 0, 0, &(MOST_ANSWER as u32).to_be_bytes());
        Self {
            input: Vec::new(),
            output,
            window: WINDOW,
            initial_window: WINDOW,
            consumed: 0,
            open: None,
            call: Call::default(),
            last: false,
        }
    }

    /// Says good-bye with the next call (RFC 9113, 6.8): the peer then closes by itself
    /// once it has answered, and not when it sees us close.
    pub fn last(&mut self) {
        self.last = true;
    }

    /// Starts a call: the header block (one frame's worth at most) and the body.
    pub fn request(&mut self, headers: &[u8], body: Vec<u8>) {
        if self.consumed > 0 {
            let increment = (mem::take(&mut self.consumed) as u32).to_be_bytes();
            frame::put(&mut self.output, frame::WINDOW_UPDATE, 0, 0, &increment);
        }
        // A client's streams are odd.
        let stream = if self.call.stream == 0 { 1 } else { self.call.stream + 2 };
        let window = self.initial_window;
        self.call = Call { stream, body, window, ..Call::default() };
        frame::put(&mut self.output, frame::HEADERS, frame::END_HEADERS, stream, headers);
        self.send();
        if self.last && self.call.sent == self.call.body.len() {
            frame::put(&mut self.output, frame::GOAWAY, 0, 0, &GOOD_BYE);
        }
    }

    /// Puts as much of the body out as the peer takes.
    fn send(&mut self) {
        let Call { stream, body, sent, window, .. } = &mut self.call;
        while *sent < body.len() {
            let room = usize::try_from(self.window.min(*window)).unwrap_or(0);
            let size = room.min(frame::MOST).min(body.len() - *sent);
            if size == 0 {
                return;
            }
            let end = if *sent + size == body.len() { frame::END_STREAM } else { 0 };
            frame::put(&mut self.output, frame::DATA, end, *stream, &body[*sent..*sent + size]);
            *sent += size;
            *window -= size as i64;
            self.window -= size as i64;
        }
    }

    /// Reads what was received; the answer once it is whole. What follows the answer is
    /// read with the next call: a reset that only says that the rest of the body was not
    /// wanted (RFC 9113, 8.1) must not take the answer's place.
    ///
    /// # Errors
    /// [`Broken`]: the peer ended the call or the connection, or speaks something else.
    pub fn read(&mut self) -> Result<Option<Answer>, Broken> {
        let mut input = mem::take(&mut self.input);
        let mut read = 0;
        let mut answer = None;
        while answer.is_none()
            && let Some((frame, size)) = Frame::first(&input[read..])?
        {
            read += size;
            if self.take(&frame)? {
                answer = Some(mem::take(&mut self.call.answer));
            }
        }
        // The same buffer again: one for each piece would not be given back by the heap.
        input.drain(..read);
        self.input = input;
        Ok(answer)
    }

    /// Whether the answer ends with this frame.
    fn take(&mut self, frame: &Frame<'_>) -> Result<bool, Broken> {
        if self.open.is_some() != (frame.kind == frame::CONTINUATION) {
            return Err(Broken::protocol("headers are cut or without a beginning"));
        }
        match frame.kind {
            frame::DATA => return self.data(frame),
            frame::HEADERS => return self.headers(frame, frame.content()?),
            frame::CONTINUATION => return self.headers(frame, frame.payload),
            frame::RST_STREAM if frame.stream == self.call.stream => {
                let name = frame::error_name(frame.number()?);
                return Err(Broken(format!("netd ended the call: {name}")));
            }
            frame::SETTINGS if !frame.has(frame::ACK) => self.settings(frame.payload)?,
            frame::PING if !frame.has(frame::ACK) => {
                frame::put(&mut self.output, frame::PING, frame::ACK, 0, frame.payload);
            }
            // One that still answers this call says good-bye only to later ones.
            frame::GOAWAY if frame.number()? < self.call.stream => {
                let code = frame.payload.get(4..8).and_then(|c| c.first_chunk::<4>());
                let name = frame::error_name(code.map_or(0, |c| u32::from_be_bytes(*c)));
                return Err(Broken(format!("netd closes the connection: {name}")));
            }
            frame::WINDOW_UPDATE => self.grow(frame)?,
            frame::PUSH_PROMISE => return Err(Broken::protocol("a push that nobody wants")),
            // Acknowledgements, a reset of an earlier call, types yet to be invented.
            _ => {}
        }
        Ok(false)
    }

    fn data(&mut self, frame: &Frame<'_>) -> Result<bool, Broken> {
        self.expected(frame)?;
        let content = frame.content()?;
        // Padding counts (RFC 9113, 6.9.1), and the window has no room for more.
        self.consumed += frame.payload.len();
        if self.consumed > MOST_ANSWER {
            return Err(Broken(format!("netd's answer has more than {MOST_ANSWER} bytes")));
        }
        let answer = &mut self.call.answer;
        // gRPC sends headers before messages.
        if answer.fields.is_empty() {
            return Err(Broken::protocol("data before headers"));
        }
        answer.body.extend_from_slice(content);
        Ok(self.ended(frame.flags))
    }

    /// Headers or trailers, or a part of them.
    fn headers(&mut self, frame: &Frame<'_>, part: &[u8]) -> Result<bool, Broken> {
        self.expected(frame)?;
        let (mut block, flags) = self.open.take().unwrap_or((Vec::new(), frame.flags));
        self.call.headers += part.len();
        if self.call.headers > MOST_HEADERS {
            return Err(Broken(format!("netd's headers have more than {MOST_HEADERS} bytes")));
        }
        block.extend_from_slice(part);
        if !frame.has(frame::END_HEADERS) {
            self.open = Some((block, flags));
            return Ok(false);
        }
        let fields = hpack::read(&block);
        let fields = fields.map_err(|hpack::Malformed| Broken::protocol("malformed headers"))?;
        self.call.answer.fields.extend(fields);
        Ok(self.ended(flags))
    }

    fn expected(&self, frame: &Frame<'_>) -> Result<(), Broken> {
        if frame.stream == self.call.stream {
            return Ok(());
        }
        Err(Broken::protocol("an answer to no question"))
    }

    /// An answer that comes before all was sent makes the rest needless.
    fn ended(&mut self, flags: u8) -> bool {
        let ended = flags & frame::END_STREAM != 0;
        let call = &mut self.call;
        if ended && call.sent < call.body.len() {
            call.sent = call.body.len();
            let no_error = 0_u32.to_be_bytes();
            frame::put(&mut self.output, frame::RST_STREAM, 0, call.stream, &no_error);
        }
        ended
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Broken::protocol("settings of odd length"));
        }
        for [i0, i1, v0, v1, v2, v3] in settings {
            // Our frames are never longer than the least that it can ask for, and it keeps
            // no table for us.
            if u16::from_be_bytes([*i0, *i1]) == INITIAL_WINDOW_SIZE {
                let window = i64::from(u32::from_be_bytes([*v0, *v1, *v2, *v3]));
                self.call.window += window - self.initial_window;
                self.initial_window = window;
                if window.max(self.call.window) > MOST_WINDOW {
                    return Err(Broken::protocol("a window is too large"));
                }
            }
        }
        frame::put(&mut self.output, frame::SETTINGS, frame::ACK, 0, &[]);
        self.send();
        Ok(())
    }

    fn grow(&mut self, frame: &Frame<'_>) -> Result<(), Broken> {
        let increment = i64::from(frame.number()?);
        let window = match frame.stream {
            0 => &mut self.window,
            stream if stream == self.call.stream => &mut self.call.window,
            _ => return Ok(()),
        };
        *window += increment;
        if *window > MOST_WINDOW {
            return Err(Broken::protocol("a window is too large"));
        }
        self.send();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
