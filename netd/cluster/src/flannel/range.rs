//! `Network`, `SubnetLen`, `SubnetMin`, `SubnetMax`: the arithmetic of both families.

use netd_domain::Invalid;

/// A family's addresses as numbers.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    /// First address of the network.
    pub base: u128,
    /// Its prefix length.
    pub prefix: u8,
    /// 32 or 128.
    pub bits: u8,
}

/// What a configuration says about subnets; 0 stands for nothing, as with flannel.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    pub len: u8,
    pub min: u128,
    pub max: u128,
}

/// The keys' names in one family.
pub(super) struct Names {
    pub network: &'static str,
    pub len: &'static str,
    pub min: &'static str,
    pub max: &'static str,
}

/// Checked: subnet length, first and last subnet.
pub(super) struct Range {
    pub len: u8,
    pub min: u128,
    pub max: u128,
}

impl Whole {
    fn contains(&self, ip: u128) -> bool {
        // A shift by all the bits is none of u128's.
        let host = u32::from(self.bits - self.prefix);
        self.base.checked_shr(host).unwrap_or(0) == ip.checked_shr(host).unwrap_or(0)
    }

    /// Longest subnet: it has room for a gateway and a pod.
    fn longest(&self) -> u8 {
        self.bits - 2
    }

    /// Length of a subnet where none is configured: /24 and /64, or a quarter of a
    /// network that has no room for four of those.
    fn default_len(&self) -> Option<u8> {
        let usual = if self.bits == 32 { 24 } else { 64 };
        match self.prefix {
            p if p + 2 <= usual => Some(usual),
            p if p + 2 <= self.longest() => Some(p + 2),
            _ => None,
        }
    }

    fn len(&self, wanted: u8, names: &Names, bad: &mut Invalid) -> Option<u8> {
        let (prefix, longest) = (self.prefix, self.longest());
        if wanted == 0 {
            let default = self.default_len();
            if default.is_none() {
                let most = longest - 2;
                let problem = format!("a /{prefix} is too small; it must be a /{most} or larger");
                bad.add(names.network, problem);
            }
            return default;
        }
        if wanted > longest {
            bad.add(names.len, format!("{wanted} is too long; at most {longest}"));
            return None;
        }
        if wanted < prefix + 2 {
            let least = prefix + 2;
            let problem = format!(
                "{wanted} leaves no room for four subnets in a /{prefix}; at least {least}"
            );
            bad.add(names.len, problem);
            return None;
        }
        Some(wanted)
    }

    /// Fills in the defaults. The first subnet is not given out: its address is the
    /// network's own.
    pub(super) fn range(
        &self,
        wanted: Wanted,
        names: &Names,
        show: impl Fn(u128) -> String,
        bad: &mut Invalid,
    ) -> Option<Range> {
        let len = self.len(wanted.len, names, bad)?;
        let size = 1u128 << (self.bits - len);
        // Four subnets at least: neither of these overflows.
        let last = self.base + ((1u128 << (len - self.prefix).min(127)) - 1) * size;
        let min = if wanted.min == 0 { self.base + size } else { wanted.min };
        let max = if wanted.max == 0 { last } else { wanted.max };
        for (name, ip) in [(names.min, min), (names.max, max)] {
            if !self.contains(ip) {
                bad.add(name, format!("{} is outside {}", show(ip), names.network));
            } else if ip % size != 0 {
                let problem = format!("{} is not the first address of a /{len}", show(ip));
                bad.add(name, problem);
            }
        }
        if min > max {
            let problem = format!("{} is before {}, {}", show(max), names.min, show(min));
            bad.add(names.max, problem);
        }
        Some(Range { len, min, max })
    }
}
