//! How a journal is cut into frames, and what an end without an end means. Pure.
//!
//! A frame is its length, the length's complement and the checksum (CRC-32) of what
//! follows, each 32 bits and little-endian; then the payload and a byte that is not zero.
//! Behind the last frame a file is all zeros. A process that is killed while it writes
//! leaves the beginning of a frame and zeros after it, never the other way round: that
//! frame was not committed. Anything else that is not a frame is damage.

/// Length, complement, checksum.
const HEAD: usize = 12;
/// The byte after a payload: whoever wrote it had written all before it.
const END: u8 = 0xa5;
/// What a frame takes besides its payload, bytes.
pub(super) const OVERHEAD: usize = HEAD + 1;

/// The bytes are no journal's from the offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage(pub usize);

/// The frame around `payload`; `None` if that is empty or of 4 GiB.
pub(super) fn frame(payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length > 0)?;
    let mut frame = Vec::with_capacity(payload.len() + OVERHEAD);
    for number in [length, !length, crc32fast::hash(payload)] {
        frame.extend_from_slice(&number.to_le_bytes());
    }
    frame.extend_from_slice(payload);
    frame.push(END);
    Some(frame)
}

/// The payloads of the frames that begin at `at`, and where the last one ends. Behind it
/// are zeros, or a frame that was not written to its end.
///
/// # Errors
/// [`Damage`].
pub(super) fn payloads(bytes: &[u8], mut at: usize) -> Result<(Vec<&[u8]>, usize), Damage> {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut all = Vec::new();
    while at < written {
        match one(bytes.get(at..).unwrap_or_default(), written - at) {
            Found::Whole(payload) => {
                all.push(payload);
                at += payload.len() + OVERHEAD;
            }
            Found::Unfinished => break,
            Found::Damaged => return Err(Damage(at)),
        }
    }
    Ok((all, at))
}

enum Found<'a> {
    Whole(&'a [u8]),
    Unfinished,
    Damaged,
}

/// `written`: how many of the bytes come before the zeros at the end.
fn one(bytes: &[u8], written: usize) -> Found<'_> {
    let number = |at: usize| {
        let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        four.map(|four| u32::from_le_bytes(*four))
    };
    let (Some(length), Some(complement), Some(sum)) = (number(0), number(4), number(8)) else {
        return Found::Damaged;
    };
    if length == 0 || complement != !length {
        return if written < HEAD { Found::Unfinished } else { Found::Damaged };
    }
    let whole = HEAD + length as usize;
    match bytes.get(HEAD..whole) {
        Some(payload) if crc32fast::hash(payload) == sum => Found::Whole(payload),
        // Its end was not written, nor anything after it.
        Some(_) if written <= whole => Found::Unfinished,
        _ => Found::Damaged,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 64;

    fn journal(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for payload in payloads {
            bytes.extend(frame(payload).unwrap());
            ends.push(bytes.len());
        }
        bytes.resize(bytes.len() + ROOM, 0);
        (bytes, ends)
    }

    fn contents() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Zeros at both ends are what is easily mistaken.
        let payload = proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..40);
        proptest::collection::vec(payload, 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_before_the_kill_is_there_and_nothing_of_the_rest(
            all in contents(), cut: prop::sample::Index,
        ) {
            let (mut bytes, ends) = journal(&all);
            let cut = cut.index(bytes.len() - ROOM + 1);
            bytes[cut..].fill(0);
            let (found, end) = payloads(&bytes, 0).unwrap();
            // A frame without its end byte, or without zeros before it, is whole all the same.
            let least = ends.iter().filter(|end| **end <= cut).count() - 1;
            prop_assert!(found.len() >= least && found.len() <= least + 1);
            prop_assert_eq!(end, ends[found.len()]);
            for (found, put) in found.iter().zip(&all) {
                prop_assert_eq!(*found, put.as_slice());
            }
        }

        #[test]
        fn a_flipped_byte_is_damage_or_changes_nothing(
            all in contents(), spot: prop::sample::Index, mask in 1u8..,
        ) {
            let (mut bytes, ends) = journal(&all);
            let spot = spot.index(bytes.len() - ROOM);
            bytes[spot] ^= mask;
            if let Ok((found, end)) = payloads(&bytes, 0) {
                prop_assert_eq!(found, all.iter().map(Vec::as_slice).collect::<Vec<_>>());
                prop_assert!(ends.contains(&end));
            }
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..120) {
            let _ = payloads(&bytes, at);
        }
    }

    #[test]
    fn an_empty_payload_has_no_frame() {
        assert_eq!(frame(&[]), None);
        assert_eq!(payloads(&[0; 100], 0), Ok((vec![], 0)));
    }
}
