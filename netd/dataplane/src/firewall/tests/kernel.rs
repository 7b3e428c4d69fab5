//! What the kernel makes of text and elements.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    samples::{bridged, crowd, mixed, port},
    testbed::{Netns, is_root},
};
use crate::{
    DataplaneError,
    firewall::{Firewall, FirewallSettings, FirewallState, elements, transaction},
};
use netd_domain::Protocol;

fn firewall() -> Firewall {
    Firewall::new(FirewallSettings::default()).unwrap()
}

#[test]
fn elements_by_netlink_are_the_same_as_by_text() {
    if !is_root() {
        return;
    }
    let (by_text, by_netlink) = (Netns::new(), Netns::new());
    by_text.run(|| firewall().replace(&mixed()).unwrap());
    by_netlink.run(|| {
        let (mut firewall, state) = (firewall(), mixed());
        let empty = FirewallState { endpoints: vec![], ..state.clone() };
        firewall.replace(&empty).unwrap();
        for endpoint in &state.endpoints {
            firewall.add_endpoint(endpoint).unwrap();
        }
        assert!(firewall.intact(&state).unwrap());
    });
    let list =
        "nft -s list table inet netd; nft -s list table bridge netd; nft list table arp netd";
    let (text, netlink) = (by_text.sh(list), by_netlink.sh(list));
    assert!(text.contains("127.0.0.1 . udp . 53 : 10.88.0.5 . 5353"), "{text}");
    assert_eq!(sorted(&text), sorted(&netlink));
}

/// Hashed sets are listed in no particular order.
fn sorted(list: &str) -> Vec<&str> {
    let mut words: Vec<&str> = list.split([',', '\n', '{', '}', '=']).map(str::trim).collect();
    words.sort_unstable();
    words
}

#[test]
fn adding_and_removing_again_changes_nothing() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let (mut firewall, state) = (firewall(), mixed());
        let empty = FirewallState { endpoints: vec![], ..state.clone() };
        firewall.replace(&empty).unwrap();
        for endpoint in &state.endpoints {
            firewall.remove_endpoint(endpoint).unwrap();
            firewall.add_endpoint(endpoint).unwrap();
            firewall.add_endpoint(endpoint).unwrap();
        }
        assert!(firewall.intact(&state).unwrap());
        for endpoint in &state.endpoints {
            firewall.remove_endpoint(endpoint).unwrap();
            firewall.remove_endpoint(endpoint).unwrap();
        }
        assert!(firewall.intact(&empty).unwrap());
    });
}

#[test]
fn kernels_without_destroy_remove_what_is_there_and_what_is_not() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let (mut firewall, state) = (firewall(), mixed());
        firewall.replace(&state).unwrap();
        let all: Vec<_> = state.endpoints.iter().flat_map(|e| elements::of_endpoint(e)).collect();
        transaction::remove_by_delete(&mut firewall.socket, &all).unwrap();
        let empty = FirewallState { endpoints: vec![], ..state };
        assert!(firewall.intact(&empty).unwrap());
        transaction::remove_by_delete(&mut firewall.socket, &all).unwrap();
        assert!(firewall.intact(&empty).unwrap());
    });
}

#[test]
fn a_host_port_that_is_taken_is_named_and_its_holder_keeps_it() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let mut firewall = firewall();
        let mut holder = bridged(1, "cni0", &["10.88.0.5/16", "fd00:88::5/64"]);
        holder.port_mappings = vec![port(Protocol::Tcp, (Some("192.0.2.1"), 80), 80)];
        let mut other = bridged(2, "cni0", &["10.88.0.6/16"]);
        other.port_mappings = holder.port_mappings.clone();
        let state = FirewallState { networks: vec![], endpoints: vec![Arc::new(holder.clone())] };
        firewall.replace(&state).unwrap();
        let error = firewall.add_endpoint(&other).unwrap_err();
        let taken =
            matches!(&error, DataplaneError::PortTaken { port } if port.to_string() == "192.0.2.1:80/tcp");
        assert!(taken, "{error}");
        assert!(firewall.intact(&state).unwrap(), "half of it was added");
        firewall.remove_endpoint(&other).unwrap();
        assert!(firewall.intact(&state).unwrap(), "the holder's port was taken away");
        firewall.remove_endpoint(&holder).unwrap();
        firewall.add_endpoint(&other).unwrap();
    });
}

#[test]
fn without_tables_adding_fails_removing_does_not_and_nothing_is_intact() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let (mut firewall, state) = (firewall(), mixed());
        assert!(!firewall.intact(&state).unwrap());
        let error = firewall.add_endpoint(&state.endpoints[0]).unwrap_err().to_string();
        assert!(error.contains("No such file") && error.contains("netd owners4"), "{error}");
        firewall.remove_endpoint(&state.endpoints[0]).unwrap();
        firewall.replace(&state).unwrap();
        super::super::tables::remove_tables(&mut firewall).unwrap();
        assert!(!firewall.intact(&state).unwrap());
        super::super::tables::remove_tables(&mut firewall).unwrap();
    });
}

