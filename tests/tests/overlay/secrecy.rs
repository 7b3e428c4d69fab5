//! What a listener on the underlay can read of pods' packets.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{Cluster, Plan, case, cluster::Families, net::raw::Raw};

use super::backend;

/// What pods send, and its hexadecimal digits for ping.
const WORDS: &[u8] = b"netd-plaintext";
const DIGITS: &str = "6e6574642d706c61696e74657874";

/// Whether the words are seen on a node's plug in the underlay while pods ping each other.
fn is_read(kind: &str) -> Result<bool> {
    let mut read = false;
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend(kind)).nodes(2))?;
        let pods = cluster.pods()?;
        let (from, to) = pods.first().zip(pods.last()).context("no pods")?;
        let tap = Raw::open(&cluster.nodes[0].host.net, "eth0")?;
        let holds = |frame: &[u8]| frame.windows(WORDS.len()).any(|part| part == WORDS);
        let pings = || -> Result<()> {
            for ip in &to.ips {
                from.net.sh(&format!("ping -n -c 3 -i 0.05 -s 200 -p {DIGITS} {ip}"))?;
            }
            Ok(())
        };
        let (seen, pinged) = thread::scope(|scope| {
            let listening = scope.spawn(|| tap.receive(Duration::from_secs(2), holds).is_some());
            let pinged = pings();
            (listening.join().unwrap_or(true), pinged)
        });
        pinged?;
        read = seen;
        Ok(())
    })?;
    Ok(read)
}

#[test]
fn wireguard_lets_no_plaintext_out() -> Result<()> {
    ensure!(!is_read("wireguard")?, "the pods' words were read on the underlay");
    Ok(())
}

/// That the words would be seen if they were there.
#[test]
fn vxlan_hides_nothing() -> Result<()> {
    ensure!(is_read("vxlan")?, "nothing was seen: the test above says nothing");
    Ok(())
}
