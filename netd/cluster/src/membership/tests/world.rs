//! A store and some nodes, without I/O and with a clock of their own: every step of every
//! node can be delayed, lost, or its last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::super::{
    IdentityUpdate, PeerUpdate, Update,
    diff::{Now, Peers},
    files::OwnFile,
    ownership,
    reconciler::{Action, Completion, Reconciler, Settings, StoreUpdate},
    view::{Part, View},
    writes::NodeIdentity,
};
use crate::{LeaseAttrs, Subnets, flannel};
use netd_store::{
    Change, Compare, Entry, Event, LeaseId, Revision, StoreError, Txn, TxnOutcome,
    keys::ClusterKeys,
};

/// A store as the trait describes it.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub entries: BTreeMap<String, Entry>,
    pub revision: Revision,
    log: Vec<(Revision, Event)>,
    leases: BTreeSet<LeaseId>,
    last_lease: LeaseId,
}

impl World {
    pub(crate) fn grant(&mut self) -> LeaseId {
        self.last_lease += 1;
        self.leases.insert(self.last_lease);
        self.last_lease
    }

    pub(crate) fn is_alive(&self, lease: LeaseId) -> bool {
        self.leases.contains(&lease)
    }

    pub(crate) fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let bound = self.entries.values().filter(|e| e.lease == lease);
        let changes = bound.map(|e| Change::Delete { key: e.key.clone() }).collect();
        self.apply(changes);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.apply(vec![Change::Delete { key: key.to_owned() }]);
    }

    pub(crate) fn put(&mut self, key: &str, value: &str, lease: LeaseId) {
        let value = value.as_bytes().to_vec();
        self.apply(vec![Change::Put { key: key.to_owned(), value, lease }]);
    }

    pub(crate) fn commit(&mut self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        netd_store::rules::check(&txn)?;
        let holds = |compare: &Compare| match (compare, self.entries.get(compare.key())) {
            (Compare::Absent(_), entry) => entry.is_none(),
            (Compare::Present(_), entry) => entry.is_some(),
            (Compare::Unchanged(_, at), entry) => entry.is_some_and(|e| e.mod_revision == *at),
        };
        if !txn.compares.iter().all(holds) {
            let there = txn.compares.iter().filter_map(|c| self.entries.get(c.key()));
            return Ok(TxnOutcome::Conflict(there.cloned().collect()));
        }
        for change in &txn.changes {
            if let Change::Put { lease, .. } = change
                && *lease != 0
                && !self.leases.contains(lease)
            {
                return Err(StoreError::LeaseGone(*lease));
            }
        }
        self.apply(txn.changes);
        Ok(TxnOutcome::Committed(self.revision))
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let revision = self.revision + 1;
        let before = self.log.len();
        for change in changes {
            let event = match change {
                Change::Put { key, value, lease } => {
                    let old = self.entries.get(&key).map(|e| e.create_revision);
                    let create_revision = old.unwrap_or(revision);
                    let mod_revision = revision;
                    let entry =
                        Entry { key: key.clone(), value, create_revision, mod_revision, lease };
                    self.entries.insert(key, entry.clone());
                    Event::Put(entry)
                }
                Change::Delete { key } => {
                    if self.entries.remove(&key).is_none() {
                        continue;
                    }
                    Event::Delete { key, revision }
                }
            };
            self.log.push((revision, event));
        }
        if self.log.len() > before {
            self.revision = revision;
        }
    }

    fn under(&self, prefix: &str) -> Vec<Entry> {
        self.entries.values().filter(|e| e.key.starts_with(prefix)).cloned().collect()
    }

    /// The changes under a prefix of the next `revisions` revisions that have some.
    fn changes(&self, prefix: &str, after: Revision, revisions: usize) -> (Vec<Event>, Revision) {
        let key = |e: &Event| match e {
            Event::Put(e) => e.key.clone(),
            Event::Delete { key, .. } => key.clone(),
        };
        let mine = self.log.iter().filter(|(r, e)| *r > after && key(e).starts_with(prefix));
        let mut found = BTreeMap::<Revision, Vec<Event>>::new();
        mine.for_each(|(r, e)| found.entry(*r).or_default().push(e.clone()));
        let some: Vec<_> = found.into_iter().take(revisions).collect();
        let last = some.last().map_or(after, |(r, _)| *r);
        (some.into_iter().flat_map(|(_, events)| events).collect(), last)
    }
}

