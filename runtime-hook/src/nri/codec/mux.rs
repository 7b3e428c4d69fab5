//! Frames: `u32 BE conn id | u32 BE length | payload` (containerd/nri, `pkg/net/multiplex`).

/// The conn on which the plugin is the server.
pub const PLUGIN_CONN: u32 = 1;
/// The conn on which the plugin is the client.
pub(crate) const RUNTIME_CONN: u32 = 2;
/// Longest payload that is accepted: a ttrpc message of 4 MiB with its header.
pub const MAX_PAYLOAD: usize = (4 << 20) + 10;
/// Longest frame that is sent, header included. The Go peer reads a whole frame
/// into a buffer of 4096 bytes, and fails with ENOMEM on a longer one.
pub(crate) const MAX_SENT_FRAME: usize = 4096;

const HEADER: usize = 8;

/// The stream can't be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mux frame of {length} bytes on conn {conn}; at most {MAX_PAYLOAD} are valid: \
     the peer does not speak NRI, or the stream is damaged"
)]
pub struct OversizeFrame {
    /// The frame's conn.
    pub conn: u32,
    /// The length that its header gives.
    pub length: u32,
}

/// Takes frames apart. A frame is passed on piece by piece as it arrives: each
/// conn is a byte stream, and where frames end on it means nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    filled: usize,
    conn: u32,
    left: usize,
}

impl Decoder {
    /// Hands every piece of payload in `input` to `sink` with its conn's id.
    ///
    /// # Errors
    /// [`OversizeFrame`]; the decoder must not be used after it.
    pub fn push(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(u32, &[u8]),
    ) -> Result<(), OversizeFrame> {
        while !input.is_empty() {
            if self.left > 0 {
                let (piece, rest) = input.split_at(self.left.min(input.len()));
                self.left -= piece.len();
                input = rest;
                sink(self.conn, piece);
                continue;
            }
            let (piece, rest) = input.split_at((HEADER - self.filled).min(input.len()));
            self.header[self.filled..self.filled + piece.len()].copy_from_slice(piece);
            self.filled += piece.len();
            input = rest;
            if self.filled == HEADER {
                self.begin()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), OversizeFrame> {
        let [a, b, c, d, e, f, g, h] = self.header;
        let (conn, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        self.filled = 0;
        self.conn = conn;
        self.left = length as usize;
        if self.left > MAX_PAYLOAD { Err(OversizeFrame { conn, length }) } else { Ok(()) }
    }
}

/// Appends `message` to `out` as frames of `conn`. The last frame ends with the
/// message: the peer can't take a frame that holds parts of two.
pub fn encode(conn: u32, message: &[u8], out: &mut Vec<u8>) {
    for piece in message.chunks(MAX_SENT_FRAME - HEADER) {
        out.extend_from_slice(&conn.to_be_bytes());
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
    }
}
