//! Containers of a real dockerd, 20.10.24 and 28.5.2, get their network from netd (CNM).
//!
//! dockerd takes seconds to start, so one serves all cases of a version, one after the
//! other; after each, nothing may be left.

mod churn;
mod hostile;
mod ipam;
mod networks;
mod nodes;
mod order;
mod ports;
mod stack;

use anyhow::{Context as _, Result};
use stack::Stack;
use testbed::{DockerVersion, case};

type Case = (&'static str, fn(&mut Stack) -> Result<()>);

const CASES: &[Case] = &[
    ("the flags of network create are in the container", networks::flags),
    ("a network is shared with pods", networks::shared_with_pods),
    ("a container has the families that Docker asked for", networks::families_asked_for),
    ("netd assigns addresses of Docker's own drivers' networks", ipam::of_other_drivers),
    ("a subnet has one owner", ipam::one_owner),
    ("a routed network", networks::routed),
    ("wrong wishes are refused", networks::refusals),
    ("connect and disconnect", networks::connect_and_disconnect),
    ("host ports", ports::host_ports),
    ("ports and ranges that Docker may choose", ports::chosen_ports),
    ("namespaces and restarts of containers", order::pause_and_restarts),
    ("drift is mended", order::drift),
    ("netd is restarted and away", order::netd_away),
    ("dockerd is killed", order::dockerd_killed),
    ("containers come and go while all are killed", churn::kills),
];

fn all(version: DockerVersion) -> Result<()> {
    case(|bed| {
        let mut stack = Stack::start(bed, version)?;
        for (name, case) in CASES {
            let start = std::time::Instant::now();
            case(&mut stack).context(*name)?;
            stack.nothing_left().with_context(|| format!("after: {name}"))?;
            eprintln!("{version:?}: {name}: {:.1} s", start.elapsed().as_secs_f64());
        }
        Ok(())
    })
}

#[test]
fn docker_20_10() -> Result<()> {
    all(DockerVersion::V20_10)
}

#[test]
fn docker_28_5() -> Result<()> {
    all(DockerVersion::V28_5)
}
