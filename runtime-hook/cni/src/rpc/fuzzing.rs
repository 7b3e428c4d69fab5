//! For fuzzing: a hostile server's bytes.

use super::answer::{ResponseReader, message};

/// The input is what comes from the socket, in pieces of 1 to 256 bytes: the first byte
/// says how many.
pub fn fuzz(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let mut answer = ResponseReader::to(1);
    for piece in bytes.chunks(usize::from(*size) + 1) {
        match answer.read(piece) {
            Ok(None) => {}
            Ok(Some(whole)) => {
                let _ = message(&whole, "Attach");
                answer = ResponseReader::to(1);
            }
            Err(_) => return,
        }
    }
}
