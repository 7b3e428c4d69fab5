//! Bandwidth limits in the kernel's terms.

use super::op::Shape;
use netd_domain::Wiring;

/// The longest delay of a packet by the limit, ms; the same as of CNI's bandwidth plugin.
pub(crate) const LATENCY_MS: u64 = 25;
/// Without a given burst, the bucket holds what comes in this time, ms.
const DEFAULT_BURST_MS: u64 = 100;
/// Longest time to fill the bucket, s: the kernel keeps it in 32 bits, in units of 64 ns.
const MAX_FILL_S: u64 = 240;

/// The limit for packets to the pod.
pub(crate) fn to_pod(wiring: &Wiring) -> Option<Shape> {
    shape(wiring.bandwidth.ingress_rate, wiring.bandwidth.ingress_burst, wiring.mtu)
}

/// The limit for packets from the pod.
pub(crate) fn from_pod(wiring: &Wiring) -> Option<Shape> {
    shape(wiring.bandwidth.egress_rate, wiring.bandwidth.egress_burst, wiring.mtu)
}

fn shape(bits: u64, burst_bits: u64, mtu: u32) -> Option<Shape> {
    if bits == 0 {
        return None;
    }
    let rate = (bits / 8).max(1);
    let wanted = match burst_bits {
        0 => rate.saturating_mul(DEFAULT_BURST_MS) / 1000,
        bits => bits / 8,
    };
    // No frame passes a bucket that is smaller than it.
    const FRAME_HEADER: u64 = 18;
    let least = u64::from(mtu) + FRAME_HEADER;
    let most = rate.saturating_mul(MAX_FILL_S).min(u64::from(u32::MAX / 2)).max(least);
    Some(Shape { rate, burst: wanted.clamp(least, most) as u32 })
}

/// Whether the two are equal but for rounding: the kernel keeps the bucket as a time in units
/// of 64 ns.
pub(crate) fn same(a: &Shape, b: &Shape) -> bool {
    let tolerance = u64::from(a.burst.max(b.burst)) / 100 + a.rate / 1_000_000 + 2;
    a.rate == b.rate && u64::from(a.burst.abs_diff(b.burst)) <= tolerance
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_is_no_limit_and_a_bucket_always_holds_a_frame() {
        assert_eq!(shape(0, 1_000, 1500), None);
        let tiny = shape(8_000, 8, 1500).unwrap();
        assert_eq!(tiny, Shape { rate: 1_000, burst: 1_518 });
    }

    #[test]
    fn bursts_are_bits_and_have_a_default_and_a_bound() {
        assert_eq!(shape(80_000_000, 800_000, 1500).unwrap().burst, 100_000);
        assert_eq!(shape(80_000_000, 0, 1500).unwrap().burst, 1_000_000);
        assert_eq!(shape(80_000, u64::MAX, 1500).unwrap().burst, 2_400_000);
        assert_eq!(shape(u64::MAX, u64::MAX, 1500).unwrap().burst, u32::MAX / 2);
    }

    #[test]
    fn rounding_by_the_kernel_is_not_a_difference() {
        let a = Shape { rate: 125_000, burst: 50_000 };
        assert!(same(&a, &Shape { burst: 49_990, ..a }));
        assert!(!same(&a, &Shape { burst: 40_000, ..a }));
        assert!(!same(&a, &Shape { rate: 125_001, ..a }));
    }
}
