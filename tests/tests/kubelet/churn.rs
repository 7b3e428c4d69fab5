//! Pods come and go while netd, kubelet and containerd are killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{KubernetesCluster, case, scale, wait};

use super::no_address_twice;

/// kubelet may take a minute to notice that a pod's processes are gone, more with other work.
const WAVE: Duration = Duration::from_secs(180);

/// Three waves from none to `NETD_KUBELET_PODS` pods and back; in each, one of the three programs
/// is killed on every node as pods start, and again as they stop.
#[test]
fn killed_programs_leave_nothing_and_give_no_address_twice() -> Result<()> {
    let count: usize = scale("NETD_KUBELET_PODS", 20)?;
    case(|bed| {
        let mut cluster = KubernetesCluster::start(bed, 2)?;
        cluster.deploy_netd()?;
        cluster.deploy_web(0)?;
        let before = devices(&cluster)?;
        for victim in [Victim::Netd, Victim::Kubelet, Victim::Containerd] {
            let start = Instant::now();
            cluster.scale_web(count)?;
            wait::until(WAVE, "some pods run", || {
                let running = cluster.pods("default", "app=web")?;
                let some = running.iter().filter(|pod| pod["status"]["podIP"].is_string()).count();
                ensure!(some >= count / 4, "{some} of {count}");
                Ok(())
            })?;
            kill(&mut cluster, victim)?;
            let pods = cluster.web_pods(count, WAVE)?;
            no_address_twice(&pods)?;
            let up = start.elapsed();
            cluster.scale_web(0)?;
            wait::pause(Duration::from_secs(1));
            kill(&mut cluster, victim)?;
            cluster.web_pods(0, WAVE)?;
            nothing_left(&cluster, &before)?;
            eprintln!(
                "{victim:?}: {count} pods up in {up:.1?}, gone after {:.1?}",
                start.elapsed()
            );
        }
        Ok(())
    })
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Netd,
    Kubelet,
    Containerd,
}

fn kill(cluster: &mut KubernetesCluster, victim: Victim) -> Result<()> {
    cluster.nodes.iter_mut().try_for_each(|node| match victim {
        Victim::Netd => node.kill_netd(),
        Victim::Kubelet => node.restart_kubelet(),
        Victim::Containerd => node.containerd.kill9().and_then(|()| node.containerd.restart()),
    })
}

/// Devices of endpoints, and addresses, on every node.
fn devices(cluster: &KubernetesCluster) -> Result<Vec<String>> {
    cluster.nodes.iter().map(|node| node.host.net.sh("ip -br link | cut -d ' ' -f 1")).collect()
}

fn nothing_left(cluster: &KubernetesCluster, before: &[String]) -> Result<()> {
    wait::until(WAVE, "nothing is left of the pods", || {
        for node in &cluster.nodes {
            let endpoints = node.endpoints()?;
            ensure!(endpoints.is_empty(), "{}: {endpoints:?}", node.host.name);
        }
        let now = devices(cluster)?;
        ensure!(now == before, "{before:?} before, {now:?} now");
        Ok(())
    })?;
    Ok(())
}
