//! Pods of a real containerd, 2.1.9 and 1.7.24, get their network from netd.

use std::{env, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    DaemonConfig, Stack, Version, case,
    cri::{self, Cri, Pod, v1},
    net::probe::{self, Mirror},
    wait,
};

testbed::on_both!(
    a_pod_has_an_address_of_each_family,
    two_containers_of_a_pod_share_the_namespace,
    pods_reach_each_other_and_the_host_in_both_families,
    a_host_port_leads_to_the_pod,
    nothing_is_left_after_stop_and_remove,
    labels_reach_netd_over_nri,
    an_annotation_brings_a_second_interface_over_nri,
    the_routed_driver_serves_pods_too,
);

fn stack(version: Version, test: impl FnOnce(&mut Stack, &Cri) -> Result<()>) -> Result<()> {
    stack_with(version, &DaemonConfig::default(), test)
}

fn stack_with(
    version: Version,
    config: &DaemonConfig,
    test: impl FnOnce(&mut Stack, &Cri) -> Result<()>,
) -> Result<()> {
    case(|bed| {
        let mut stack = Stack::start(bed, version, config)?;
        let cri = stack.cri()?;
        test(&mut stack, &cri)
    })
}

fn within(ip: IpAddr, v4: [u8; 2], v6: [u16; 2]) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&v4),
        IpAddr::V6(ip) => ip.segments().starts_with(&v6),
    }
}

fn a_pod_has_an_address_of_each_family(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let pod = cri.run_pod(cri::pod("one"))?;
        ensure!(pod.ips.len() == 2, "the status has {:?}", pod.ips);
        for ip in [pod.v4()?, pod.v6()?] {
            ensure!(within(ip, [10, 88], [0xfd00, 0x88]), "{ip} is of no pool");
            let shown = pod.net().sh("ip -o address show dev eth0")?;
            ensure!(shown.contains(&format!(" {ip}/")), "{ip} is not on eth0: {shown}");
            ensure!(!shown.contains("tentative"), "{shown}");
        }
        let endpoints = stack.netd.endpoints()?;
        ensure!(endpoints.len() == 1, "{endpoints:?}");
        let endpoint = endpoints.first().context("an endpoint")?;
        ensure!(endpoint.sandbox_id == pod.id && endpoint.interface == "eth0", "{endpoint:?}");
        let identity = endpoint.pod.clone().unwrap_or_default();
        ensure!(identity.namespace == "test" && identity.name == "one", "{identity:?}");
        Ok(())
    })
}

fn two_containers_of_a_pod_share_the_namespace(version: Version) -> Result<()> {
    stack(version, |_, cri| {
        let pod = cri.run_pod(cri::pod("one"))?;
        let first = cri.run_container(&pod, "first", "httpd -f -p 8080 -h /etc")?;
        let second = cri.run_container(&pod, "second", "sleep 1000")?;
        for address in ["127.0.0.1", "[::1]"] {
            let script = format!("wget -qO- http://{address}:8080/passwd");
            let get = || cri.exec(&second, &script);
            let (page, _) = wait::until(Duration::from_secs(5), "localhost", get)?;
            ensure!(page.contains("root:"), "{page}");
        }
        let addresses = "ip -o address show dev eth0";
        let (one, two) = (cri.exec(&first, addresses)?, cri.exec(&second, addresses)?);
        ensure!(one == two && one.contains(&pod.v4()?.to_string()), "{one}{two}");
        Ok(())
    })
}

fn pods_reach_each_other_and_the_host_in_both_families(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let (one, two) = (cri.run_pod(cri::pod("one"))?, cri.run_pod(cri::pod("two"))?);
        let _two = Mirror::serve(&two.net(), 7000)?;
        let _host = Mirror::serve(&stack.host.net, 7001)?;
        for (own, other) in [(one.v4()?, two.v4()?), (one.v6()?, two.v6()?)] {
            ensure!(probe::tcp(&one.net(), other, 7000)? == own, "pod to pod keeps the source");
            ensure!(probe::udp(&one.net(), other, 7000)? == own);
            probe::tcp(&stack.host.net, other, 7000).context("host to pod")?;
        }
        for (own, host) in [(one.v4()?, stack.host.v4.into()), (one.v6()?, stack.host.v6.into())] {
            ensure!(probe::tcp(&one.net(), host, 7001)? == own, "pod to its host keeps the source");
        }
        Ok(())
    })
}

fn with_port(name: &str) -> cri::PodConfig {
    let mut config = cri::pod(name);
    config.port_mappings =
        vec![cri::port(v1::Protocol::Tcp, 8080, 7000), cri::port(v1::Protocol::Udp, 8080, 7000)];
    config
}

fn a_host_port_leads_to_the_pod(version: Version) -> Result<()> {
    case(|bed| {
        let stack = Stack::start(bed, version, &DaemonConfig::default())?;
        let outside = bed.host("outside")?;
        let pod = stack.cri()?.run_pod(with_port("one"))?;
        let _mirror = Mirror::serve(&pod.net(), 7000)?;
        for (client, host) in [
            (IpAddr::from(outside.v4), IpAddr::from(stack.host.v4)),
            (outside.v6.into(), stack.host.v6.into()),
        ] {
            ensure!(probe::tcp(&outside.net, host, 8080)? == client, "the client stays visible");
            ensure!(probe::udp(&outside.net, host, 8080)? == client);
        }
        Ok(())
    })
}

