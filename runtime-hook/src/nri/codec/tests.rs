#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{
    mux,
    ttrpc::{self, Head, Item},
};

/// Every message on conn 1, with the stream of bytes cut into `pieces`.
fn messages(pieces: &[&[u8]]) -> Result<Vec<Item>, mux::OversizeFrame> {
    let (mut frames, mut decoder) = (mux::Decoder::default(), ttrpc::Decoder::default());
    let mut items = Vec::new();
    for piece in pieces {
        frames.push(piece, |conn, bytes| {
            if conn == mux::PLUGIN_CONN {
                decoder.push(bytes, |item| items.push(item));
            }
        })?;
    }
    Ok(items)
}

fn wire(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        let message = ttrpc::encode(2 * i as u32 + 1, ttrpc::REQUEST, payload);
        mux::encode(mux::PLUGIN_CONN, &message, &mut out);
    }
    out
}

#[test]
fn a_stream_cut_at_any_byte_gives_the_same_messages() {
    let payloads = vec![b"first".to_vec(), vec![], vec![7; 200]];
    let bytes = wire(&payloads);
    let whole = messages(&[&bytes]).unwrap();
    assert_eq!(whole.len(), 3);
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(messages(&[a, b]).unwrap(), whole, "cut at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(messages(&single).unwrap(), whole);
}

#[test]
fn sent_frames_fit_the_peers_buffer_and_end_with_the_message() {
    let mut out = Vec::new();
    mux::encode(2, &[1; 10_000], &mut out);
    let mut sizes = Vec::new();
    let mut rest = &out[..];
    while let [_, _, _, 2, a, b, c, d, tail @ ..] = rest {
        let n = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        sizes.push(n + 8);
        rest = &tail[n..];
    }
    assert_eq!(sizes, [4096, 4096, 1832]);
}

#[test]
fn a_frame_longer_than_nri_allows_is_refused() {
    let length = mux::MAX_PAYLOAD as u32 + 1;
    let mut frame = 1u32.to_be_bytes().to_vec();
    frame.extend(length.to_be_bytes());
    assert_eq!(messages(&[&frame]).unwrap_err(), mux::OversizeFrame { conn: 1, length });
}

#[test]
fn the_longest_message_in_one_frame_is_taken() {
    let payload = vec![3u8; ttrpc::MAX_PAYLOAD];
    let message = ttrpc::encode(1, ttrpc::REQUEST, &payload);
    let mut frame = 1u32.to_be_bytes().to_vec();
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    assert!(matches!(&messages(&[&frame]).unwrap()[..], [Item::Message(_, p)] if *p == payload));
}

#[test]
fn a_message_too_long_is_reported_and_skipped_and_the_next_is_read() {
    let length = ttrpc::MAX_PAYLOAD as u32 + 5;
    let head = Head { length, stream: 1, kind: ttrpc::REQUEST };
    let mut long = length.to_be_bytes().to_vec();
    long.extend([0, 0, 0, 1, ttrpc::REQUEST, 0]);
    long.extend(vec![0u8; length as usize]);
    let mut decoder = ttrpc::Decoder::default();
    let mut items = Vec::new();
    decoder.push(&long, |i| items.push(i));
    decoder.push(&ttrpc::encode(3, ttrpc::REQUEST, b"ok"), |i| items.push(i));
    let next = Head { length: 2, stream: 3, kind: ttrpc::REQUEST };
    assert_eq!(items, [Item::TooLong(head), Item::Message(next, b"ok".to_vec())]);
}

#[test]
fn conns_are_kept_apart_and_unknown_ones_are_ignored() {
    let message = ttrpc::encode(1, ttrpc::REQUEST, b"hello");
    let (a, b) = message.split_at(7);
    let mut bytes = Vec::new();
    mux::encode(1, a, &mut bytes);
    mux::encode(0, b"reserved", &mut bytes);
    mux::encode(2, &ttrpc::encode(1, ttrpc::RESPONSE, b"else"), &mut bytes);
    mux::encode(77, b"nobody", &mut bytes);
    mux::encode(1, b, &mut bytes);
    let got = messages(&[&bytes]).unwrap();
    assert!(matches!(&got[..], [Item::Message(_, p)] if p == b"hello"), "{got:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_panic_and_nothing_is_made_up(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let refs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let total: usize = refs.iter().map(|p| p.len()).sum();
        if let Ok(items) = messages(&refs) {
            let held: usize = items.iter().map(|i| match i {
                Item::Message(_, p) => p.len() + 10,
                Item::TooLong(_) => 10,
            }).sum();
            prop_assert!(held <= total);
        }
        // The same bytes straight into the inner layer: the outer one hides most of them.
        let mut decoder = ttrpc::Decoder::default();
        let mut held = 0;
        for piece in &refs {
            decoder.push(piece, |i| held += if let Item::Message(_, p) = i { p.len() } else { 0 });
        }
        prop_assert!(held <= total);
    }

    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 1..5),
        step in 1usize..5000,
    ) {
        let bytes = wire(&payloads);
        let pieces: Vec<&[u8]> = bytes.chunks(step).collect();
        let got: Vec<Vec<u8>> = messages(&pieces).unwrap().into_iter().map(|i| match i {
            Item::Message(_, p) => p,
            Item::TooLong(h) => panic!("{h:?}"),
        }).collect();
        prop_assert_eq!(got, payloads);
    }
}
