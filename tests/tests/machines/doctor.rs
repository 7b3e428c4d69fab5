//! Twenty ways to break a node, each found by `netd doctor` and named with its cure; before and
//! after, it finds nothing.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{
    Machine,
    machine::{Half, Size},
};

use super::{FUNCTIONS, STEP, on_each, share_packages, step};

/// One way to break a node.
struct Fault {
    /// Shell.
    breaks: &'static str,
    /// Shell; netd is ready afterwards.
    mends: &'static str,
    /// The check that finds it, and words of what it says.
    found: (&'static str, &'static str),
}

#[rustfmt::skip]
const FAULTS: [Fault; 20] = [
    // netd itself.
    Fault {
        breaks: "systemctl stop netd.service netd.socket netd-ttrpc.socket 2>&1",
        mends: "systemctl start netd.socket netd-ttrpc.socket netd",
        found: ("netd", "inactive (dead)"),
    },
    Fault {
        breaks: "systemctl kill -s STOP netd",
        mends: "systemctl kill -s CONT netd",
        found: ("netd", "does not answer"),
    },
    Fault {
        breaks: "echo 'no_such_key = 1' >> /etc/netd/netd.toml",
        mends: "sed -i /no_such_key/d /etc/netd/netd.toml",
        found: ("configuration", "no_such_key"),
    },
    Fault {
        breaks: "cp /etc/netd/netd.toml /tmp/k; printf '[[network]]\nname = \"x\"\n[[network.pool]]\nsubnet = \"10.0.2.0/24\"\n' >> /etc/netd/netd.toml",
        mends: "cp /tmp/k /etc/netd/netd.toml",
        found: ("addresses", "10.0.2.0/24"),
    },
    Fault {
        breaks: "mkdir -p /run/systemd/system/netd.service.d; printf '[Service]\nCapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_RAW CAP_SYS_ADMIN CAP_CHOWN CAP_DAC_OVERRIDE\n' > /run/systemd/system/netd.service.d/less.conf; systemctl daemon-reload; systemctl restart --no-block netd; sleep 5",
        mends: "rm -r /run/systemd/system/netd.service.d; systemctl daemon-reload; systemctl restart netd",
        found: ("netd", "CAP_NET_ADMIN"),
    },
    // The kernel's settings.
    Fault {
        breaks: "systemctl stop netd.service netd.socket netd-ttrpc.socket 2>&1; sysctl -qw net.ipv4.ip_forward=0",
        mends: "systemctl start netd.socket netd-ttrpc.socket netd",
        found: ("sysctls", "ip_forward = 0"),
    },
    Fault {
        breaks: "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        mends: "sysctl -qw net.ipv6.conf.all.disable_ipv6=0; systemctl restart systemd-networkd netd",
        found: ("sysctls", "disable_ipv6 = 1"),
    },
    Fault {
        breaks: "sysctl -qw net.ipv4.conf.all.route_localnet=1",
        mends: "sysctl -qw net.ipv4.conf.all.route_localnet=0",
        found: ("sysctls", "route_localnet = 1"),
    },
    Fault {
        breaks: "modprobe br_netfilter; sysctl -qw net.bridge.bridge-nf-call-iptables=1",
        mends: "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        found: ("sysctls", "bridge-nf-call-iptables = 1"),
    },
    // Other firewalls.
    Fault {
        breaks: "nft 'table inet fw { chain f { type filter hook forward priority 0; policy drop; }; }'",
        mends: "nft delete table inet fw",
        found: ("firewall", "chain f of"),
    },
    Fault {
        breaks: "iptables -P FORWARD DROP",
        mends: "iptables -P FORWARD ACCEPT",
        found: ("firewall", "FORWARD"),
    },
    Fault {
        breaks: "ip6tables -A FORWARD -j REJECT",
        mends: "ip6tables -F FORWARD",
        found: ("firewall", "FORWARD"),
    },
    Fault {
        breaks: "iptables-legacy -P FORWARD DROP",
        mends: "iptables-legacy -P FORWARD ACCEPT",
        found: ("firewall", "iptables"),
    },
    // The runtime.
    Fault {
        breaks: "mv /usr/lib/cni/netd-hook /root/",
        mends: "mv /root/netd-hook /usr/lib/cni/",
        found: ("cni", "netd-hook"),
    },
    Fault {
        breaks: "mv /usr/lib/cni/loopback /root/",
        mends: "mv /root/loopback /usr/lib/cni/",
        found: ("cni", "loopback"),
    },
    Fault {
        breaks: "mv /etc/cni/net.d/10-netd.conflist /root/",
        mends: "mv /root/10-netd.conflist /etc/cni/net.d/",
        found: ("cni", "names netd-hook"),
    },
    Fault {
        breaks: "printf '{\"cniVersion\":\"1.0.0\",\"name\":\"x\",\"plugins\":[{\"type\":\"bridge\"}]}' > /etc/cni/net.d/05-x.conflist",
        mends: "rm /etc/cni/net.d/05-x.conflist",
        found: ("cni", "05-x.conflist comes before"),
    },
    Fault {
        breaks: "echo '{' > /etc/cni/net.d/20-x.conflist",
        mends: "rm /etc/cni/net.d/20-x.conflist",
        found: ("cni", "20-x.conflist"),
    },
    Fault {
        breaks: "f=/etc/containerd/config.toml; if [ -e $f ]; then cp $f /tmp/ct; else : > /tmp/ct; fi; echo 'disabled_plugins = [\"cri\"]' > $f",
        mends: "cp /tmp/ct /etc/containerd/config.toml",
        found: ("containerd", "cri"),
    },
    // What others left behind.
    Fault {
        breaks: "ip link add ndabcdef012345 type veth peer name x",
        mends: "ip link delete ndabcdef012345",
        found: ("leftovers", "ndabcdef012345"),
    },
];

