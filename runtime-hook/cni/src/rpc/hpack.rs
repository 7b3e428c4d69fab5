//! Header lists on the wire (HPACK, RFC 7541), as far as a client needs them that keeps
//! no table: it tells the server so (SETTINGS_HEADER_TABLE_SIZE 0), and reads of an
//! answer's fields only those that a gRPC client looks at.

use alloc::vec::Vec;

use super::huffman;

/// The entry of the static table (RFC 7541, appendix A) with this name and value.
pub const METHOD_POST: u8 = 3;
/// `:scheme: http`.
pub const SCHEME_HTTP: u8 = 6;
/// Names of the static table.
pub const AUTHORITY: u8 = 1;
/// `:path`
pub const PATH: u8 = 4;
/// `content-type`
pub const CONTENT_TYPE: u8 = 31;

/// Entries of the static table.
const STATIC: usize = 61;
/// Its entries with the name `:status`.
const STATUS: core::ops::RangeInclusive<usize> = 8..=14;
const STATUS_VALUES: [&[u8]; 7] = [b"200", b"204", b"206", b"304", b"400", b"404", b"500"];

/// A field that the reader knows; others are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `:status`
    Status(Vec<u8>),
    /// `grpc-status`
    Code(Vec<u8>),
    /// `grpc-message`, still percent-encoded.
    Message(Vec<u8>),
    /// `grpc-status-details-bin`, still in base64.
    Details(Vec<u8>),
}

/// Not a header block, or one that needs a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A field of the static table.
pub fn put_indexed(out: &mut Vec<u8>, entry: u8) {
    out.push(0x80 | entry);
}

/// A field whose name is the static table's, kept out of the peer's table.
pub fn put_named(out: &mut Vec<u8>, name: u8, value: &str) {
    put_number(out, 0, 4, usize::from(name));
    put_string(out, value);
}

/// A field in full, kept out of the peer's table.
pub fn put_literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    put_string(out, name);
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_number(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// RFC 7541, 5.1: `bits` of the first byte, whose others are `first`'s, then 7 a byte.
fn put_number(out: &mut Vec<u8>, first: u8, bits: u32, number: usize) {
    let most = (1_usize << bits) - 1;
    if number < most {
        out.push(first | number as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The known fields of a header block, in order.
///
/// # Errors
/// [`Malformed`].
pub fn read(block: &[u8]) -> Result<Vec<Field>, Malformed> {
    let mut reader = Reader(block);
    let mut fields = Vec::with_capacity(4);
    while let Some(&first) = reader.0.first() {
        match first {
            0x80.. => fields.extend(indexed(reader.number(7)?)?),
            0x40.. => fields.extend(reader.literal(6)?),
            // A new size of the table, of which there is none.
            0x20.. => match reader.number(5)? {
                0 => {}
                _ => return Err(Malformed),
            },
            _ => fields.extend(reader.literal(4)?),
        }
    }
    Ok(fields)
}

fn indexed(entry: usize) -> Result<Option<Field>, Malformed> {
    match entry {
        1..=STATIC => {
            let status = STATUS.contains(&entry).then(|| STATUS_VALUES[entry - STATUS.start()]);
            Ok(status.map(|value| Field::Status(value.to_vec())))
        }
        _ => Err(Malformed),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn literal(&mut self, bits: u32) -> Result<Option<Field>, Malformed> {
        let entry = self.number(bits)?;
        let make: Option<fn(Vec<u8>) -> Field> = match entry {
            0 => match self.string()?.as_slice() {
                b":status" => Some(Field::Status),
                b"grpc-status" => Some(Field::Code),
                b"grpc-message" => Some(Field::Message),
                b"grpc-status-details-bin" => Some(Field::Details),
                _ => None,
            },
            entry if STATUS.contains(&entry) => Some(Field::Status),
            1..=STATIC => None,
            _ => return Err(Malformed),
        };
        let value = self.string()?;
        Ok(make.map(|make| make(value)))
    }

    fn number(&mut self, bits: u32) -> Result<usize, Malformed> {
        let most = (1_u8 << bits) - 1;
        let first = self.byte()? & most;
        if first < most {
            return Ok(usize::from(first));
        }
        let mut number = usize::from(most);
        // Lengths of 2^28 and more are no header's.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.number(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        if coded { huffman::decode(text).ok_or(Malformed) } else { Ok(text.to_vec()) }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What h2 answers to an attach: its headers, and the trailers of success.
    const HEADERS: &[u8] = b"\x88\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64\x61\x02ab";
    const TRAILERS: &[u8] = b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07";

    #[test]
    fn a_server_s_headers_and_trailers_are_read() {
        assert_eq!(read(HEADERS).unwrap(), [Field::Status(b"200".to_vec())]);
        assert_eq!(read(TRAILERS).unwrap(), [Field::Code(b"0".to_vec())]);
        // A table of size 0, a status in full.
        assert_eq!(read(b"\x20\x08\x03503").unwrap(), [Field::Status(b"503".to_vec())]);
    }

    #[test]
    fn what_is_put_can_be_read() {
        let mut block = Vec::new();
        put_indexed(&mut block, METHOD_POST);
        put_named(&mut block, CONTENT_TYPE, "application/grpc");
        let long = "x".repeat(100_000);
        put_literal(&mut block, "grpc-message", &long);
        put_literal(&mut block, "te", "trailers");
        assert_eq!(read(&block).unwrap(), [Field::Message(long.into_bytes())]);
    }

    #[test]
    fn the_numbers_of_the_rfc() {
        // RFC 7541, C.1: 10 and 1337 in five bits, 42 in eight.
        for (number, bits, wanted) in
            [(10, 5, &b"\x0a"[..]), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a")]
        {
            let mut out = Vec::new();
            put_number(&mut out, 0, bits, number);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_not_read_from() {
        for bad in [
            &b"\x80"[..],
            b"\xbe",
            b"\x7f\x00\x01a",
            b"\x3f\xe1\x1f",
            b"\x00\x05ab",
            b"\xff\xff\xff\xff\xff\xff",
            b"\x00\x7f\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn junk_does_not_panic(block in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&block);
        }
    }
}