/// How an action ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Completion,
    /// The store was never asked.
    Unasked,
    /// The store did it and the answer was lost.
    Unanswered,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub id: String,
    pub incarnation: String,
    pub reconciler: Reconciler,
    pub disk: OwnFile,
    pub used: BTreeSet<Subnets>,
    pub lost: Vec<Subnets>,
    pub peers: BTreeMap<String, LeaseAttrs>,
    pub refused: BTreeMap<String, String>,
    pub news: Vec<Update>,
    settings: Settings,
    attrs: LeaseAttrs,
    doing: Option<Action>,
    answered: Option<Completion>,
    pub commits: usize,
    /// Nothing can be written to its disk.
    pub full: bool,
    at: BTreeMap<u8, Revision>,
}

pub(crate) const TTL: Duration = Duration::from_secs(3600);
pub(crate) const HOLD: Duration = Duration::from_secs(30);

/// `192.0.2.N`, with a MAC of its own.
pub(crate) fn attrs(n: u8) -> LeaseAttrs {
    let text = format!(
        r#"{{"PublicIP":"192.0.2.{n}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{n:02x}"}}}}"#
    );
    flannel::value::parse(text.as_bytes()).unwrap()
}

pub(crate) fn subnets(name: &str) -> Subnets {
    flannel::key::parse(name).unwrap()
}

pub(crate) fn config(len: u8) -> String {
    // It has to be the first address of a subnet.
    let min = if len < 24 { "10.5.2.0" } else { "10.5.1.0" };
    format!(
        r#"{{"Network":"10.5.0.0/20","SubnetLen":{len},"SubnetMin":"{min}","SubnetMax":"10.5.8.0","Backend":{{"Type":"vxlan"}}}}"#
    )
}

/// The clock of a world.
pub(crate) fn clock(passed: Duration) -> Now {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    Now { mono: *BEGAN.get_or_init(Instant::now) + passed, unix: 1_000_000 + passed.as_secs() }
}

fn prefix(part: Part) -> String {
    let keys = ClusterKeys::default();
    if part == Part::Flannel { keys.flannel() } else { keys.cluster() }
}

impl Node {
    pub(crate) fn new(n: u8, settings: Settings) -> Self {
        let id = format!("id-{n}");
        let incarnation = format!("boot-{n}");
        let reconciler = reconciler(&id, &incarnation, &settings, OwnFile::default(), n.into());
        let mut node = Self {
            id,
            incarnation,
            reconciler,
            disk: OwnFile::default(),
            used: BTreeSet::new(),
            lost: vec![],
            peers: BTreeMap::new(),
            refused: BTreeMap::new(),
            news: vec![],
            settings,
            attrs: attrs(n),
            doing: None,
            answered: None,
            commits: 0,
            full: false,
            at: BTreeMap::new(),
        };
        node.reconciler.announce(node.attrs.clone());
        node
    }

    pub(crate) fn plain(n: u8) -> Self {
        Self::new(n, Settings { ttl: TTL, fixed: None, preferred: vec![] })
    }

    pub(crate) fn announce(&mut self, attrs: LeaseAttrs) {
        self.attrs = attrs.clone();
        self.reconciler.announce(attrs);
    }

