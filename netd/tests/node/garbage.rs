//! What is collected, and when.

use std::{collections::HashSet, time::Duration};

use super::{
    audit::audit,
    bed::{Bed, key, pause, spec},
    space::Space,
};

#[test]
fn what_is_left_of_a_sandbox_goes_at_once_though_a_runtime_still_lists_it() {
    let bed = Bed::new();
    let netd = bed.start();
    let pod = Space::new();
    for ifname in ["eth0", "eth1"] {
        netd.attach(spec(&key("s1", ifname), &pod, "default")).unwrap();
    }
    let known: HashSet<_> = [key("s1", "eth0").sandbox].into();
    netd.run(netd.node.synchronize("nri", known.clone(), None, false)).unwrap();
    netd.detach(&key("s1", "eth0")).unwrap();
    pause(Duration::from_millis(400));
    assert_eq!(audit(&bed, &netd).len(), 1, "its namespace is still there");
    // Said again after the detach.
    netd.run(netd.node.synchronize("nri", known, None, false)).unwrap();
    drop(pod);
    netd.until("eth1 is collected", |node| node.counts().endpoints == 0);
    assert_eq!(netd.node.metrics().collected_total(), 1);
}

#[test]
fn a_sandbox_that_a_runtime_lists_or_whose_namespace_is_there_is_kept() {
    let bed = Bed { grace: "100ms", ..Bed::new() };
    let netd = bed.start();
    let (listed, alive, lost) = (Space::new(), Space::new(), Space::new());
    netd.attach(spec(&key("listed", "eth0"), &listed, "default")).unwrap();
    netd.attach(spec(&key("alive", "eth0"), &alive, "default")).unwrap();
    netd.attach(spec(&key("lost", "eth0"), &lost, "default")).unwrap();
    let known = [key("listed", "eth0").sandbox].into();
    netd.run(netd.node.synchronize("nri", known, None, false)).unwrap();
    drop((listed, lost));
    netd.until("the lost one is collected", |node| node.counts().endpoints == 2);
    pause(Duration::from_millis(500));
    assert_eq!(netd.node.counts().endpoints, 2);
}
