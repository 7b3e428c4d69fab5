//! For fuzzing: a hostile server's bytes.

use alloc::vec;

use super::{answer, connection::Connection};

/// The input is what comes from the socket, in pieces of 1 to 256 bytes: the first byte
/// says how many.
pub fn fuzz(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let mut connection = Connection::new();
    connection.request(b"\x83\x86", vec![0; 100_000]);
    for piece in bytes.chunks(usize::from(*size) + 1) {
        connection.input.extend_from_slice(piece);
        loop {
            match connection.read() {
                Ok(None) => break,
                Ok(Some(whole)) => {
                    let _ = answer::message(&whole, "Attach");
                    connection.request(b"\x83\x86", vec![0; 100]);
                }
                Err(_) => return,
            }
        }
        connection.output.clear();
    }
}
