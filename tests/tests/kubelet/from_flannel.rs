//! kube-flannel's DaemonSet goes and netd's comes, while pods work.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{Bed, Containerd, KubeNode, KubernetesCluster, case, cluster::flannel, wait};

use super::{PODS, no_address_twice, updates::no_request_is_lost};

/// What kube-flannel leaves on a node once its DaemonSet is gone: devices, routes, annotations, the
/// plugins' conflist.
struct Left {
    cidr: String,
    mac: String,
}

fn flannel_was_here(cluster: &KubernetesCluster, node: &KubeNode) -> Result<Left> {
    let (host, name) = (&node.host, &node.host.name);
    let cidr = cluster.api.node(name)?["spec"]["podCIDR"].clone();
    let cidr = cidr.as_str().context("no podCIDR")?.to_owned();
    let first = cidr.split('/').next().context("no address")?;
    // kube-flannel's nodes need it.
    host.net.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1")?;
    flannel::device(host, first.parse()?)?;
    let mac = flannel::mac_of(host)?;
    let data = json!({"VNI": 1, "VtepMAC": mac}).to_string();
    let said = flannel::annotations("vxlan", &data, &host.v4.to_string());
    let said = json!({ "metadata": { "annotations": said } });
    cluster.api.patch_node(name, &said)?;
    let plugins = Containerd::cni_plugins_of(host);
    for plugin in ["bridge", "host-local", "portmap"] {
        symlink(format!("/usr/lib/cni/{plugin}"), plugins.join(plugin))?;
    }
    let ipam = json!({
        "type": "host-local", "ranges": [[{"subnet": cidr}]],
        "routes": [{"dst": "10.244.0.0/16"}],
    });
    let conflist = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "bridge", "bridge": "cni0", "mtu": 1450, "isDefaultGateway": true,
         "hairpinMode": true, "ipMasq": false, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let path = Containerd::cni_config_of(host).join("10-flannel.conflist");
    fs::write(path, conflist.to_string())?;
    Ok(Left { cidr, mac })
}

/// Two nodes of kube-flannel's that know each other, and what was left on the first.
fn flannels_cluster(bed: &Bed) -> Result<(KubernetesCluster, Left)> {
    let cluster = KubernetesCluster::start(bed, 2)?;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let (of_a, of_b) = (flannel_was_here(&cluster, a)?, flannel_was_here(&cluster, b)?);
    for (node, other, left) in [(a, b, &of_b), (b, a, &of_a)] {
        let public = other.host.v4.to_string();
        flannel::program(&node.host, "flannel.1", &left.cidr, &public, &left.mac)?;
    }
    Ok((cluster, of_a))
}

#[test]
fn a_cluster_of_kube_flannels_goes_over_under_requests() -> Result<()> {
    case(|bed| {
        let (cluster, of_a) = flannels_cluster(bed)?;
        let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
        cluster.deploy_web(4)?;
        let old = cluster.web_pods(4, PODS)?;
        cluster.all_pods_reach_each_other(&old)?;
        let before = ["n1", "n2"].map(|name| cluster.api.annotations(name));
        no_request_is_lost(&cluster, &old[..2], || cluster.deploy_netd())?;
        let after = ["n1", "n2"].map(|name| cluster.api.annotations(name));
        for (before, after) in before.into_iter().zip(after) {
            let (before, after) = (before?, after?);
            ensure!(before == after, "{before:?} became {after:?}");
        }
        ensure!(flannel::mac_of(&a.host)? == of_a.mac, "the VTEP has another MAC");
        cluster.scale_web(8)?;
        let all = cluster.web_pods(8, PODS)?;
        no_address_twice(&all)?;
        for pod in &old {
            let kept = all.iter().any(|now| now.name == pod.name && now.ip == pod.ip);
            ensure!(kept, "{pod:?} is another");
        }
        cluster.all_pods_reach_each_other(&all)?;
        let by_netd = a.endpoints()?.len() + b.endpoints()?.len();
        ensure!(by_netd == 4, "{by_netd} of the new pods are netd's");
        // The old pods' DEL comes to netd's plugin, which frees host-local's addresses, too.
        cluster.scale_web(0)?;
        cluster.web_pods(0, PODS)?;
        wait::until(PODS, "all addresses are free", || {
            for node in [a, b] {
                let left = node.sh("ls /var/lib/cni/networks/cbr0 | grep ^10 || true")?;
                ensure!(node.endpoints()?.is_empty() && left.is_empty(), "host-local: {left}");
            }
            Ok(())
        })?;
        Ok(())
    })
}

/// docs/kubernetes.md, "Update and removal": a node goes back to kube-flannel's conflist while the
/// other one stays netd's.
#[test]
fn a_node_goes_back_to_kube_flannel() -> Result<()> {
    case(|bed| {
        let (cluster, _) = flannels_cluster(bed)?;
        let a = &cluster.nodes[0];
        cluster.deploy_netd()?;
        cluster.deploy_web(4)?;
        cluster.web_pods(4, PODS)?;
        let kubectl = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            cluster.api.kubectl_unhurried(&words)
        };
        kubectl("drain n1 --ignore-daemonsets --delete-emptydir-data")?;
        kubectl("taint nodes n1 netd=leaves:NoExecute")?;
        wait::until(PODS, "the node has no pods of netd's", || {
            let left = a.endpoints()?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })?;
        a.sh("rm /etc/cni/net.d/00-netd.conflist")?;
        kubectl("label node n2 netd=yes")?;
        let only_n2 = r#"{"spec":{"template":{"spec":{"nodeSelector":{"netd":"yes"}}}}}"#;
        cluster.api.kubectl(&["-n", "netd", "patch", "daemonset", "netd", "-p", only_n2])?;
        wait::until(PODS, "netd has left the node", || {
            let pods = cluster.pods("netd", "app=netd")?;
            ensure!(pods.iter().all(|pod| pod["spec"]["nodeName"] == "n2"), "{pods:?}");
            ensure!(pods.len() == 1 && a.endpoints().is_err());
            Ok(())
        })?;
        kubectl("taint nodes n1 netd-")?;
        kubectl("uncordon n1")?;
        cluster.scale_web(10)?;
        let pods = cluster.web_pods(10, PODS)?;
        no_address_twice(&pods)?;
        let given = a.sh("ls /var/lib/cni/networks/cbr0 | grep -c ^10")?;
        ensure!(given.trim() != "0", "no pod of n1 is of flannel's conflist: {pods:?}");
        cluster.all_pods_reach_each_other(&pods).map(drop)
    })
}
