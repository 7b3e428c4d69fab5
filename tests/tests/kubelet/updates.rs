//! netd's pods are replaced, end, or go, while other pods work.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{KubernetesCluster, case, joined, kubernetes::WebPod, wait};

use super::PODS;

/// How many answers a pod has to have had at least.
const REQUESTS: u32 = 2000;

/// So long a pod asks at most.
const MAX_SECONDS: u32 = 240;

/// So long an answer may take, in seconds: another pod's cluster may have the processors.
const ANSWERED_WITHIN: u32 = 3;

/// Asks the Service from a pod until its file /tmp/stop is there: how many answers it had in time,
/// and how many it had not.
fn ask_until_stopped(
    cluster: &KubernetesCluster,
    pod: &WebPod,
    service: &str,
) -> Result<(u32, u32)> {
    let ask = format!(
        "good=0; bad=0; end=$(($(date +%s) + {MAX_SECONDS}))
         while [ ! -e /tmp/stop ] || [ $((good + bad)) -lt {REQUESTS} ]; do
           if [ $(date +%s) -ge $end ]; then break; fi
           if timeout {ANSWERED_WITHIN} wget -qO /tmp/answer http://{service}/; then good=$((good + 1))
           else bad=$((bad + 1)); fi
         done; echo $good $bad"
    );
    let said = cluster.api.kubectl_unhurried(&["exec", &pod.name, "--", "sh", "-c", &ask])?;
    let (good, bad) = said.trim().split_once(' ').with_context(|| said.clone())?;
    Ok((good.parse()?, bad.parse()?))
}

/// What pods get from the Service while `work` is done: every answer, and many.
pub(crate) fn no_request_is_lost(
    cluster: &KubernetesCluster,
    pods: &[WebPod],
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let service = &cluster.web_service()?;
    let in_pod = |pod: &WebPod, script: &str| {
        cluster.api.kubectl(&["exec", &pod.name, "--", "sh", "-c", script]).map(drop)
    };
    pods.iter().try_for_each(|pod| in_pod(pod, "rm -f /tmp/stop"))?;
    thread::scope(|scope| {
        let ask = |pod| scope.spawn(move || ask_until_stopped(cluster, pod, service));
        let askers: Vec<_> = pods.iter().map(ask).collect();
        let done = work();
        let stopped: Vec<_> = pods.iter().map(|pod| in_pod(pod, ": > /tmp/stop")).collect();
        done?;
        stopped.into_iter().collect::<Result<()>>()?;
        for (asker, pod) in askers.into_iter().zip(pods) {
            let (good, bad) = joined(asker)?;
            eprintln!("{} on {}: {good} answers, {bad} lost", pod.name, pod.node);
            ensure!(bad == 0 && good >= REQUESTS, "{}: {good} answers, {bad} lost", pod.name);
        }
        Ok(())
    })
}

#[test]
fn a_rolling_update_and_the_end_of_netd_lose_no_request() -> Result<()> {
    case(|bed| {
        let cluster = KubernetesCluster::start(bed, 2)?;
        cluster.deploy_netd()?;
        cluster.deploy_web(4)?;
        let pods = cluster.web_pods(4, PODS)?;
        no_request_is_lost(&cluster, &pods[..2], || {
            cluster.api.kubectl(&["-n", "netd", "rollout", "restart", "daemonset", "netd"])?;
            cluster.wait_ready()
        })?;
        no_request_is_lost(&cluster, &pods[..2], || {
            cluster.api.kubectl(&["-n", "netd", "delete", "daemonset", "netd"])?;
            wait::until(PODS, "netd's pods are gone", || {
                let left = cluster.pods("netd", "app=netd")?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })?;
            // Its end alone changes nothing, not even later.
            wait::pause(Duration::from_secs(3));
            Ok(())
        })?;
        starts_late(&cluster)
    })
}

/// A pod that starts while there is no netd says why, and starts once there is one.
fn starts_late(cluster: &KubernetesCluster) -> Result<()> {
    cluster.scale_web(5)?;
    wait::until(PODS, "the pod's event names netd", || {
        let events = cluster.api.kubectl(&["get", "events", "-o", "custom-columns=M:.message"])?;
        let is_it = |line: &str| line.contains("netd") && line.contains("systemctl status netd");
        ensure!(events.lines().any(is_it), "{events}");
        Ok(())
    })?;
    cluster.deploy_netd()?;
    let pods = cluster.web_pods(5, PODS)?;
    cluster.all_pods_reach_each_other(&pods).map(drop)
}
