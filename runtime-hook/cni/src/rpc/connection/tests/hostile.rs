//! A server that means no good.

use super::*;
use proptest::prelude::*;

/// A frame's worth: what a connection may hold of one that is not whole.
const FRAME: usize = 9 + 16_384;

fn bounded(connection: &Connection) {
    let answer = &connection.call.answer;
    let fields = answer.fields.iter().map(|field| match field {
        Field::Status(v) | Field::Code(v) | Field::Message(v) | Field::Details(v) => v.len(),
    });
    assert!(connection.input.len() < FRAME);
    assert!(connection.open.as_ref().is_none_or(|(block, _)| block.len() <= MOST_HEADERS));
    // Huffman's shortest code has five bits of eight; an indexed status has three bytes.
    assert!(fields.sum::<usize>() <= 3 * MOST_HEADERS);
    assert!(answer.body.len() <= MOST_ANSWER);
}

/// Gives it again and again until there is an error; how many times.
fn until_refused(first: &[u8], again: &[u8], most: usize) -> (usize, Broken) {
    let mut connection = waiting(5);
    assert_eq!(receive(&mut connection, first), Ok(None));
    for times in 0..most {
        match receive(&mut connection, again) {
            Ok(found) => assert_eq!(found, None),
            Err(broken) => return (times, broken),
        }
        bounded(&connection);
    }
    panic!("{most} times and nothing wrong");
}

#[test]
fn an_answer_has_an_end() {
    let (times, broken) = until_refused(&headers(1), &data(1, &[0; 16_384]), 1_000);
    assert_eq!(times, MOST_ANSWER / 16_384);
    assert!(broken.0.contains("answer has more than"), "{broken:?}");
}

#[test]
fn headers_have_an_end() {
    let (times, broken) = until_refused(&frame(1, 0, 1, OK), &frame(9, 0, 1, &[0; 4_096]), 100);
    assert_eq!(times, MOST_HEADERS / 4_096 - 1);
    assert!(broken.0.contains("headers have more than"), "{broken:?}");
}

#[test]
fn headers_have_an_end_however_many_blocks_they_are_in() {
    let (times, _) = until_refused(&headers(1), &frame(1, 0x4, 1, &[0x88; 4_096]), 100);
    assert_eq!(times, MOST_HEADERS / 4_096 - 1);
}

#[test]
fn padding_has_an_end() {
    let padding = frame(0, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    let (times, _) = until_refused(&headers(1), &padding, 20_000);
    assert_eq!(times, MOST_ANSWER / 256);
}

#[test]
fn a_flood_is_held_in_one_buffer() {
    let mut connection = waiting(5);
    // Each piece ends inside a frame.
    let ping = frame(6, 0, 0, &[0; 8]);
    connection.input.reserve(1 << 10);
    let held = connection.input.as_ptr();
    for _ in 0..1_000 {
        assert_eq!(receive(&mut connection, &ping[..9]), Ok(None));
        assert_eq!(receive(&mut connection, &ping[9..]), Ok(None));
        assert_eq!((connection.input.as_ptr(), connection.input.len()), (held, 0));
        connection.output.clear();
    }
}

#[test]
fn a_frame_is_refused_before_it_is_received() {
    // 16,385 bytes are one more than we said we take.
    assert!(told(b"\x00\x40\x01\0\0\0\0\0\0").is_err());
    assert_eq!(told(b"\x00\x40\x00\0\0\0\0\0\0"), Ok(None));
}

/// A frame of any kind, mostly of one that matters, on a stream that may be ours.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![9 => 0_u8..10, 1 => any::<u8>()];
    let payload = prop_oneof![
        Just(OK.to_vec()),
        Just(TRAILERS.to_vec()),
        Just(MESSAGE.to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    (kind, any::<u8>(), 0_u32..4, payload).prop_map(|(k, f, s, p)| frame(k, f, s, &p))
}

/// What happens to a call whose answer comes in pieces of this size, until it ends.
fn outcome(bytes: &[u8], size: usize) -> (Result<Option<Answer>, Broken>, Vec<Sent>) {
    let mut connection = waiting(100_000);
    for piece in bytes.chunks(size) {
        match receive(&mut connection, piece) {
            Ok(None) => bounded(&connection),
            done => return (done, sent(&mut connection)),
        }
    }
    (Ok(None), sent(&mut connection))
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size in 1_usize..300) {
        let _ = outcome(&bytes, size);
    }

    #[test]
    fn no_frames_panic_and_the_pieces_they_come_in_do_not_matter(
        frames in prop::collection::vec(any_frame(), 0..30), size in 1_usize..100
    ) {
        let bytes = frames.concat();
        prop_assert_eq!(outcome(&bytes, size), outcome(&bytes, bytes.len().max(1)));
    }
}