    /// kill -9, and a start: only the disk is left.
    pub(crate) fn restart(&mut self, seed: u64) {
        let disk = self.disk.clone();
        self.reconciler = reconciler(&self.id, &self.incarnation, &self.settings, disk, seed);
        (self.doing, self.answered) = (None, None);
        self.at.clear();
        self.peers.clear();
        self.refused.clear();
        self.reconciler.announce(self.attrs.clone());
        self.read();
    }

    /// The machine starts again: its kernel and its run directory are new.
    pub(crate) fn reboot(&mut self, seed: u64) {
        self.incarnation = format!("{}, rebooted", self.incarnation);
        self.used.clear();
        self.restart(seed);
    }

    /// Another machine with this one's disk as it is now, at 192.0.2.N.
    pub(crate) fn copied(&self, n: u8) -> Self {
        let mut copy = Self::plain(n);
        (copy.id, copy.disk) = (self.id.clone(), self.disk.clone());
        copy.used.clear();
        copy.restart(n.into());
        copy
    }

    fn read(&mut self) {
        while let Some(update) = self.reconciler.pending.take_next() {
            match &update {
                Update::Own(own) => self.used = own.iter().map(|own| own.subnets).collect(),
                Update::Lost(subnets) => self.lost.push(*subnets),
                Update::Peers(peers) => peers.iter().for_each(|update| match update {
                    PeerUpdate::Set { key, lease, .. } => {
                        self.refused.remove(key);
                        self.peers.insert(key.clone(), lease.attrs.clone());
                    }
                    PeerUpdate::Removed { key } => {
                        self.refused.remove(key);
                        self.peers.remove(key);
                    }
                    PeerUpdate::Refused { key, why } => {
                        self.refused.insert(key.clone(), why.clone());
                    }
                }),
                // The overlay announces what is new.
                Update::Identity(IdentityUpdate::Replaced { .. }) => {
                    self.reconciler.announce(self.attrs.clone());
                }
                _ => {}
            }
            self.news.push(update);
        }
        for subnets in &self.used {
            assert!(
                self.disk.held.contains_key(subnets),
                "{subnets:?} is used before it is on disk"
            );
        }
    }

    /// Looks for something to do. Whether there is.
    pub(crate) fn decide(&mut self, now: Now) -> bool {
        if self.doing.is_none() && self.answered.is_none() {
            self.doing = self.reconciler.next(now);
        }
        self.read();
        self.doing.is_some() || self.answered.is_some()
    }

    /// Does what was decided.
    pub(crate) fn act(&mut self, world: &mut World, fate: Fate) {
        let Some(action) = self.doing.take() else { return };
        let away = || StoreError::Unavailable("away".into());
        let unanswered = fate != Fate::Completion;
        self.answered = Some(match action {
            Action::Save(file) => {
                // The disk fails or does not.
                if self.full || fate == Fate::Unasked {
                    Completion::Saved(file, Err("full".into()))
                } else {
                    self.disk = file.clone();
                    Completion::Saved(file, Ok(()))
                }
            }
            Action::TakeNewId(_) if self.full || fate == Fate::Unasked => {
                Completion::NewId(Err("full".into()))
            }
            Action::TakeNewId(file) => {
                self.id = format!("{}, copied at {:?}", self.id, self.attrs.public_v4);
                self.disk = file.clone();
                // The overlay has new keys and announces them.
                Completion::NewId(Ok((self.id.clone(), file)))
            }
            Action::Relist => {
                self.at.clear();
                Completion::Relisting
            }
            Action::Grant(_) if fate == Fate::Unasked => Completion::Granted(Err(away())),
            Action::Grant(_) => {
                let lease = world.grant();
                Completion::Granted(if unanswered { Err(away()) } else { Ok(lease) })
            }
            Action::KeepAlive(lease) if unanswered => Completion::KeptAlive(lease, Err(away())),
            Action::KeepAlive(lease) => {
                let alive = world.is_alive(lease);
                Completion::KeptAlive(
                    lease,
                    if alive { Ok(()) } else { Err(StoreError::LeaseGone(lease)) },
                )
            }
            Action::Commit(why, txn) => {
                self.commits += 1;
                let asked = (fate != Fate::Unasked).then(|| world.commit(txn.clone()));
                let outcome = asked.filter(|_| !unanswered).unwrap_or_else(|| Err(away()));
                Completion::Committed(why, txn, outcome)
            }
        });
    }

