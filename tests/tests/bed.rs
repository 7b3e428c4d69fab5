//! The bed itself, with the CNI plugins of Debian in netd's place: if these fail,
//! it is not netd's fault.

use anyhow::{Result, ensure};
use testbed::{
    Containerd, Version, case,
    cri::pod,
    net::probe::{self, Mirror},
};

const STOCK: &str = r#"{
  "cniVersion": "1.0.0", "name": "stock",
  "plugins": [{
    "type": "bridge", "bridge": "stock0", "isGateway": true, "ipMasq": false,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]], "dataDir": "DATA"}
  }]
}"#;

fn a_pod_comes_up_and_goes(version: Version) -> Result<()> {
    case(|bed| {
        let node = bed.host("node")?;
        let data = node.directory().join("ipam");
        Containerd::use_stock_plugins(&node, &STOCK.replace("DATA", &data.display().to_string()))?;
        let containerd = Containerd::start(&node, version)?;
        let cri = containerd.cri()?;
        let pod = cri.run_pod(pod("one"))?;
        let first = cri.run_container(&pod, "first", "httpd -f -p 8080 -h /etc")?;
        let second = cri.run_container(&pod, "second", "sleep 1000")?;
        let read = cri.exec(&second, "sleep 0.2; wget -qO- http://127.0.0.1:8080/passwd")?;
        ensure!(read.contains("root"), "localhost between containers: {read}");
        probe::ping(&node.net, pod.v4()?)?;
        ensure!(cri.exec(&first, "hostname")?.trim() == "one", "the pod has its name");
        cri.stop(&pod.id)?;
        cri.remove(&pod.id)?;
        ensure!(cri.pods()?.is_empty(), "the pod is gone");
        Ok(())
    })
}

#[test]
fn containerd_2_1_runs_a_pod_on_the_bed() -> Result<()> {
    a_pod_comes_up_and_goes(Version::V2_1)
}

#[test]
fn containerd_1_7_runs_a_pod_on_the_bed() -> Result<()> {
    a_pod_comes_up_and_goes(Version::V1_7)
}

#[test]
fn hosts_reach_each_other_over_the_underlay_in_both_families() -> Result<()> {
    case(|bed| {
        let (one, two) = (bed.host("one")?, bed.host("two")?);
        let mirror = Mirror::serve(&two.net, 7000)?;
        ensure!(probe::tcp(&one.net, two.v4.into(), mirror.port())? == one.v4);
        ensure!(probe::udp(&one.net, two.v4.into(), mirror.port())? == one.v4);
        ensure!(probe::tcp(&one.net, two.v6.into(), mirror.port())? == one.v6);
        ensure!(probe::udp(&one.net, two.v6.into(), mirror.port())? == one.v6);
        Ok(())
    })
}

#[test]
fn a_bed_leaves_nothing_behind() -> Result<()> {
    let mut directory = None;
    case(|bed| {
        directory = Some(bed.directory().to_owned());
        bed.host("one")?;
        Ok(())
    })?;
    let directory = directory.unwrap_or_default();
    ensure!(!directory.exists(), "{} is still there", directory.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&directory.display().to_string()), "mounts are left");
    Ok(())
}
