//! Real containerds on each node, their pods on one overlay.

use anyhow::{Result, ensure};
use testbed::{
    Cluster, Containerd, Plan, Version, case,
    cluster::Families,
    cri::{self, Pod},
    net::probe,
    wait,
};

use super::{SOON, backend};

#[test]
fn pods_of_two_containerds_reach_each_other_and_are_known_by_name() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")).nodes(2))?;
        let [first, second] = &cluster.nodes[..] else { return Ok(()) };
        let runtimes = [
            Containerd::with_hook(&first.host, Version::V2_1)?,
            Containerd::with_hook(&second.host, Version::V1_7)?,
        ];
        let pods: Vec<Pod> = runtimes
            .iter()
            .zip(["one", "two"])
            .map(|((_, cri), name)| cri.run_pod(cri::pod(name)))
            .collect::<Result<_>>()?;
        let [one, two] = &pods[..] else { return Ok(()) };
        let cri = &runtimes[0].1;
        cri.run_container(
            one,
            "server",
            "echo hello > /www/index.html; exec httpd -f -p 8080 -h /www",
        )?;
        let client = runtimes[1].1.run_container(two, "client", "sleep 1000")?;
        for ip in &one.ips {
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            let script = format!("wget -qO- http://{host}:8080/");
            let page = wait::until(SOON, "the page", || runtimes[1].1.exec(&client, &script))?.0;
            ensure!(page.trim() == "hello", "{page}");
            probe::ping(&two.net(), *ip)?;
        }
        wait::until(SOON, "the pod is known by name", || {
            let route = second.route(one.v4()?)?;
            let name = route.endpoint.as_ref().map(|e| e.pod_name.as_str());
            ensure!(name == Some("one"), "{route:?}");
            Ok(())
        })?;
        for ((_, cri), pod) in runtimes.iter().zip(&pods) {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        wait::until(SOON, "nothing is left in etcd", || {
            let keys = cluster.keys("/netd/v1/endpoints/")?;
            ensure!(keys.is_empty(), "{keys:?}");
            Ok(())
        })?;
        Ok(())
    })
}
