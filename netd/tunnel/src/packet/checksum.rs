//! The Internet checksum (RFC 1071).

/// Sum of 16-bit words in the machine's byte order, not folded. Sums of stretches of even
/// length may be added. An odd last byte counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u64 {
    // Four independent sums of 32-bit words: the carries gather in the upper halves, and
    // the compiler makes vector instructions of it.
    let mut sums = [0u64; 8];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *sum += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = chunks.remainder().as_chunks::<2>();
    let tail: u64 = words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum();
    let odd = rest.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    sums.iter().sum::<u64>() + tail + odd
}

/// Folds a sum to 16 bits, in the machine's order: what goes into a packet by
/// `to_ne_bytes`, after [`finish`] unless it is a pseudo header's sum.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum field's value, in the machine's order.
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1): `addresses` are source and
/// destination as they stand in the packet, `length` is the upper layer's.
pub fn pseudo(addresses: &[u8], protocol: u8, length: u16) -> u64 {
    sum(addresses)
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(u16::from_ne_bytes(length.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest::proptest! {
        #[test]
        fn as_word_by_word(bytes: Vec<u8>, more: Vec<u8>) {
            proptest::prop_assert_eq!(u16::from_be(fold(sum(&bytes))), plain(&bytes));
            // Stretches of even length add up.
            let even = &bytes[..bytes.len() & !1];
            let whole = [even, &more].concat();
            proptest::prop_assert_eq!(fold(sum(even) + sum(&more)), fold(sum(&whole)));
        }
    }

    #[test]
    fn all_ones_for_long() {
        assert_eq!(fold(sum(&vec![0xff; 70_000])), 0xffff);
    }
}
