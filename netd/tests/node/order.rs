//! Attaches and detaches of one key, in every order.

use netd::node::{Error, now_boot};
use netd_domain::Endpoint;

use super::{
    audit::audit,
    bed::{Bed, key, spec},
    space::Space,
};

#[test]
fn an_attach_issued_before_a_detach_is_refused_also_after_a_restart() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    let early = spec(&key, &pod, "default");
    assert_eq!(netd.detach(&key).unwrap(), 0, "there is nothing yet");
    assert!(matches!(netd.attach(early.clone()), Err(Error::Detached(_))));
    drop(netd);
    let netd = bed.start();
    assert!(matches!(netd.attach(early), Err(Error::Detached(_))));
    let mut later = spec(&key, &pod, "default");
    netd.detach_at(&key, later.issued_at).unwrap();
    later.pod.name = "same time as the detach".into();
    netd.attach(later).unwrap();
    assert_eq!(audit(&bed, &netd).len(), 1);
}

#[test]
fn a_detach_of_everything_refuses_late_attaches_of_a_sandbox_that_is_not_known() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let early = spec(&key("s1", "eth0"), &pod, "default");
    netd.run(netd.node.detach("s1".parse().unwrap(), None, now_boot())).unwrap();
    assert!(matches!(netd.attach(early), Err(Error::Detached(_))));
}

#[test]
fn the_later_of_two_detaches_counts() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    netd.attach(spec(&key, &pod, "default")).unwrap();
    let between = spec(&key, &pod, "default");
    // At once after each other: the first one's link may or may not be gone.
    netd.detach_at(&key, between.issued_at - 1).unwrap();
    netd.detach_at(&key, between.issued_at + 1).unwrap();
    assert!(matches!(netd.attach(between), Err(Error::Detached(_))));
    assert!(audit(&bed, &netd).is_empty());
}

#[test]
fn a_repeated_attach_answers_what_is_there_and_makes_what_is_missing() {
    let (bed, pod, other) = (Bed::new(), Space::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    let first = netd.attach(spec(&key, &pod, "default")).unwrap();
    bed.host.ip(&format!("link del {}", first.wiring.host_ifname));
    let mut again = spec(&key, &pod, "default");
    again.pod.name = "other".into();
    // A detach that was issued before the repetition must not end it.
    let repeated = netd.attach(again).unwrap();
    assert!(repeated.issued_at > first.issued_at);
    assert_eq!(Endpoint { issued_at: first.issued_at, ..(*repeated).clone() }, *first);
    let differs = netd.attach(spec(&key, &pod, "small"));
    assert!(matches!(differs, Err(Error::Different { .. })), "{differs:?}");
    audit(&bed, &netd);
    let elsewhere = netd.attach(spec(&key, &other, "default"));
    assert!(matches!(elsewhere, Err(Error::Elsewhere { .. })), "{elsewhere:?}");
}

#[test]
fn a_new_sandbox_replaces_one_whose_namespace_is_gone() {
    let bed = Bed::new();
    let netd = bed.start();
    let (key, old) = (key("s1", "eth0"), Space::new());
    netd.attach(spec(&key, &old, "default")).unwrap();
    drop(old);
    let new = Space::new();
    netd.attach(spec(&key, &new, "default")).unwrap();
    let endpoints = audit(&bed, &netd);
    assert_eq!(endpoints[0].netns, Some(new.open().id()));
}

#[test]
fn detaches_and_attaches_of_one_key_at_the_same_time_leave_one_or_none() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("s1", "eth0");
    for _ in 0..20 {
        let mut work = Vec::new();
        for _ in 0..4 {
            let (node, spec) = (netd.node.clone(), spec(&key, &pod, "default"));
            work.push(netd.spawn(async move { node.attach(spec).await.map(drop) }));
            let (node, sandbox) = (netd.node.clone(), key.sandbox.clone());
            work.push(
                netd.spawn(async move { node.detach(sandbox, None, now_boot()).await.map(drop) }),
            );
        }
        for done in work {
            match netd.run(done).unwrap() {
                Ok(()) | Err(Error::Detached(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(audit(&bed, &netd).len() <= 1);
    }
}
