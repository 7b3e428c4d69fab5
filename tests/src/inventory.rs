//! What the kernel holds on a host, as text that can be compared.

use anyhow::Result;

use crate::host::Host;

/// Devices, addresses, routes, rules, permanent neighbours, queueing, nftables.
pub fn of(host: &Host) -> Result<String> {
    let text = host.net.sh("ip -o link show | sed 's/^[0-9]*: /link /; s/[:@].*//'
         ip -o -4 address show | sed 's/^[0-9]*: /address /; s/ *valid_lft.*//'
         ip -o -6 address show scope global | sed 's/^[0-9]*: /address /; s/ *valid_lft.*//'
         ip -4 route show table all | sed 's/^/route /'
         ip -6 route show table all | sed 's/^/route /'
         ip rule show | sed 's/^/rule /'
         ip -6 rule show | sed 's/^/rule /'
         ip neigh show nud permanent | sed 's/^/neighbour /'
         tc qdisc show | sed 's/^/qdisc /'
         nft --stateless list ruleset | sed 's/^/nft /'")?;
    let mut lines: Vec<String> = text.lines().filter_map(steady).collect();
    lines.sort();
    Ok(lines.join("\n"))
}

/// Leaves out what comes and goes with a bridge's carrier, which the first pod turns on.
fn steady(line: &str) -> Option<String> {
    let of_carrier = ["fe80::", "ff00::/8", "qdisc noqueue", "anycast"];
    if of_carrier.iter().any(|word| line.contains(word)) {
        return None;
    }
    let words = line.split_whitespace().filter(|word| !["linkdown", "dead"].contains(word));
    Some(words.collect::<Vec<_>>().join(" "))
}

/// What is in one and not in the other, a line each with `-` or `+`.
pub fn difference(before: &str, now: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_makes_no_difference_but_a_device_does() {
        assert_eq!(
            steady("route 10.88.0.0/16 dev cni0 proto kernel linkdown"),
            steady("route 10.88.0.0/16 dev cni0 proto kernel"),
        );
        assert_eq!(steady("route fe80::/64 dev cni0"), None);
        assert_eq!(
            difference("link cni0\nlink eth0", "link eth0\nlink x"),
            "- link cni0\n+ link x\n"
        );
    }
}
