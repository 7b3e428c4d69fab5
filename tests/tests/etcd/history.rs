//! A history that is cut off, or replaced: what a watch says then.

use std::time::Duration;

use anyhow::{Result, ensure};
use netd_store::{
    Change, Compare, Event, LeaseStore as _, Store as _, StoreError, Txn, TxnOutcome, WatchUpdate,
    etcd::{EtcdOptions, EtcdStore},
};
use testbed::{
    block_on, case,
    etcd::{EtcdCluster, EtcdSetup, Place},
};

use super::{next, open, until, write, write_at_last};

/// The outcome after errors and empty batches.
async fn outcome(watch: &mut Box<dyn netd_store::Watch>) -> Result<WatchUpdate> {
    loop {
        match next(watch).await? {
            Err(StoreError::Unavailable(_)) => {}
            Ok(WatchUpdate::Changes { events, .. }) if events.is_empty() => {}
            other => return Ok(other?),
        }
    }
}

/// A watch that was cut off while its revision was compacted says so.
#[test]
fn compacted_while_away() -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let mut options = EtcdOptions::new(cluster.endpoints());
        options.quiet_time = Duration::from_secs(600);
        let (store, other) = (EtcdStore::open(options)?, open(&cluster)?);
        block_on(async {
            let after = write(&store, "/t/a", "1").await?;
            let mut watch = store.watch("/t/", after).await?;
            write(&other, "/t/a", "2").await?;
            until(&mut watch, "/t/a", "2").await?;
            for n in 0..5 {
                write(&other, "/elsewhere", &n.to_string()).await?;
            }
            cluster.compact()?;
            cluster.kill(0)?;
            cluster.start_member(0)?;
            cluster.wait_healthy()?;
            ensure!(outcome(&mut watch).await? == WatchUpdate::Compacted);
            ensure!(watch.next().await.is_none());
            Ok(())
        })
    })
}

/// A running watch is not touched by compaction, and a quiet one moves on with etcd, so
/// that it can go on after a loss although its last event is long forgotten.
#[test]
fn a_quiet_watch_is_not_compacted() -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let (store, other) = (open(&cluster)?, open(&cluster)?);
        block_on(async {
            let after = write(&store, "/t/a", "1").await?;
            let mut watch = store.watch("/t/", after).await?;
            for n in 0..20 {
                write(&other, "/elsewhere", &n.to_string()).await?;
            }
            // Two answers to "where are you" (every 200 ms).
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.compact()?;
            cluster.kill(0)?;
            cluster.start_member(0)?;
            cluster.wait_healthy()?;
            write_at_last(&other, "/t/a", "2").await?;
            let (seen, _) = until(&mut watch, "/t/a", "2").await?;
            ensure!(seen == ["/t/a=2"], "{seen:?}");
            Ok(())
        })
    })
}

/// Data restored from a snapshot, and changed, while the client is cut off: revisions go
/// back. Whether or not new changes have passed the old revisions when the client comes
/// back, its watch says that all is to be listed.
fn restored(writes_after: usize) -> Result<()> {
    case(|bed| {
        let (host, client) = (bed.host("etcd")?, bed.host("client")?);
        let place = Place { address: host.v4.into(), net: Some(host.net.path().to_owned()) };
        let setup = EtcdSetup::on(vec![place]);
        let mut cluster = EtcdCluster::start_with(&bed.directory().join("cluster"), setup)?;
        let file = bed.directory().join("snapshot");
        let link = |state| client.net.sh(&format!("ip link set eth0 {state}"));
        client.net.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let store = open(&cluster)?;
                let lease = store.grant(Duration::from_secs(600)).await?;
                write(&store, "/t/a", "1").await?;
                cluster.snapshot(&file)?;
                let late = store.grant(Duration::from_secs(600)).await?;
                let mut after = 0;
                for n in 2..7 {
                    after = write(&store, "/t/a", &n.to_string()).await?;
                }
                let mut watch = store.watch("/t/", after).await?;
                let last = write(&store, "/t/b", "7").await?;
                until(&mut watch, "/t/b", "7").await?;

                link("down")?;
                cluster.restore(&file)?;
                for n in 0..writes_after {
                    cluster.ctl(&["put", "/t/c", &n.to_string()])?;
                }
                let now = cluster.revision(0)?;
                ensure!((now > last) == (writes_after > 0), "{last}, then {now}");
                link("up")?;

                ensure!(outcome(&mut watch).await? == WatchUpdate::Compacted);
                let list = store.list("/t/").await?;
                let first = list.entries.first().map(|e| (e.key.as_str(), e.value.as_slice()));
                ensure!(first == Some(("/t/a", b"1".as_slice())), "{list:?}");
                if writes_after == 0 {
                    // A list from before the restore is as good as none.
                    let mut old = store.watch("/t/", after).await?;
                    ensure!(outcome(&mut old).await? == WatchUpdate::Compacted);
                }
                let mut watch = store.watch("/t/", list.revision).await?;
                write_at_last(&store, "/t/d", "new").await?;
                until(&mut watch, "/t/d", "new").await?;
                store.keep_alive(lease).await?;
                let gone = store.keep_alive(late).await;
                ensure!(matches!(gone, Err(StoreError::LeaseGone(l)) if l == late), "{gone:?}");
                Ok(())
            })
        })
    })
}

