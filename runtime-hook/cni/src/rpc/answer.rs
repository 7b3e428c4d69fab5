//! What netd sends: bytes in, the answer to the one call that is under way out, no I/O.

use netd_api::ttrpc::{self, Decoder, Head, Item, Response};
use prost::Message as _;

use crate::{
    error::HookError,
    status::{Code, Refusal},
};

/// Waits for the answer to a call.
pub(crate) struct ResponseReader {
    stream: u32,
    decoder: Decoder,
}

/// What came is not the answer, nor a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Something else than ttrpc, or than an answer to this call.
    #[error("its answer is not ttrpc")]
    NotTtrpc,
    /// More than ttrpc allows.
    #[error("netd's answer has more than {} bytes", ttrpc::MAX_PAYLOAD)]
    TooLong,
}

impl ResponseReader {
    /// To the call `stream`.
    pub(crate) fn to(stream: u32) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// Takes what came; the answer once it is whole. What follows it is nobody's.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let mut found = None;
        self.decoder.push(bytes, |item| found = found.take().or(Some(item)));
        let (head, payload) = match found {
            None => (self.decoder.unfinished(), Ok(None)),
            Some(Item::Message(head, payload)) => (Some(head), Ok(Some(payload))),
            Some(Item::TooLong(head)) => (Some(head), Err(Broken::TooLong)),
        };
        let expected = |head: Head| (head.kind, head.stream) == (ttrpc::RESPONSE, self.stream);
        if head.is_some_and(|head| !expected(head)) {
            return Err(Broken::NotTtrpc);
        }
        payload
    }
}

/// The message of an answer, still encoded.
///
/// # Errors
/// [`HookError::Refused`], [`HookError::BadAnswer`].
pub(crate) fn message(answer: &[u8], operation: &'static str) -> Result<Vec<u8>, HookError> {
    let Response { status, payload } = Response::decode(answer).map_err(|e| {
        HookError::BadAnswer(format!("the answer to {operation} is no ttrpc response: {e}"))
    })?;
    match status {
        Some(status) if status.code != Code::Ok as i32 => {
            Err(Refusal::of_status(operation, status).into())
        }
        _ => Ok(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_api::ttrpc::Status;
    use proptest::prelude::*;

    fn sent(stream: u32, response: &Response) -> Vec<u8> {
        ttrpc::encode(stream, ttrpc::RESPONSE, &response.encode_to_vec())
    }

    fn success() -> Response {
        Response { status: None, payload: b"message".to_vec() }
    }

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let bytes = sent(3, &success());
        for at in 0..bytes.len() {
            let mut answer = ResponseReader::to(3);
            assert_eq!(answer.read(&bytes[..at]), Ok(None), "{at}");
            let whole = answer.read(&bytes[at..]).unwrap().unwrap();
            assert_eq!(message(&whole, "Attach").unwrap(), b"message");
        }
        let more = [bytes, b"junk behind it".to_vec()].concat();
        assert!(ResponseReader::to(3).read(&more).unwrap().is_some());
    }

    #[test]
    fn what_is_no_answer_to_this_call_is_told() {
        let other = sent(1, &success());
        let request = ttrpc::encode(3, ttrpc::REQUEST, b"");
        // As a gRPC server greets; at most a head may come before it is seen.
        let settings = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0];
        let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        for bytes in [other, request, http, vec![0xa5; 100], vec![0; 10], settings] {
            assert_eq!(ResponseReader::to(3).read(&bytes), Err(Broken::NotTtrpc), "{bytes:?}");
        }
        let length = (ttrpc::MAX_PAYLOAD as u32 + 1).to_be_bytes();
        let head = [&length[..], &[0, 0, 0, 3, ttrpc::RESPONSE, 0]].concat();
        assert_eq!(ResponseReader::to(3).read(&head), Err(Broken::TooLong));
    }

    #[test]
    fn a_refusal_has_its_code_and_its_words() {
        let refused = |code| {
            let status = Some(Status::new(code, "100% of \u{20ac}"));
            let answer = Response { status, payload: b"ignored".to_vec() }.encode_to_vec();
            match message(&answer, "Attach").unwrap_err() {
                HookError::Refused(refusal) => *refusal,
                other => panic!("{other}"),
            }
        };
        assert_eq!(refused(8).code, Code::ResourceExhausted);
        assert_eq!(refused(8).message, "100% of \u{20ac}");
        for unknown in [17, -1, i32::MIN] {
            assert_eq!(refused(unknown).code, Code::Unknown);
        }
        let ok = Response { status: Some(Status::default()), payload: b"x".to_vec() };
        assert_eq!(message(&ok.encode_to_vec(), "Attach").unwrap(), b"x");
    }

    #[test]
    fn an_answer_that_can_t_be_decoded_is_unusable() {
        let error = message(&[0xff; 7], "Attach").unwrap_err();
        assert_eq!(error.cni_code(), crate::error::CODE_INTERNAL, "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let mut answer = ResponseReader::to(1);
            for piece in pieces {
                match answer.read(&piece) {
                    Ok(None) => {}
                    Ok(Some(whole)) => { let _ = message(&whole, "Attach"); break }
                    Err(_) => break,
                }
            }
        }
    }
}
