//! Which of the features that netd uses this kernel has. Each is tried in a network
//! namespace of a thread's own, which ends with the thread.

use nix::sched::{CloneFlags, unshare};

use crate::{
    exec::{ExecError, output},
    kernel_modules::BACKENDS,
};

/// A feature, how to try it, and what does not work without it.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) try_it: &'static [&'static [&'static str]],
    /// Given to `nft -f -` after the commands.
    rules: &'static str,
    /// What does not work without it.
    pub(crate) breaks: &'static str,
    /// The kernel's build option.
    pub(crate) option: &'static str,
    /// Pods have no network without it.
    pub(crate) vital: bool,
}

pub(crate) const FEATURES: [Feature; 10] = [
    Feature {
        name: "veth pairs",
        try_it: &[&["ip", "link", "add", "ndp0", "type", "veth", "peer", "name", "ndp1"]],
        rules: "",
        breaks: "no pod can be attached",
        option: "CONFIG_VETH",
        vital: true,
    },
    Feature {
        name: "bridges",
        try_it: &[&["ip", "link", "add", "ndpb", "type", "bridge"]],
        rules: "",
        breaks: "networks with the bridge driver",
        option: "CONFIG_BRIDGE",
        vital: true,
    },
    Feature {
        name: "nftables, family inet",
        try_it: &[],
        rules: "table inet ndp {\n set s { type ipv4_addr . inet_service; }\n}\n",
        breaks: "masquerading, host ports, isolation",
        option: "CONFIG_NF_TABLES_INET",
        vital: true,
    },
    Feature {
        name: "nftables, family bridge",
        try_it: &[],
        rules: "table bridge ndp {\n chain c { type filter hook prerouting priority 0; }\n}\n",
        breaks: "pods could send with others' addresses",
        option: "CONFIG_NF_TABLES_BRIDGE",
        vital: true,
    },
    Feature {
        name: "nftables, concatenations",
        try_it: &[],
        rules: "table inet ndpc {
 set s { type ipv4_addr . ipv4_addr; flags interval; elements = { 10.0.0.0/8 . 10.0.0.0/8 }; }
 map m { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
 chain c { type nat hook prerouting priority 0; dnat ip to ip daddr . meta l4proto . th dport map @m; }
}\n",
        breaks: "netd can't load its tables, and does not start",
        option: "CONFIG_NF_TABLES of Linux 5.6 or later, and the program nft of nftables 1.0.6 or later",
        vital: true,
    },
    Feature {
        name: "nftables, NAT",
        try_it: &[],
        rules: "table inet ndpn {\n chain c { type nat hook postrouting priority 100; masquerade; }\n}\n",
        breaks: "pods can't reach the outside, no host ports",
        option: "CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
        vital: true,
    },
    Feature {
        name: "nftables, fib",
        try_it: &[],
        rules: "table inet ndpf {\n chain c { type filter hook prerouting priority 0; fib daddr type local accept; }\n}\n",
        breaks: "host ports on the host's own addresses",
        option: "CONFIG_NFT_FIB_INET",
        vital: true,
    },
    Feature {
        name: "IPv6",
        try_it: &[&["ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo"]],
        rules: "",
        breaks: "IPv6 pools",
        option: "CONFIG_IPV6; not ipv6.disable=1 on the kernel's command line",
        vital: false,
    },
    Feature {
        name: "traffic shaping, tbf",
        try_it: &[&[
            "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "10kb",
            "latency", "50ms",
        ]],
        rules: "",
        breaks: "bandwidth limits to pods",
        option: "CONFIG_NET_SCH_TBF",
        vital: false,
    },
    Feature {
        name: "traffic shaping, ingress",
        try_it: &[&["tc", "qdisc", "add", "dev", "lo", "ingress"]],
        rules: "",
        breaks: "bandwidth limits from pods",
        option: "CONFIG_NET_SCH_INGRESS",
        vital: false,
    },
];

/// The result of trying one feature: on failure the program that failed, and why.
pub(crate) type Tried = Result<(), (&'static str, ExecError)>;

/// Tries each of [`FEATURES`], in their order. The error says why none could be tried.
pub(crate) fn try_all() -> Result<Vec<Tried>, &'static str> {
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok::<_, nix::Error>(FEATURES.iter().map(attempt).collect::<Vec<_>>())
    });
    match tried.join() {
        Ok(results) => results.map_err(nix::Error::desc),
        Err(_) => Err("the thread that tries them has panicked"),
    }
}

/// Every feature that could be tried: its name, whether the kernel has it, and if not,
/// what does not work. Runs `ip`, `nft` and `tc`; takes about 50 ms.
pub(crate) fn capabilities() -> Vec<(&'static str, bool, String)> {
    let results = try_all().unwrap_or_else(|reason| {
        tracing::warn!(reason, "cannot find out which features the kernel has");
        vec![]
    });
    let shown = |(feature, result): (&Feature, &Tried)| match result {
        Ok(()) => Some((feature.name, true, String::new())),
        // Unknown without the program; `netd doctor` says what to install.
        Err((_, ExecError::Missing)) => None,
        Err((_, ExecError::Failed(why))) => {
            let text = format!("{why}: {}; needs {}", feature.breaks, feature.option);
            Some((feature.name, false, text))
        }
    };
    let tried = FEATURES.iter().zip(&results).filter_map(shown);
    let modules = BACKENDS.iter().filter_map(|backend| {
        let there = backend.is_there()?;
        let text = format!("no such module: {}; needs {}", backend.breaks, backend.option);
        Some((backend.name, there, if there { String::new() } else { text }))
    });
    tried.chain(modules).collect()
}

/// Runs in the thread that has the namespace: its child processes are in it too.
fn attempt(feature: &Feature) -> Tried {
    for command in feature.try_it {
        let [program, args @ ..] = command else { continue };
        output(program, args, "").map_err(|e| (*program, e))?;
    }
    match feature.rules {
        "" => Ok(()),
        rules => output("nft", &["-f", "-"], rules).map(drop).map_err(|e| ("nft", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_a_name_each_and_a_reason_when_they_are_missing() {
        let all = capabilities();
        assert!(all.iter().all(|(name, there, why)| !name.is_empty() && *there == why.is_empty()));
        if nix::unistd::geteuid().is_root() {
            assert!(all.contains(&("veth pairs", true, String::new())), "{all:?}");
        }
    }
}
