//! Whether the kernel can do what netd needs. Each feature is tried in a network
//! namespace of a thread's own, which is gone when the thread ends.

use nix::sched::{CloneFlags, unshare};

use super::{
    exec::{ExecError, output},
    finding::Finding,
};

const CHECK: &str = "kernel";

/// A feature, how to try it, and what its absence breaks.
struct Feature {
    name: &'static str,
    try_it: &'static [&'static [&'static str]],
    /// Fed to `nft -f -` after that.
    rules: &'static str,
    breaks: &'static str,
    option: &'static str,
    /// Pods have no network without it.
    vital: bool,
}

const FEATURES: [Feature; 9] = [
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

pub(super) fn check() -> Vec<Finding> {
    match try_all() {
        Ok(results) => judge(&results),
        Err(reason) => vec![untried(reason)],
    }
}

/// What came of trying a feature: the program that failed, and how.
type Tried = Result<(), (&'static str, ExecError)>;

/// What came of trying each of [`FEATURES`]; or why none could be tried.
fn try_all() -> Result<Vec<Tried>, &'static str> {
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok::<_, nix::Error>(FEATURES.iter().map(attempt).collect::<Vec<_>>())
    });
    match tried.join() {
        Ok(results) => results.map_err(nix::Error::desc),
        Err(_) => Err("the trying thread broke off"),
    }
}

/// Every feature that could be tried: its name, whether it is there, and what follows.
/// Runs `ip`, `nft` and `tc`; takes some 50 ms.
pub fn capabilities() -> Vec<(&'static str, bool, String)> {
    let results = try_all().unwrap_or_else(|reason| {
        tracing::warn!(reason, "the kernel's features can't be tried");
        vec![]
    });
    let shown = |(feature, result): (&Feature, &Result<(), (&str, ExecError)>)| match result {
        Ok(()) => Some((feature.name, true, String::new())),
        // Not known: `netd doctor` says what to install.
        Err((_, ExecError::Missing)) => None,
        Err((_, ExecError::Failed(why))) => {
            let text = format!("{why}: {}; needs {}", feature.breaks, feature.option);
            Some((feature.name, false, text))
        }
    };
    FEATURES.iter().zip(&results).filter_map(shown).collect()
}

fn untried(reason: &str) -> Finding {
    Finding::warn(CHECK, format!("no network namespace to try features in: {reason}"))
        .breaks("nothing by itself: it is not known what this kernel can do")
        .mend("run netd doctor as root")
}

/// Children of this thread are in its namespace.
fn attempt(feature: &Feature) -> Result<(), (&'static str, ExecError)> {
    for command in feature.try_it {
        let [program, args @ ..] = command else { continue };
        output(program, args, "").map_err(|e| (*program, e))?;
    }
    match feature.rules {
        "" => Ok(()),
        rules => output("nft", &["-f", "-"], rules).map(drop).map_err(|e| ("nft", e)),
    }
}

fn judge(results: &[Result<(), (&'static str, ExecError)>]) -> Vec<Finding> {
    let mut found = vec![];
    let mut works = vec![];
    let mut tools: Vec<&str> = vec![];
    for (feature, result) in FEATURES.iter().zip(results) {
        match result {
            Ok(()) => works.push(feature.name),
            Err((program, ExecError::Missing)) if tools.contains(program) => {}
            Err((program, ExecError::Missing)) => tools.push(program),
            Err((_, ExecError::Failed(reason))) => found.push(refused(feature, reason)),
        }
    }
    found.extend(tools.iter().map(|program| missing(program)));
    if !works.is_empty() {
        found.insert(0, Finding::ok(CHECK, format!("works: {}", works.join("; "))));
    }
    found
}

fn refused(feature: &Feature, reason: &str) -> Finding {
    let what = format!("no {}: {reason}", feature.name);
    let found = if feature.vital { Finding::fail(CHECK, what) } else { Finding::warn(CHECK, what) };
    found
        .breaks(feature.breaks)
        .mend(format!("use a kernel with {}, or load its module", feature.option))
}

fn missing(program: &str) -> Finding {
    if program == "nft" {
        return Finding::fail(CHECK, "the program nft is not installed")
            .breaks("netd loads its nftables table with it at start, and does not start without")
            .mend("apt-get install nftables");
    }
    Finding::warn(CHECK, format!("the program {program} is not installed"))
        .breaks("nothing by itself: some kernel features could not be tried")
        .mend("apt-get install iproute2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_missing_nft_fails_once_and_a_missing_ip_only_warns() {
        let results: Vec<_> = FEATURES
            .iter()
            .map(|f| {
                let program = f.try_it.first().map_or("nft", |c| c[0]);
                if program == "tc" { Ok(()) } else { Err((program, ExecError::Missing)) }
            })
            .collect();
        let found = judge(&results);
        let fails: Vec<_> = found.iter().filter(|f| f.severity == Severity::Fail).collect();
        assert!(fails.len() == 1 && fails[0].mend.contains("nftables"), "{found:?}");
        assert!(found.iter().any(|f| f.what.contains("program ip ")), "{found:?}");
    }

    #[test]
    fn a_refused_feature_is_as_bad_as_what_it_breaks() {
        let refused = |name: &str| {
            let results: Vec<_> = FEATURES
                .iter()
                .map(|f| match f.name == name {
                    true => Err(("ip", ExecError::Failed("Operation not supported".into()))),
                    false => Ok(()),
                })
                .collect();
            judge(&results).remove(1).severity
        };
        assert_eq!(refused("veth pairs"), Severity::Fail);
        assert_eq!(refused("IPv6"), Severity::Warn);
    }

    #[test]
    fn capabilities_have_a_name_each_and_a_reason_when_they_are_missing() {
        let all = capabilities();
        assert!(all.iter().all(|(name, there, why)| !name.is_empty() && *there == why.is_empty()));
        if nix::unistd::geteuid().is_root() {
            assert!(all.contains(&("veth pairs", true, String::new())), "{all:?}");
        }
    }

    #[test]
    fn the_check_says_something_with_and_without_root() {
        let found = check();
        assert!(found.iter().all(|f| f.check == CHECK && !f.what.is_empty()), "{found:?}");
        assert!(!found.is_empty());
        if nix::unistd::geteuid().is_root() {
            // Every feature works here; a typing error in a rule would look like a gap.
            assert!(found.len() == 1 && found[0].what.contains("nftables, fib"), "{found:?}");
        }
    }
}