fn nothing_is_left_after_stop_and_remove(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let pods: Vec<Pod> =
            ["one", "two"].iter().map(|name| cri.run_pod(cri::pod(name))).collect::<Result<_>>()?;
        let third = cri.run_pod(with_port("three"))?;
        cri.run_container(&third, "main", "sleep 1000")?;
        ensure!(stack.netd.endpoints()?.len() == 3);
        for pod in pods.iter().chain([&third]) {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        stack.check_nothing_left()
    })
}

/// CNI has no labels: those in the record came over NRI.
fn labels_reach_netd_over_nri(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let mut config = cri::pod("one");
        config.labels = [("app".to_owned(), "shop".to_owned())].into();
        cri.run_pod(config)?;
        let netd = &stack.netd;
        wait::until(Duration::from_secs(2), "the label", || {
            let endpoints = netd.endpoints()?;
            let labels = &endpoints.first().context("no endpoint")?.labels;
            ensure!(labels.get("app").is_some_and(|app| app == "shop"), "{labels:?}");
            Ok(())
        })?;
        stack.nri.check_alive()
    })
}

fn an_annotation_brings_a_second_interface_over_nri(version: Version) -> Result<()> {
    let config =
        DaemonConfig::default().and_network("blue", "bridge", &["10.77.0.0/24", "fd00:77::/64"]);
    stack_with(version, &config, |stack, cri| {
        let run = |name: &str| {
            let mut config = cri::pod(name);
            config.annotations = [("netd.io/networks".to_owned(), "blue".to_owned())].into();
            cri.run_pod(config)
        };
        let (one, two) = (run("one")?, run("two")?);
        let second = |pod: &Pod| -> Result<IpAddr> {
            let shown = pod.net().sh("ip -o -4 address show dev eth1")?;
            let address = shown.split_whitespace().nth(3).context("eth1 has no address")?;
            Ok(address.split('/').next().unwrap_or_default().parse()?)
        };
        let (from, to) = (second(&one)?, second(&two)?);
        ensure!(within(from, [10, 77], [0, 0]) && from != to, "{from} {to}");
        let _mirror = Mirror::serve(&two.net(), 7000)?;
        ensure!(probe::tcp(&one.net(), to, 7000)? == from, "over the second network");
        let default = one.net().sh("ip route show default")?;
        ensure!(default.contains("dev eth0") && !default.contains("eth1"), "{default}");
        for pod in [&one, &two] {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        stack.check_nothing_left()
    })
}

fn the_routed_driver_serves_pods_too(version: Version) -> Result<()> {
    stack_with(version, &DaemonConfig::with_driver("routed"), |stack, cri| {
        let (one, two) = (cri.run_pod(cri::pod("one"))?, cri.run_pod(with_port("two"))?);
        let _mirror = Mirror::serve(&two.net(), 7000)?;
        for (own, other) in [(one.v4()?, two.v4()?), (one.v6()?, two.v6()?)] {
            ensure!(probe::tcp(&one.net(), other, 7000)? == own);
            probe::tcp(&stack.host.net, other, 7000).context("host to pod")?;
        }
        for pod in [&one, &two] {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        stack.check_nothing_left()
    })
}

/// Pods of the containerd and the netd that packages installed on this machine, which
/// `NETD_TEST_CRI` names by containerd's socket (tests/tests/machines/runtimes.rs).
#[test]
fn pods_of_the_machines_own_containerd() -> Result<()> {
    let Some(socket) = env::var_os("NETD_TEST_CRI") else {
        println!("left out: NETD_TEST_CRI is not set");
        return Ok(());
    };
    let cri = Cri::connect(Path::new(&socket))?;
    println!("containerd {}", cri.version()?);
    wait::until(Duration::from_secs(10), "containerd's network", || cri.network_ready())?;
    let (one, two) = (cri.run_pod(with_port("one"))?, cri.run_pod(cri::pod("two"))?);
    for (pod, other) in [(&one, &two), (&two, &one)] {
        let _other = Mirror::serve(&other.net(), 7000)?;
        for (own, there) in [(pod.v4()?, other.v4()?), (pod.v6()?, other.v6()?)] {
            ensure!(probe::tcp(&pod.net(), there, 7000)? == own, "pod to pod keeps the source");
        }
    }
    let first = cri.run_container(&one, "first", "httpd -f -p 7000 -h /etc")?;
    let second = cri.run_container(&one, "second", "sleep 1000")?;
    let get = || cri.exec(&second, "wget -qO- http://127.0.0.1:7000/passwd");
    wait::until(Duration::from_secs(10), "the other container on localhost", get)?;
    // The node's own address and its port.
    let gateway = cri.exec(&first, "ip route | sed -n 's/default via //p' | cut -d ' ' -f 1")?;
    let gateway = gateway.trim();
    let third = cri.run_container(&two, "third", "sleep 1000")?;
    let page = cri.exec(&third, &format!("wget -qO- http://{gateway}:8080/passwd"))?;
    ensure!(page.contains("root:"), "{page}");
    for pod in [&one, &two] {
        cri.stop(&pod.id)?;
        cri.remove(&pod.id)?;
    }
    ensure!(cri.pods()?.is_empty(), "pods are left");
    Ok(())
}
