//! What a node does with its subnets while its own disk does not take the record of them.

use std::time::Duration;

use super::{
    super::view::Part,
    cluster::Cluster,
    world::{Fate, clock},
};
use crate::flannel;

#[test]
fn a_full_disk_gives_no_new_subnet_and_takes_no_old_one() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    cluster.nodes[0].reconciler.more();
    for _ in 0..200 {
        let now = clock(cluster.passed);
        let node = &mut cluster.nodes[0];
        while node.see(&cluster.world, Part::Flannel, 9, now)
            | node.see(&cluster.world, Part::Cluster, 9, now)
        {}
        node.decide(now);
        let fate = if node.is_saving() { Fate::Unasked } else { Fate::Completion };
        node.act(&mut cluster.world, fate);
        node.learn(now);
        cluster.passed += Duration::from_millis(100);
    }
    assert_eq!(cluster.only(0), had);
    assert!(cluster.nodes[0].reconciler.save_problem.is_some());
    cluster.wait(Duration::from_secs(30));
    assert_eq!(cluster.used(0).len(), 2);
    assert!(cluster.nodes[0].reconciler.save_problem.is_none());
}

#[test]
fn what_the_disk_still_has_is_not_let_go_of() {
    // Else the node would use it after a restart, beside the one who has it by then.
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let name = flannel::key::name(&had);
    cluster.nodes[0].full = true;
    cluster.nodes[0].reconciler.give_back(&[had]);
    cluster.wait(Duration::from_secs(60));
    assert!(!cluster.nodes[0].used.contains(&had), "it is not used any more");
    assert_eq!(cluster.owner_of(&name).as_deref(), Some("id-1"), "and nobody else can have it");
    cluster.nodes[0].full = false;
    cluster.wait(Duration::from_secs(60));
    assert_eq!(cluster.owner_of(&name), None);
}
