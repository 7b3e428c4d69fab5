//! What netd's account and its container may do, and what it says when that is not enough.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use testbed::{KubernetesCluster, case, wait};

use super::PODS;

/// Verbs and resources, as docs/kubernetes.md lists them.
const ALLOWED: [&str; 4] =
    ["events [create]", "nodes [get list watch]", "nodes/status [patch]", "pods [list watch]"];

#[test]
fn the_account_may_what_the_docs_say_and_a_missing_capability_is_named() -> Result<()> {
    case(|bed| {
        let cluster = KubernetesCluster::start(bed, 1)?;
        cluster.deploy_netd()?;
        account(&cluster)?;
        for capability in ["NET_ADMIN", "NET_RAW", "NET_BROADCAST", "SYS_ADMIN"] {
            without(&cluster, capability)?;
        }
        Ok(())
    })
}

fn account(cluster: &KubernetesCluster) -> Result<()> {
    let (netd, any) = (may(cluster, "netd:netd")?, may(cluster, "default:default")?);
    let found: BTreeSet<&str> = netd.difference(&any).map(String::as_str).collect();
    ensure!(found == BTreeSet::from(ALLOWED), "{found:?}");
    Ok(())
}

/// What an account may do with which resources.
fn may(cluster: &KubernetesCluster, account: &str) -> Result<BTreeSet<String>> {
    let account = format!("--as=system:serviceaccount:{account}");
    let listed = cluster.api.kubectl(&["auth", "can-i", "--list", &account])?;
    let rule = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let verbs = rest.rsplit_once('[')?.1;
        (!name.is_empty()).then(|| format!("{name} [{verbs}"))
    };
    Ok(listed.lines().skip(1).filter_map(rule).collect())
}

/// netd without one of its capabilities says which, in its log, and what it is for.
fn without(cluster: &KubernetesCluster, capability: &str) -> Result<()> {
    let manifest = KubernetesCluster::manifest()?;
    let less =
        manifest.replace(&format!("{capability}, "), "").replace(&format!(", {capability}]"), "]");
    ensure!(less != manifest, "the manifest has no {capability}");
    cluster.api.apply(&less)?;
    wait::until(PODS, &format!("netd without {capability} says so"), || {
        let said = cluster.api.kubectl(&["-n", "netd", "logs", "daemonset/netd", "-c", "netd"])?;
        ensure!(said.contains(&format!("CAP_{capability} is missing, without which")), "{said}");
        Ok(())
    })?;
    Ok(())
}
