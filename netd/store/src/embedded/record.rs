//! How an entry is laid out on disk: three little-endian 64-bit numbers (create
//! revision, mod revision, lease), then the value.

use crate::Entry;

const HEAD: usize = 24;

/// The bytes of an entry, without its key.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + entry.value.len());
    for number in [entry.create_revision, entry.mod_revision, entry.lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    bytes
}

/// The entry of `key`; `None` if the bytes can't be one.
pub(super) fn decode(key: &str, bytes: &[u8]) -> Option<Entry> {
    let (create_revision, rest) = split_number(bytes)?;
    let (mod_revision, rest) = split_number(rest)?;
    let (lease, value) = split_number(rest)?;
    let sound = create_revision >= 1 && mod_revision >= create_revision && lease >= 0;
    sound.then(|| Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        create_revision,
        mod_revision,
        lease,
    })
}

/// A number from the front.
pub(super) fn split_number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((i64::from_le_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_junk_never_panics(
            value in proptest::collection::vec(any::<u8>(), 0..40),
            (create, later, lease) in (1i64..1000, 0i64..1000, 0i64..1000),
        ) {
            prop_assert!(decode("k", &value[..value.len().min(HEAD - 1)]).is_none());
            decode("k", &value);
            let mod_revision = create + later;
            let key = "k".to_owned();
            let entry = Entry { key, value, create_revision: create, mod_revision, lease };
            prop_assert_eq!(decode("k", &encode(&entry)), Some(entry));
        }
    }
}