#[test]
fn a_missing_nft_and_refused_rules_are_clear_errors() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let settings = FirewallSettings { nft: "/nonexistent/nft".into(), ..Default::default() };
        let mut broken = Firewall::new(settings).unwrap();
        let error = broken.replace(&mixed()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/nft") && error.contains("install"), "{error}");
        let mut state = mixed();
        let overlapping = super::samples::network("twin", None, &["10.88.3.0/24"]);
        state.networks.push(Arc::new(overlapping));
        let mut firewall = firewall();
        let error = firewall.replace(&state).unwrap_err().to_string();
        assert!(error.contains("nft") && error.contains("10.88.3.0/24"), "{error}");
    });
}

#[test]
fn an_nft_that_hangs_is_an_error_and_changes_nothing() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let nft = directory.path().join("nft");
    std::fs::write(&nft, "#!/bin/sh\nsleep 71235\n").unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).unwrap();
    Netns::new().run(move || {
        firewall().replace(&mixed()).unwrap();
        let settings = FirewallSettings { nft: nft.clone(), ..Default::default() };
        let start = Instant::now();
        let error = Firewall::new(settings).unwrap().replace(&mixed()).unwrap_err().to_string();
        assert!(error.contains("did not end") && error.contains("nft"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        let mut list = std::process::Command::new("nft");
        let listed = list.args(["list", "table", "inet", "netd"]).output().unwrap();
        assert!(listed.status.success(), "the old tables stay");
    });
}

#[test]
fn a_thousand_endpoints_are_replaced_and_checked_in_good_time() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let (mut firewall, state) = (firewall(), crowd(1000));
        let start = Instant::now();
        firewall.replace(&state).unwrap();
        let replaced = start.elapsed();
        assert!(firewall.intact(&state).unwrap());
        let checked = start.elapsed() - replaced;
        let mut one = bridged(5000, "cni0", &["10.88.200.1/16", "fd00:88::beef/64"]);
        let (add, remove) = medians(&mut firewall, &one);
        one.port_mappings = vec![port(Protocol::Tcp, (None, 80), 80)];
        let tcp = medians(&mut firewall, &one);
        one.port_mappings = vec![port(Protocol::Udp, (None, 80), 80)];
        let udp = medians(&mut firewall, &one);
        eprintln!("replace {replaced:?} check {checked:?} add {add:?} remove {remove:?}");
        eprintln!("add and remove with a TCP port {tcp:?}, with a UDP port {udp:?} (medians)");
        // Generous: debug builds on busy machines. The aim is 80 us an endpoint.
        assert!(replaced < Duration::from_secs(5) && add < Duration::from_millis(5));
    });
}

fn medians(firewall: &mut Firewall, one: &netd_domain::Wiring) -> (Duration, Duration) {
    let (mut adds, mut removes) = (Vec::new(), Vec::new());
    for _ in 0..201 {
        let start = Instant::now();
        firewall.add_endpoint(one).unwrap();
        adds.push(start.elapsed());
        let start = Instant::now();
        firewall.remove_endpoint(one).unwrap();
        removes.push(start.elapsed());
    }
    adds.sort();
    removes.sort();
    (adds[100], removes[100])
}

#[test]
fn chains_that_drop_forwarded_packets_are_named_but_not_our_own() {
    if !is_root() {
        return;
    }
    let netns = Netns::new();
    netns.sh("nft add table inet other; nft add chain inet other onward \
              '{ type filter hook forward priority 10; policy drop; }'; \
              nft add chain inet other in '{ type filter hook input priority 10; policy drop; }'");
    let drops = netns.run(|| {
        let mut firewall = firewall();
        firewall.replace(&mixed()).unwrap();
        firewall.foreign_forward_drops().unwrap()
    });
    assert_eq!(drops, ["inet other onward (policy drop)"]);
}

#[test]
fn every_socket_call_stays_in_the_namespace_it_was_made_in() {
    if !is_root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let firewall = here.run(|| Arc::new(Mutex::new(firewall())));
    let shared = firewall.clone();
    here.run(move || shared.lock().unwrap().replace(&mixed()).unwrap());
    there.run(move || {
        let one = bridged(9, "cni0", &["10.88.0.9/16"]);
        firewall.lock().unwrap().add_endpoint(&one).unwrap();
    });
    assert!(here.sh("nft list set bridge netd owners4").contains("10.88.0.9"));
    assert_eq!(there.sh("nft list ruleset"), "");
}
