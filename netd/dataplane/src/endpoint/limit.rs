//! Bandwidth limits in the kernel's terms.

use super::op::Shape;
use netd_domain::Wiring;

/// How long the limit may hold a packet back, ms (as CNI's bandwidth plugin).
pub const LATENCY_MS: u64 = 25;
/// Where no burst is given: what comes in this time, ms, passes at once.
const DEFAULT_BURST_MS: u64 = 100;
/// A bucket that takes longer to fill overflows the kernel's 32 bits of 64 ns, s.
const LONGEST_FILL_S: u64 = 240;

/// What the pod may receive.
pub fn to_pod(wiring: &Wiring) -> Option<Shape> {
    shape(wiring.bandwidth.ingress_rate, wiring.bandwidth.ingress_burst, wiring.mtu)
}

/// What the pod may send.
pub fn from_pod(wiring: &Wiring) -> Option<Shape> {
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
    // A bucket smaller than a frame lets nothing through.
    const FRAME_HEADER: u64 = 18;
    let least = u64::from(mtu) + FRAME_HEADER;
    let most = rate.saturating_mul(LONGEST_FILL_S).min(u64::from(u32::MAX / 2)).max(least);
    Some(Shape { rate, burst: wanted.clamp(least, most) as u32 })
}

/// The kernel keeps the bucket as a time in units of 64 ns: equal but for rounding.
pub fn same(a: &Shape, b: &Shape) -> bool {
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
