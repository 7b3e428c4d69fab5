//! What an HTTP/2 answer means in gRPC (PROTOCOL-HTTP2 of the gRPC project).

use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{connection::Answer, hpack::Field};
use crate::{
    error::HookError,
    refusal::{Code, Refusal},
};

/// Senders may pad or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The one message of an answer, still encoded.
///
/// # Errors
/// [`HookError::Refused`], [`HookError::BadAnswer`].
pub fn message<'a>(answer: &'a Answer, operation: &'static str) -> Result<&'a [u8], HookError> {
    let found = |pick: fn(&Field) -> Option<&[u8]>| answer.fields.iter().rev().find_map(pick);
    let status = found(|f| if let Field::Status(v) = f { Some(v) } else { None });
    let code = found(|f| if let Field::Code(v) = f { Some(v) } else { None });
    let text = found(|f| if let Field::Message(v) = f { Some(v) } else { None });
    let details = found(|f| if let Field::Details(v) = f { Some(v) } else { None });
    let Some(code) = code else {
        return Err(without_code(status.unwrap_or_default(), operation));
    };
    match code_of(code) {
        Code::Ok => only_message(&answer.body, operation),
        code => {
            let text = text.map(percent_decoded).unwrap_or_default();
            let details = details.and_then(|d| BASE64.decode(d).ok()).unwrap_or_default();
            Err(Refusal::new(operation, code, text, &details).into())
        }
    }
}

fn code_of(text: &[u8]) -> Code {
    let number = core::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    number.map_or(Code::Unknown, Code::from_number)
}

/// Not gRPC's word but HTTP's (http-grpc-status-mapping of the gRPC project).
fn without_code(status: &[u8], operation: &'static str) -> HookError {
    let code = match status {
        b"200" => return bad(operation, "has no grpc-status"),
        b"400" => Code::Internal,
        b"401" => Code::Unauthenticated,
        b"403" => Code::PermissionDenied,
        b"404" => Code::Unimplemented,
        b"429" | b"502" | b"503" | b"504" => Code::Unavailable,
        _ => Code::Unknown,
    };
    let text = format!("HTTP status {}", String::from_utf8_lossy(status));
    Refusal::new(operation, code, text, &[]).into()
}

/// A message is a byte (0: not compressed), its length in four, and itself.
fn only_message<'a>(body: &'a [u8], operation: &'static str) -> Result<&'a [u8], HookError> {
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<5>() else {
        return Err(bad(operation, "holds no message"));
    };
    if *compressed != 0 {
        return Err(bad(operation, "is compressed"));
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(bad(operation, "is not one message"));
    }
    Ok(message)
}

fn bad(operation: &str, what: &str) -> HookError {
    HookError::BadAnswer(format!("the answer to {operation} {what}"))
}

/// `%41` is `A`; what is no such thing stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[Field], body: &[u8]) -> Answer {
        Answer { fields: fields.to_vec(), body: body.to_vec() }
    }

    fn refusal(fields: &[Field]) -> Refusal {
        match message(&answer(fields, b""), "Attach").unwrap_err() {
            HookError::Refused(refusal) => *refusal,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn one_message_is_taken_out() {
        let ok = [Field::Status(b"200".to_vec()), Field::Code(b"0".to_vec())];
        assert_eq!(message(&answer(&ok, b"\0\0\0\0\x02ab"), "Attach").unwrap(), b"ab");
        for body in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab", b"\x01\0\0\0\0"] {
            let error = message(&answer(&ok, body), "Attach").unwrap_err();
            assert_eq!(error.cni_code(), crate::error::CODE_INTERNAL, "{error}");
        }
    }

    #[test]
    fn a_refusal_has_its_code_and_its_words() {
        let found = refusal(&[
            Field::Status(b"200".to_vec()),
            Field::Code(b"8".to_vec()),
            Field::Message(b"100%25 of %e2%82%ac, 5% %zz".to_vec()),
        ]);
        assert_eq!(found.code, Code::ResourceExhausted);
        assert_eq!(found.message, "100% of \u{20ac}, 5% %zz");
        for junk in [&b"17"[..], b"-1", b"", b"\xff", b"99999999999"] {
            assert_eq!(refusal(&[Field::Code(junk.to_vec())]).code, Code::Unknown);
        }
    }

    #[test]
    fn without_a_code_http_s_status_counts() {
        assert_eq!(refusal(&[Field::Status(b"503".to_vec())]).code, Code::Unavailable);
        assert_eq!(refusal(&[Field::Status(b"404".to_vec())]).message, "HTTP status 404");
        assert_eq!(refusal(&[]).code, Code::Unknown);
        let fields = [Field::Status(b"200".to_vec())];
        assert!(
            message(&answer(&fields, b""), "Attach")
                .unwrap_err()
                .to_string()
                .contains("grpc-status")
        );
    }
}