/// What `netd doctor` finds not to be well: the check and all that it says of it.
fn examine(machine: &mut Machine, script: &str) -> Result<Vec<(String, String)>> {
    let doctor = "netd doctor -o json > /tmp/doctor || true; cat /tmp/doctor";
    // Before `||` a script would go on after a command that failed.
    let script = format!(
        "{FUNCTIONS}\nset +e\n(set -e; {script}) >/tmp/said 2>&1
         [ $? = 0 ] || {{ cat /tmp/said; exit 1; }}\n{doctor}"
    );
    let report: Value = serde_json::from_str(&machine.run(&script, STEP)?)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let bad = findings.iter().filter(|finding| finding["severity"] != "ok");
    bad.map(|finding| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        ensure!(!text("breaks").is_empty() && !text("mend").is_empty(), "{finding}");
        Ok((text("check").to_owned(), format!("{} -> {}", text("what"), text("mend"))))
    })
    .collect()
}

#[test]
fn each_way_to_break_a_node_is_found_and_named_with_its_cure() -> Result<()> {
    on_each(Half::Long, Size::USUAL, |machine| {
        share_packages(machine)?;
        let start = "dpkg -i /share/netd.deb; start_netd; netd-hook install; add_pod a default";
        step(machine, "installing", start)?;
        let usual = examine(machine, "wait_ready")?;
        println!("without a fault: {usual:?}");
        // What Debian 12's containerd lacks is true of a healthy node too.
        let well = |(check, text): &(String, String)| check == "containerd" && text.contains("NRI");
        ensure!(usual.iter().all(well), "false alarms: {usual:?}");
        let mut wrong = String::new();
        for fault in FAULTS {
            let start = Instant::now();
            let found = examine(machine, fault.breaks)?;
            let (check, words) = fault.found;
            let mut new = found.iter().filter(|finding| !usual.contains(finding));
            if !new.any(|(name, text)| name == check && text.contains(words)) {
                writeln!(wrong, "{}\n  is not found: {found:?}", fault.breaks)?;
            }
            let after = examine(machine, &format!("{}; wait_ready", fault.mends))?;
            if after != usual {
                writeln!(wrong, "{}\n  leaves: {after:?}", fault.mends)?;
            }
            println!("{} ({:.0} s)\n  {found:?}", fault.breaks, start.elapsed().as_secs_f32());
        }
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(())
    })
}
