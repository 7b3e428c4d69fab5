#![allow(clippy::unwrap_used)]

use super::*;

const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// :method POST, :scheme http, :path /a, then the authority by `first` and `value`, te.
fn block(first: u8, value: &[u8]) -> Vec<u8> {
    let after = [0x40, 2, b't', b'e', 1, b'x'];
    [&[0x83, 0x86, 0x44, 2, b'/', b'a', first][..], value, &after].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// Fed in pieces of `size` after the preface.
fn rewritten(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut rewriter, mut out) = (Rewriter::new(), Vec::new());
    for piece in [&[b'P'; PREFACE][..], bytes].concat().chunks(size) {
        rewriter.feed(piece, &mut out);
    }
    assert_eq!(out[..PREFACE], [b'P'; PREFACE]);
    out.split_off(PREFACE)
}

#[test]
fn a_path_is_replaced_however_it_is_cut_and_indexed() {
    for first in [0x41, 0x01, 0x11] {
        for path in [&b"/run/netd/netd.sock"[..], b"%2Frun%2Fnetd.sock", b"/x"] {
            let sent = frame(HEADERS, END_HEADERS, &block(first, &string(path)));
            let around = frame(0, 0, b"data before and after");
            let all = [&around[..], &sent, &around].concat();
            let right = frame(HEADERS, END_HEADERS, &block(first, &REPLACEMENT));
            let right = [&around[..], &right, &around].concat();
            for size in [1, 2, 7, 10, 1000] {
                assert_eq!(rewritten(&all, size), right, "{path:?} in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_huffman_coded_path_is_replaced() {
    // "/a" and "%a": 011000 00011 and 010101 00011, filled up with ones.
    for coded in [[0b0110_0000, 0b0111_1111], [0b0101_0100, 0b0111_1111]] {
        let value = [&[0x82], &coded[..]].concat();
        let sent = frame(HEADERS, END_HEADERS, &block(0x41, &value));
        let right = frame(HEADERS, END_HEADERS, &block(0x41, &REPLACEMENT));
        assert_eq!(rewritten(&sent, 1000), right);
    }
}

#[test]
fn padding_and_priority_stay_where_they_are() {
    let wrap = |value: &[u8]| {
        let fields = block(0x41, value);
        let payload = [&[3, 0, 0, 0, 0, 16][..], &fields, &[0; 3]].concat();
        frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &payload)
    };
    assert_eq!(rewritten(&wrap(&string(b"/run/x.sock")), 1000), wrap(&REPLACEMENT));
}

#[test]
fn everything_else_passes_as_it_is() {
    let huge = frame(HEADERS, 0, &vec![0x82; MOST + 1]);
    for bytes in [
        frame(HEADERS, END_HEADERS, &block(0x41, &string(b"localhost"))),
        frame(HEADERS, END_HEADERS, &block(0x41, &string(b""))),
        // :path, not :authority.
        frame(HEADERS, END_HEADERS, &block(0x44, &string(b"/run/x.sock"))),
        frame(HEADERS, END_HEADERS, &[0xff; 40]),
        frame(HEADERS, END_HEADERS, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]),
        frame(HEADERS, END_HEADERS, &[0x41, 20, b'/']),
        frame(HEADERS, PADDED, &[200, 0x41]),
        frame(HEADERS, PADDED | PRIORITY, &[0]),
        frame(HEADERS, 0, &[]),
        frame(4, 0, &[]),
        huge,
    ] {
        for size in [1, 1000] {
            assert_eq!(rewritten(&bytes, size), bytes);
        }
    }
}