    /// Whether what was decided is to write to disk.
    pub(crate) fn is_saving(&self) -> bool {
        matches!(self.doing, Some(Action::Save(_)))
    }

    /// Learns what became of it.
    pub(crate) fn learn(&mut self, now: Now) {
        if let Some(done) = self.answered.take() {
            self.reconciler.complete(done, now);
        }
        self.read();
    }

    /// Sees the next changes of a part, of some revisions. Whether there were any.
    pub(crate) fn see(&mut self, world: &World, part: Part, revisions: usize, now: Now) -> bool {
        let prefix = prefix(part);
        let Some(at) = self.at.get(&(part as u8)).copied() else {
            self.list(world, part, now);
            return true;
        };
        let (events, revision) = world.changes(&prefix, at, revisions);
        self.at.insert(part as u8, revision);
        let any = !events.is_empty();
        if any {
            self.reconciler.ingest(part, StoreUpdate::Changes(events, revision), now);
            self.read();
        }
        any
    }

    /// Lists a part again.
    pub(crate) fn list(&mut self, world: &World, part: Part, now: Now) {
        self.at.insert(part as u8, world.revision);
        self.reconciler.ingest(
            part,
            StoreUpdate::List(world.under(&prefix(part)), world.revision),
            now,
        );
        self.read();
    }

    pub(crate) fn fails(&mut self, part: Part, now: Now) {
        self.reconciler.ingest(part, StoreUpdate::Failed("away".into()), now);
        self.read();
    }
}

fn reconciler(
    id: &str,
    incarnation: &str,
    settings: &Settings,
    disk: OwnFile,
    seed: u64,
) -> Reconciler {
    let (name, version) = (format!("node-{id}"), "1".into());
    let me = NodeIdentity { id: id.into(), name, version, incarnation: incarnation.into() };
    let view = View::new(ClusterKeys::default());
    let peers = Peers::new(BTreeMap::new(), HOLD);
    let mut reconciler = Reconciler::new(settings.clone(), me, view, disk, peers);
    reconciler.seed(seed);
    reconciler
}

/// Lets everything happen that is to happen within `within`; the time that is then.
pub(crate) fn rest(
    world: &mut World,
    nodes: &mut [Node],
    mut passed: Duration,
    within: Duration,
) -> Duration {
    let end = passed + within;
    loop {
        let now = clock(passed);
        let mut busy = true;
        let mut rounds = 0;
        while busy {
            busy = false;
            rounds += 1;
            assert!(rounds < 10_000, "the nodes never come to rest");
            for node in nodes.iter_mut() {
                busy |= node.see(world, Part::Flannel, 100, now);
                busy |= node.see(world, Part::Cluster, 100, now);
                busy |= node.decide(now);
                node.act(world, Fate::Completion);
                node.learn(now);
            }
        }
        let wake = nodes.iter().filter_map(|node| node.reconciler.wake_at(now)).min();
        let wake = wake.map(|at| at.saturating_duration_since(clock(Duration::ZERO).mono));
        match wake.filter(|at| *at <= end) {
            Some(at) => passed = at,
            None => return end,
        }
    }
}

/// No two nodes use one address.
pub(crate) fn assert_disjoint(nodes: &[Node]) {
    for (n, a) in nodes.iter().enumerate() {
        for b in nodes.iter().skip(n + 1) {
            for (x, y) in a.used.iter().flat_map(|x| b.used.iter().map(move |y| (x, y))) {
                assert!(!ownership::overlap(x, y), "{} uses {x:?} and {} {y:?}", a.id, b.id);
            }
        }
    }
}
