//! Rate limits of an endpoint.

use serde::{Deserialize, Serialize};

use super::error::Invalid;

/// Rate limits; rates in bits a second, bursts in bits, 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: u64,
    /// To the pod.
    pub ingress_burst: u64,
    /// From the pod.
    pub egress_rate: u64,
    /// From the pod.
    pub egress_burst: u64,
}

impl Bandwidth {
    /// The kernel's token bucket counts its burst in 32 bits of bytes.
    const MAX_BURST: u64 = (u32::MAX as u64) * 8;

    /// Rates are 8 bits a second or more; a rate has a burst, of at most
    /// 2^35 - 8 bits, and no burst is without a rate.
    ///
    /// # Errors
    /// `ingress_rate`, `ingress_burst`, `egress_rate`, `egress_burst`.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        let sides = [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ];
        for (side, rate, burst) in sides {
            if (rate == 0) != (burst == 0) {
                let text = format!("rate {rate} with burst {burst}: give both, or neither");
                bad.add(format!("{side}_burst"), text);
            }
            if burst > Self::MAX_BURST {
                let text = format!("{burst} is above {}", Self::MAX_BURST);
                bad.add(format!("{side}_burst"), text);
            }
            if rate != 0 && rate < 8 {
                bad.add(format!("{side}_rate"), format!("{rate} is below 8 bits a second"));
            }
        }
        bad.into_result()
    }
}
