//! Members that die, hang, go and come back, under a store and its watch.

use std::time::Duration;

use anyhow::{Result, ensure};
use netd_store::{
    LeaseStore as _, Store as _, StoreError, WatchUpdate,
    etcd::{EtcdOptions, EtcdStore, Rpc},
};
use testbed::{
    Host, block_on, case,
    etcd::{EtcdCluster, EtcdSetup, Place},
};
use tokio::time::Instant;

use super::{next, open, until, write, write_at_last};

/// A store and a watch go on while `disturb` does something to the cluster, and
/// nothing is missed or told twice.
fn survives(
    disturb: impl Fn(&mut EtcdCluster, usize) -> Result<()>,
    mend: impl Fn(&mut EtcdCluster, usize) -> Result<()>,
) -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        let stores = [open(&cluster)?, open(&cluster)?, open(&cluster)?, open(&cluster)?];
        let leader = cluster.leader()?;
        block_on(async {
            let mut watches = vec![];
            for (n, store) in stores.iter().enumerate() {
                write(store, &format!("/t/{n}"), "before").await?;
                let list = store.list("/t/").await?;
                watches.push(store.watch("/t/", list.revision).await?);
            }
            write(&stores[0], "/t/all", "before").await?;
            for watch in &mut watches {
                until(watch, "/t/all", "before").await?;
            }
            disturb(&mut cluster, leader)?;
            for (n, store) in stores.iter().enumerate() {
                let (took, failures) = write_at_last(store, &format!("/t/{n}"), "during").await?;
                println!("store {n}: written after {took:?}, {failures} failures");
            }
            let start = Instant::now();
            write_at_last(&stores[0], "/t/all", "during").await?;
            for (n, watch) in watches.iter_mut().enumerate() {
                let (seen, errors) = until(watch, "/t/all", "during").await?;
                println!("watch {n}: told after {:?}, {} errors", start.elapsed(), errors.len());
                ensure!(!seen.contains(&"/t/all=before".to_owned()), "told again: {seen:?}");
                for n in 0..stores.len() {
                    let own = format!("/t/{n}=during");
                    let count = seen.iter().filter(|event| **event == own).count();
                    // A write whose answer was lost may have been made before.
                    ensure!(count >= 1, "{own} is missing in {seen:?}");
                }
            }
            mend(&mut cluster, leader)?;
            write_at_last(&stores[1], "/t/all", "after").await?;
            for watch in &mut watches {
                until(watch, "/t/all", "after").await?;
            }
            Ok(())
        })
    })
}

fn follower_of(leader: usize) -> usize {
    (leader + 1) % 3
}

#[test]
fn a_member_is_killed() -> Result<()> {
    survives(
        |cluster, leader| cluster.kill(follower_of(leader)),
        |cluster, leader| {
            cluster.start_member(follower_of(leader))?;
            cluster.wait_healthy()
        },
    )
}

#[test]
fn the_leader_is_killed() -> Result<()> {
    survives(EtcdCluster::kill, |cluster, leader| {
        cluster.start_member(leader)?;
        cluster.wait_healthy()
    })
}

#[test]
fn a_member_hangs() -> Result<()> {
    survives(
        |cluster, leader| cluster.pause(follower_of(leader)),
        |cluster, leader| cluster.resume(follower_of(leader)),
    )
}

#[test]
fn the_leader_hangs() -> Result<()> {
    survives(EtcdCluster::pause, EtcdCluster::resume)
}

/// Each request ends within its time with a clear error, the watch says that it is
/// away and when it is back, and goes on where it was.
#[test]
fn all_members_go_and_come_back() -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        let (store, other) = (open(&cluster)?, open(&cluster)?);
        block_on(async {
            let after = write(&store, "/t/a", "1").await?;
            let mut watch = store.watch("/t/", after).await?;
            write(&other, "/t/a", "2").await?;
            until(&mut watch, "/t/a", "2").await?;
            for member in 0..3 {
                cluster.kill(member)?;
            }
            let mut said = vec![];
            for _ in 0..3 {
                match next(&mut watch).await? {
                    Err(StoreError::Unavailable(why)) => said.push(why),
                    other => panic!("{other:?} of a dead etcd"),
                }
            }
            // The first may be of the lost connection itself.
            let clear = |why: &String| {
                cluster.endpoints().iter().all(|endpoint| why.contains(endpoint))
                    && why.contains("Connection refused")
            };
            ensure!(said.iter().filter(|why| clear(why)).count() >= 2, "unclear: {said:#?}");
            let start = Instant::now();
            let error = write(&store, "/t/a", "3").await.unwrap_err().to_string();
            ensure!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
            ensure!(error.contains("refused") && !error.contains("may have been"), "{error}");
            for member in 0..3 {
                cluster.start_member(member)?;
            }
            cluster.wait_healthy()?;
            // Back, with nothing to tell: the end of being behind.
            loop {
                match next(&mut watch).await? {
                    Ok(WatchUpdate::Changes { events, .. }) => break ensure!(events.is_empty()),
                    Ok(WatchUpdate::Compacted) => panic!("compacted"),
                    Err(_) => {}
                }
            }
            write_at_last(&other, "/t/a", "4").await?;
            let (seen, _) = until(&mut watch, "/t/a", "4").await?;
            ensure!(seen == ["/t/a=4"], "{seen:?}");
            Ok(())
        })
    })
}

