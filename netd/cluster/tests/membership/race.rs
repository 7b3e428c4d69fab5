//! Nodes on one store, killed at any await and started again: no subnet is ever used by
//! two of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use netd_cluster::{
    Subnets,
    membership::{Membership, MembershipOptions, Update},
};
use netd_store::LeaseStore;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::bed::{Remote, attrs, memory_store, options, put_config};

const NODES: usize = 6;
/// Nodes that have so many stop asking.
const MOST: usize = 3;
const TIME: Duration = Duration::from_secs(12);
/// 24 subnets: enough, and few enough to be fought for.
const CONFIG: &str = r#"{"Network":"10.5.0.0/19","SubnetLen":24,"SubnetMin":"10.5.1.0","SubnetMax":"10.5.24.0","Backend":{"Type":"vxlan"}}"#;

/// What each node may use: what it was told, less what it has given back since.
#[derive(Debug, Default)]
struct Used {
    told: BTreeMap<usize, BTreeSet<Subnets>>,
    given: BTreeMap<usize, BTreeSet<Subnets>>,
    /// How often each was started: who is dead tells nothing.
    lives: BTreeMap<usize, usize>,
    changes: usize,
    wrong: Vec<String>,
}

impl Used {
    /// A wish that was not heard before the end is forgotten.
    fn begin(&mut self, node: usize) -> usize {
        self.given.remove(&node);
        let life = self.lives.entry(node).or_default();
        *life += 1;
        *life
    }

    fn has(&self, node: usize) -> usize {
        self.told.get(&node).map_or(0, BTreeSet::len)
    }

    fn tell(&mut self, node: usize, life: usize, own: BTreeSet<Subnets>) {
        if self.lives.get(&node) != Some(&life) {
            return;
        }
        let given = self.given.entry(node).or_default();
        given.retain(|subnets| own.contains(subnets));
        let own: BTreeSet<_> = own.difference(given).copied().collect();
        for (other, theirs) in self.told.iter().filter(|(n, _)| **n != node) {
            let both: Vec<_> = own.intersection(theirs).collect();
            if !both.is_empty() {
                self.wrong.push(format!("{node} (life {life}) and {other} use {both:?}"));
            }
        }
        self.changes += 1;
        self.told.insert(node, own);
    }
}

/// A node whose tasks end with its runtime, wherever they are.
struct Life {
    runtime: Runtime,
    membership: Arc<Membership>,
}

impl Life {
    fn start(
        node: usize,
        store: &Arc<Remote>,
        options: MembershipOptions,
        used: &Arc<Mutex<Used>>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store: Arc<dyn LeaseStore> = store.clone();
        let started = runtime.block_on(Membership::start(store, options));
        let (membership, mut updates) = started.unwrap();
        membership.announce(attrs(&format!("192.0.2.{node}")));
        let life = used.lock().begin(node);
        let used = Arc::clone(used);
        runtime.spawn(async move {
            while let Some(update) = updates.recv().await {
                if let Update::Own(own) = update {
                    let own = own.into_iter().map(|own| own.subnets).collect();
                    used.lock().tell(node, life, own);
                }
            }
        });
        Self { runtime, membership }
    }

    /// Its tasks end where they are. What its threads write to disk right now ends, too:
    /// in a process that is killed they can't go on beside the next one either.
    fn kill(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

fn options_of(dir: &std::path::Path, node: usize) -> MembershipOptions {
    options(dir, &format!("n{node}"))
}

#[test]
fn no_subnet_is_ever_used_by_two() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().into();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (remote, store) = runtime.block_on(async {
        let store = memory_store();
        put_config(&store, CONFIG).await;
        (Remote::new(Arc::clone(&store)), store)
    });
    let used = Arc::new(Mutex::new(Used::default()));
    let start = |node| Life::start(node, &remote, options_of(&path, node), &used);
    let mut lives: Vec<_> = (0..NODES).map(|node| Some(start(node))).collect();
    let pause = |micros| {
        runtime.block_on(async { tokio::time::sleep(Duration::from_micros(micros)).await });
    };
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        let node = rng.usize(..NODES);
        let Some(life) = lives[node].take() else { continue };
        match rng.u8(..10) {
            0..4 => {
                life.kill();
                kills += 1;
                lives[node] = Some(start(node));
                continue;
            }
            4..7 if used.lock().has(node) < MOST => life.membership.more().unwrap(),
            7..9 => {
                let mut used = used.lock();
                let told = used.told.get_mut(&node);
                if let Some(subnets) = told.and_then(BTreeSet::pop_first) {
                    used.given.entry(node).or_default().insert(subnets);
                    life.membership.give_back(vec![subnets]);
                }
            }
            _ => pause(rng.u64(..30_000)),
        }
        lives[node] = Some(life);
        pause(rng.u64(..5000));
    }
    // Given time, all have what they want.
    let enough = || used.lock().told.values().filter(|own| !own.is_empty()).count() == NODES;
    let waited = Instant::now();
    while !enough() {
        assert!(waited.elapsed() < Duration::from_secs(20), "{:?}", used.lock());
        pause(50_000);
    }
    println!("{kills} kills, {} changes of what nodes have", used.lock().changes);
    assert_eq!(used.lock().wrong, Vec::<String>::new());
    assert!(kills > 20 && used.lock().changes > 20);
    lives.into_iter().flatten().for_each(Life::kill);
    drop((remote, store));
}
