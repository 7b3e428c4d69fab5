//! HPACK's Huffman code (RFC 7541, section 5.2 and appendix B), decoding.

use alloc::vec::Vec;

/// Bits of each symbol's code: the 256 bytes, then the end of the string. The code is
/// canonical (symbols of one length have consecutive codes, in order), so this is all.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
const END: u16 = 256;
/// The longest code's bits.
const LONGEST: usize = 30;
static CODE: Code = Code::new();

/// The code, by length.
struct Code {
    /// Symbols by length, then by value.
    symbols: [u16; 257],
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// Symbols of each length.
    count: [u32; LONGEST + 1],
    /// Symbols that are shorter.
    before: [u32; LONGEST + 1],
}

impl Code {
    const fn new() -> Self {
        let zero = [0; LONGEST + 1];
        let mut code = Self { symbols: [0; 257], first: zero, count: zero, before: zero };
        let (mut length, mut placed, mut next) = (1, 0, 0);
        while length <= LONGEST {
            next <<= 1;
            code.first[length] = next;
            code.before[length] = placed;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[placed as usize] = symbol as u16;
                    placed += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.count[length] = placed - code.before[length];
            length += 1;
        }
        code
    }

    fn symbol(&self, bits: u32, length: usize) -> Option<u16> {
        let index = bits.checked_sub(self.first[length])?;
        let within = index < self.count[length];
        within.then(|| self.symbols[(self.before[length] + index) as usize])
    }
}

/// The string; `None` if it is none: padding that is not the end's first bits, or more
/// than seven of them, or the end itself.
pub fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut bits, mut length) = (0_u32, 0);
    for byte in bytes {
        for shift in (0..8).rev() {
            bits = bits << 1 | u32::from(byte >> shift & 1);
            length += 1;
            match CODE.symbol(bits, length) {
                Some(END) => return None,
                Some(symbol) => {
                    text.push(u8::try_from(symbol).ok()?);
                    (bits, length) = (0, 0);
                }
                None if length == LONGEST => return None,
                None => {}
            }
        }
    }
    let padded = length < 8 && bits == (1 << length) - 1;
    padded.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The other way round, to be sure of the table.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (mut bits, mut held) = (0_u64, 0);
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let at = CODE.symbols.iter().position(|s| s == &u16::from(*byte)).unwrap() as u32;
            let code = CODE.first[length] + at - CODE.before[length];
            bits = bits << length | u64::from(code);
            held += length;
            while held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
            }
        }
        if held > 0 {
            out.push((bits << (8 - held)) as u8 | ((1_u16 << (8 - held)) - 1) as u8);
        }
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, C.4.1, C.4.3 and C.6.1.
        let examples: [(&[u8], &[u8]); 3] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"www.example.com"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", b"custom-value"),
            (b"\xae\xc3\x77\x1a\x4b", b"private"),
        ];
        for (coded, text) in examples {
            assert_eq!(decode(coded).unwrap(), text);
        }
    }

    #[test]
    fn the_last_code_is_the_end_s() {
        assert_eq!(CODE.symbols[256], END);
        assert_eq!(CODE.first[30] + CODE.count[30] - 1, 0x3fff_ffff);
    }

    #[test]
    fn wrong_padding_and_an_end_inside_are_refused() {
        for bad in [&b"\x00"[..], b"\xff", b"\xff\xff\xff\xff", b"\xf1\xe3\xff"] {
            assert_eq!(decode(bad), None, "{bad:x?}");
        }
        assert_eq!(decode(b"").unwrap(), b"");
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn junk_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
