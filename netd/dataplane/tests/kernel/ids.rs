//! Which id a sandbox's namespace gets in the host's.

use std::sync::Arc;

use netd_dataplane::Drift;
use netd_domain::{EndpointKey, RepairScope, Wiring};

use crate::bed::{Bed, Space, on_route};

/// The id of the namespace at the other end of the endpoint's pair.
fn id(host: &Space, wiring: &Wiring) -> u32 {
    let line = host.ip(&format!("link show dev {}", wiring.host_ifname));
    let id = line.split("link-netnsid ").nth(1).and_then(|rest| rest.split_whitespace().next());
    id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

fn of_host(host: &Space) -> usize {
    host.ip("netns list-id").lines().count()
}

#[tokio::test]
async fn the_newest_of_many_sandboxes_has_the_lowest_id() {
    /// So many that the kernel's own order would cost something.
    const MANY: u16 = 64;
    /// Anybody else's are lower.
    const OURS: u32 = 1 << 29;
    let mut bed = Bed::new().await;
    let wirings: Vec<_> = (0..MANY + 3).map(|n| Arc::new(on_route(n + 10))).collect();
    let mut pods = Vec::new();
    for wiring in &wirings {
        pods.push(bed.attach(wiring).await);
    }
    let ids: Vec<_> = wirings.iter().map(|wiring| id(&bed.host, wiring)).collect();
    let (few, many) = ids.split_at(usize::from(MANY));
    assert!(few.iter().all(|id| *id < u32::from(MANY)), "{few:?}");
    assert!(many.iter().all(|id| *id > OURS) && many.is_sorted_by(|a, b| *a == b + 1), "{many:?}");

    // Its events are told from the others'.
    bed.quiet().await;
    let last = wirings.last().unwrap();
    pods.last().unwrap().ip("addr flush dev eth0");
    let inside = |drift: &Drift| matches!(drift, Drift::Pod(of, _) if *of == last.host_ifname);
    assert!(bed.hears(inside).await);

    // A second interface of a sandbox that has an id already.
    let mut second = on_route(5);
    second.ifname = "eth1".parse().unwrap();
    bed.try_attach(&pods[0], &Arc::new(second.clone())).await.unwrap();
    assert_eq!(id(&bed.host, &second), ids[0]);

    // A pair that stays on the host gives the host's own namespace none.
    let before = of_host(&bed.host);
    let mut pending = on_route(6);
    let key = EndpointKey { sandbox: "routed-6".parse().unwrap(), ifname: pending.ifname };
    pending.ifname = key.staging_ifname();
    bed.dataplane.prepare(Arc::new(pending)).await.unwrap();
    assert_eq!(of_host(&bed.host), before);

    // Another process goes on below what it finds.
    let (dataplane, _drift) = bed.another();
    for (wiring, pod) in wirings.iter().zip(&pods) {
        dataplane.repair(pod.open(), wiring.clone(), RepairScope::Host).await.unwrap();
    }
    let (pod, wiring) = (Space::new(), Arc::new(on_route(7)));
    dataplane.attach(pod.open(), wiring.clone()).await.unwrap();
    assert!(id(&bed.host, &wiring) < *many.last().unwrap());
    assert!(id(&bed.host, &wiring) > OURS);
}