/// Three members are stopped and given a snapshot's data, and watches find out.
#[test]
fn a_restored_cluster_of_three() -> Result<()> {
    case(|bed| {
        let mut cluster = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        let store = open(&cluster)?;
        let file = bed.directory().join("snapshot");
        block_on(async {
            write(&store, "/t/a", "1").await?;
            cluster.snapshot(&file)?;
            let after = write(&store, "/t/a", "2").await?;
            let mut watch = store.watch("/t/", after).await?;
            write(&store, "/t/a", "3").await?;
            until(&mut watch, "/t/a", "3").await?;
            cluster.restore(&file)?;
            ensure!(outcome(&mut watch).await? == WatchUpdate::Compacted);
            let there = store.get("/t/a").await?.map(|entry| entry.value);
            ensure!(there == Some(b"1".to_vec()), "{there:?}");
            Ok(())
        })
    })
}

#[test]
fn restored_to_lower_revisions() -> Result<()> {
    restored(0)
}

#[test]
fn restored_and_gone_on_past_the_old_revisions() -> Result<()> {
    restored(40)
}

/// A transaction as large as etcd takes comes as one batch, live and afterwards.
#[test]
fn large_transactions_come_whole() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let store = open(&cluster)?;
        block_on(async {
            let after = store.list("/t/").await?.revision;
            let mut live = store.watch("/t/", after).await?;
            let change = |n: usize| Change::Put {
                key: format!("/t/{n:03}"),
                value: vec![b'v'; 11_000],
                lease: 0,
            };
            // 120 of them in each of 20 revisions: 26 MB, more than is taken at once.
            for _ in 0..20 {
                let changes = (0..120).map(change).collect();
                let made = store.commit(Txn { compares: vec![], changes }).await?;
                ensure!(matches!(made, TxnOutcome::Committed(_)));
            }
            let mut revisions = 0;
            while revisions < 20 {
                let WatchUpdate::Changes { events, .. } = next(&mut live).await?? else {
                    panic!("compacted")
                };
                let of = |event: &Event| match event {
                    Event::Put(entry) => entry.mod_revision,
                    Event::Delete { revision, .. } => *revision,
                };
                for whole in events.chunk_by(|a, b| of(a) == of(b)) {
                    ensure!(whole.len() == 120, "{} of 120 events", whole.len());
                    revisions += 1;
                }
            }
            // All at once is too much: it is to be listed, which goes by pages.
            let mut late = store.watch("/t/", after).await?;
            ensure!(outcome(&mut late).await? == WatchUpdate::Compacted);
            ensure!(store.list("/t/").await?.entries.len() == 120);
            // Pages get shorter where values are long: 40 MB here.
            for n in 0..40 {
                let (key, value) = (format!("/large/{n}"), vec![7; 1 << 20]);
                let changes = vec![Change::Put { key, value, lease: 0 }];
                store.commit(Txn { compares: vec![], changes }).await?;
            }
            let large = store.list("/large/").await?.entries;
            ensure!(large.len() == 40 && large.iter().all(|e| e.value.len() == 1 << 20));
            Ok(())
        })
    })
}

/// etcd's own limits are named, and no transaction is done by half.
#[test]
fn what_is_too_large_for_etcd_is_refused() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let store = open(&cluster)?;
        block_on(async {
            let change = |n: usize, size| Change::Put {
                key: format!("/t/{n}"),
                value: vec![0; size],
                lease: 0,
            };
            let many = (0..129).map(|n| change(n, 1)).collect();
            let large = (0..2).map(|n| change(n, 1 << 20)).collect();
            for (changes, said) in [(many, "too many"), (large, "several transactions")] {
                let refused = store.commit(Txn { compares: vec![], changes }).await;
                let Err(StoreError::BadTransaction(why)) = refused else { panic!("{refused:?}") };
                ensure!(why.contains(said), "{why}");
            }
            ensure!(store.list("/t/").await?.entries.is_empty());
            // Of several leases, the one that is gone is named.
            let lease = store.grant(Duration::from_secs(600)).await?;
            let bound = |key: &str, lease| Change::Put { key: key.into(), value: vec![], lease };
            let changes = vec![bound("/t/a", lease), bound("/t/b", 12_345)];
            let compares = vec![Compare::Absent("/t/a".into())];
            let refused = store.commit(Txn { compares, changes }).await;
            ensure!(matches!(refused, Err(StoreError::LeaseGone(12_345))), "{refused:?}");
            Ok(())
        })
    })
}
