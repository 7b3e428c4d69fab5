//! Pods of one family over an underlay of the other.

use anyhow::Result;
use testbed::{
    Cluster, Plan, case,
    cluster::{Families, reach},
};

use super::backend;

fn works(kind: &str, families: Families, v4: bool, mtu: u32) -> Result<()> {
    case(|bed| {
        let mut plan = Plan::new(families, backend(kind)).nodes(2);
        (plan.underlay_v4, plan.underlay_v6) = (v4, !v4);
        let cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        reach::all_pairs(&pods, families)?;
        reach::largest(&pods, mtu)
    })
}

#[test]
fn both_families_over_vxlan_over_ipv6() -> Result<()> {
    works("vxlan", Families::Dual, false, 1430)
}

#[test]
fn both_families_over_vxlan_over_ipv4() -> Result<()> {
    works("vxlan", Families::Dual, true, 1450)
}

#[test]
fn both_families_over_udp_over_ipv6() -> Result<()> {
    works("udp", Families::Dual, false, 1452)
}

#[test]
fn ipv4_over_wireguard_over_ipv6() -> Result<()> {
    works("wireguard", Families::V4, false, 1420)
}
