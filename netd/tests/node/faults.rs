//! Every commit fails once, devices are in the way: nothing is left over.

use netd::node::Error;
use netd_dataplane::DataplaneError;
use netd_domain::{PortMapping, Protocol};

use super::{
    audit::audit,
    bed::{Bed, key, spec},
    space::Space,
};

#[test]
fn a_store_that_fails_at_the_nth_commit_leaves_nothing_behind() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    for n in 0..4 {
        let key = key(&format!("s{n}"), "eth0");
        let mut spec = spec(&key, &pod, "default");
        let port = PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
        };
        spec.port_mappings.push(port);
        bed.faults.after(n, 2);
        let attached = netd.attach(spec.clone());
        assert_eq!(attached.is_err(), n == 0);
        // Tried again as a runtime does, until it works.
        while netd.detach(&key).is_err() {}
        netd.settle();
        bed.faults.none();
        assert!(audit(&bed, &netd).is_empty());
    }
}

#[test]
fn a_failed_attach_that_could_not_be_recorded_as_such_is_undone_later() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    pod.ip("link add eth0 type ifb");
    // The intent is recorded, its end is not.
    bed.faults.after(1, 3);
    let refused = netd.attach(spec(&key("s1", "eth0"), &pod, "default"));
    let taken =
        DataplaneError::InterfaceExists { ifname: "eth0".parse().unwrap(), place: "the sandbox" };
    assert_eq!(refused.unwrap_err().to_string(), Error::from(taken).to_string());
    netd.until("the endpoint is gone", |node| node.counts().endpoints == 0);
    audit(&bed, &netd);
    assert!(pod.ip("-d link show eth0").contains("ifb"));
}

#[test]
fn a_device_of_another_program_in_the_way_is_left_alone() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    for kind in ["ifb", "veth"] {
        let host = key.host_ifname();
        bed.host.ip(&format!("link add {host} type {kind}"));
        bed.host.ip(&format!("link set {host} up"));
        let refused = netd.attach(spec(&key, &pod, "default"));
        let exists = DataplaneError::InterfaceExists { ifname: host.clone(), place: "the host" };
        assert_eq!(refused.unwrap_err().to_string(), Error::from(exists).to_string());
        netd.settle();
        assert!(bed.host.ip(&format!("link show {host}")).contains("UP"), "{kind}");
        bed.host.ip(&format!("link del {host}"));
    }
    netd.attach(spec(&key, &pod, "default")).unwrap();
    assert_eq!(audit(&bed, &netd).len(), 1);
}

#[test]
fn a_failing_store_shows_and_its_recovery_clears_it_without_a_request() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    assert_eq!(netd.node.health().ready(), Ok(()));
    bed.faults.after(0, 2);
    netd.attach(spec(&key("s1", "eth0"), &pod, "default")).unwrap_err();
    let why = netd.node.health().ready().unwrap_err();
    assert!(why.contains("store") && why.contains("no space"), "{why}");
    netd.until("ready again", |node| node.health().ready().is_ok());
}

#[test]
fn a_pod_that_cant_be_attached_keeps_no_node_from_being_ready() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    let endpoint = netd.attach(spec(&key, &pod, "default")).unwrap();
    drop(netd);
    bed.host.ip(&format!("link del {}", endpoint.wiring.host_ifname));
    pod.ip("link add eth0 type ifb");
    let netd = bed.start();
    assert!(netd.attach(spec(&key, &pod, "default")).is_err());
    assert_eq!(netd.node.health().ready(), Ok(()));
    assert!(netd.node.health().problem("endpoint/s1/eth0").is_some());
    netd.detach(&key).unwrap();
    assert!(audit(&bed, &netd).is_empty());
    assert!(netd.node.health().problem("endpoint/s1/eth0").is_none());
}