/// What hangs as a whole: every request ends in time, and says that a transaction may
/// have been made.
#[test]
fn a_single_member_hangs() -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let store = open(&cluster)?;
        block_on(async {
            let lease = store.grant(Duration::from_secs(600)).await?;
            write(&store, "/t/a", "1").await?;
            cluster.pause(0)?;
            let start = Instant::now();
            let error = write(&store, "/t/a", "2").await.unwrap_err().to_string();
            ensure!(error.contains("may have been done"), "{error}");
            let errors = [
                store.get("/t/a").await.unwrap_err(),
                store.list("/t/").await.unwrap_err(),
                store.keep_alive(lease).await.unwrap_err(),
                store.revoke(lease).await.unwrap_err(),
                store.grant(Duration::from_secs(9)).await.unwrap_err(),
            ];
            for error in errors {
                let said = error.to_string();
                let clear = said.contains(&cluster.endpoint(0)) && said.contains("no answer");
                ensure!(matches!(error, StoreError::Unavailable(_)) && clear, "{said}");
            }
            let took = start.elapsed();
            ensure!(took < Duration::from_millis(6 * 3000 + 1500), "six requests took {took:?}");
            cluster.resume(0)?;
            write_at_last(&store, "/t/a", "3").await?;
            Ok(())
        })
    })
}

/// A member that is cut off from the others has no leader after a while. Its clients
/// go to another member, with their watches. (Members in namespaces, on IPv6.)
#[test]
fn a_member_without_a_leader() -> Result<()> {
    case(|bed| {
        let hosts = [bed.host("a")?, bed.host("b")?, bed.host("c")?];
        let client = bed.host("client")?;
        let place =
            |host: &Host| Place { address: host.v6.into(), net: Some(host.net.path().to_owned()) };
        let setup = EtcdSetup::on(hosts.iter().map(place).collect());
        let cluster = EtcdCluster::start_with(&bed.directory().join("etcd"), setup)?;
        let cut_off = follower_of(cluster.leader()?);
        let other = follower_of(cut_off);
        let cut = |verb: &str| -> Result<()> {
            let peers = hosts.iter().enumerate().filter(|(n, _)| *n != cut_off);
            for (_, peer) in peers {
                let script = format!("ip -6 route {verb} blackhole {}/128", peer.v6);
                hosts[cut_off].net.sh(&script)?;
            }
            Ok(())
        };
        client.net.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                // Most begin with the one that is to be cut off, wherever they start.
                let (lone, rest) = (cluster.endpoint(cut_off), cluster.endpoint(other));
                let endpoints = vec![lone.clone(), lone.clone(), lone, rest];
                let mut all = vec![];
                for _ in 0..6 {
                    let store = EtcdStore::open(EtcdOptions::new(endpoints.clone()))?;
                    let after = write(&store, "/t/a", "before").await?;
                    let watch = store.watch("/t/", after).await?;
                    all.push((store, watch));
                }
                for (_, watch) in &mut all[..5] {
                    next(watch).await??;
                }
                cut("add")?;
                let start = Instant::now();
                for (store, _) in &all {
                    let (took, failures) = write_at_last(store, "/t/a", "during").await?;
                    println!("written after {took:?}, {failures} failures");
                }
                write_at_last(&all[0].0, "/t/b", "during").await?;
                for (_, watch) in &mut all {
                    let (_, errors) = until(watch, "/t/b", "during").await?;
                    println!("told after {:?}, {} errors", start.elapsed(), errors.len());
                }
                cut("del")?;
                write_at_last(&all[1].0, "/t/b", "after").await?;
                for (_, watch) in &mut all {
                    until(watch, "/t/b", "after").await?;
                }
                Ok(())
            })
        })
    })
}

/// etcd hangs up on clients that ping too often; an idle watch has to stay.
#[test]
fn an_idle_watch_stays() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let store = EtcdStore::open(EtcdOptions::new(cluster.endpoints()))?;
        block_on(async {
            let after = write(&store, "/t/a", "1").await?;
            let mut watch = store.watch("/t/", after).await?;
            let told = tokio::time::timeout(Duration::from_secs(27), watch.next()).await;
            ensure!(told.is_err(), "{told:?}");
            let watches = store.metrics().read(Rpc::Watch).count;
            ensure!(watches == 1, "watched {watches} times");
            write(open(&cluster)?.as_ref(), "/t/a", "2").await?;
            until(&mut watch, "/t/a", "2").await?;
            Ok(())
        })
    })
}
