//! Somebody else's hands in our tables.

use super::{
    samples::{bridged, mixed},
    testbed::{Netns, is_root},
};
use crate::firewall::{Firewall, FirewallSettings, Foreign, Watcher};

/// Each kind of damage, as shell commands; `$h` is a handle of a rule.
const DAMAGE: [&str; 19] = [
    "nft flush ruleset",
    "nft delete table inet netd",
    "nft delete table bridge netd",
    "nft delete table arp netd",
    "nft flush table inet netd",
    "nft flush chain bridge netd from_ip4",
    "nft add rule inet netd forward drop",
    "nft insert rule bridge netd guard accept",
    "nft delete rule inet netd forward handle $(nft -a list chain inet netd forward | sed -n 's/.*@peers4.*handle //p')",
    "nft add chain inet netd extra",
    "nft chain inet netd forward '{ policy drop; }'",
    "nft delete element bridge netd owners4 '{ \"nd000000000001\" . 0a:58:0a:58:00:05 . 10.88.0.5 }'",
    "nft add element inet netd owners4 '{ \"nd000000000009\" . 0a:58:0a:58:00:05 . 10.88.0.5 }'",
    "nft delete element inet netd ports4 '{ tcp . 8080 }'",
    "nft delete element inet netd ports4 '{ tcp . 8080 }'; nft add element inet netd ports4 '{ tcp . 8080 : 10.88.0.66 . 80 }'",
    "nft delete element inet netd node4 '{ 127.0.0.1 }'",
    "nft add element inet netd node4 '{ 127.0.0.53 }'",
    "nft delete element inet netd pods4 '{ 10.88.0.0/16 }'",
    "nft add element inet netd peers4 '{ 10.88.0.0/16 . 10.90.0.0/24 }'",
];

#[test]
fn every_kind_of_damage_is_heard_seen_and_mended() {
    if !is_root() {
        return;
    }
    let netns = Netns::new();
    netns.run(|| {
        let mut firewall = Firewall::new(FirewallSettings::default()).unwrap();
        let mut watcher = Watcher::open(firewall.own_changes()).unwrap();
        let state = mixed();
        firewall.replace(&state).unwrap();
        for damage in DAMAGE {
            assert!(firewall.intact(&state).unwrap(), "before {damage}");
            assert_eq!(watcher.try_next().unwrap(), None, "before {damage}");
            let done = std::process::Command::new("sh").args(["-ec", damage]).output().unwrap();
            assert!(done.status.success(), "{damage}: {done:?}");
            assert_eq!(watcher.wait().unwrap(), Foreign::Changed, "{damage}");
            while watcher.try_next().unwrap().is_some() {}
            assert!(!firewall.intact(&state).unwrap(), "{damage}");
            firewall.replace(&state).unwrap();
        }
        assert!(firewall.intact(&state).unwrap());
    });
}

#[test]
fn our_own_changes_and_other_tables_are_not_heard() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let mut firewall = Firewall::new(FirewallSettings::default()).unwrap();
        let mut watcher = Watcher::open(firewall.own_changes()).unwrap();
        let state = mixed();
        firewall.replace(&state).unwrap();
        let one = bridged(9, "cni0", &["10.88.0.9/16", "fd00:88::9/64"]);
        firewall.add_endpoint(&one).unwrap();
        firewall.remove_endpoint(&one).unwrap();
        firewall.replace(&state).unwrap();
        let other = "nft add table inet other; nft add table ip netd; nft add chain ip netd x";
        let done = std::process::Command::new("sh").args(["-ec", other]).output().unwrap();
        assert!(done.status.success());
        assert_eq!(watcher.try_next().unwrap(), None);
        assert!(firewall.intact(&state).unwrap());
    });
}

#[test]
fn lost_events_are_told() {
    if !is_root() {
        return;
    }
    Netns::new().run(|| {
        let mut firewall = Firewall::new(FirewallSettings::default()).unwrap();
        let mut watcher = Watcher::open(firewall.own_changes()).unwrap();
        watcher.socket.set_buffers(1).unwrap();
        for _ in 0..20 {
            firewall.replace(&mixed()).unwrap();
        }
        assert_eq!(watcher.wait().unwrap(), Foreign::Lost);
    });
}
