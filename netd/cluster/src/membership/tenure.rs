//! Whether this node's id is this machine's: another one may have a copy of its disk. Pure.
//!
//! A node's record in the store says which incarnation of the node wrote it last. Where that
//! is another one than this, either this machine was rebooted and the other has ended, or
//! the other is a machine that runs. So this one asks: it writes itself into the record as
//! its contender, by compare-and-swap. Who runs answers by writing the record again, and
//! keeps the id; who does not answer in time has lost it. An answer is a matter of
//! milliseconds, unless that machine is cut off from the store.

use std::time::{Duration, Instant};

use super::{
    records::NodeRecord,
    view::NodeKey,
    writes::{self, NodeIdentity},
};
use crate::LeaseAttrs;
use netd_store::{Revision, Txn, keys::ClusterKeys};

/// How long an answer may take where the record names this machine's address: most likely
/// it was rebooted, and pods wait.
const SAME_ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// The same where it names another address: most likely one is a copy of the other.
const OTHER_ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Tenure {
    /// Whether the node may use what it has: its record was seen to be this incarnation's, or
    /// it goes on as it was before netd was started again.
    pub in_use: bool,
    contest: Option<Contest>,
    /// Who was challenged last, and how long an answer may take.
    asked: Option<(Option<String>, Duration)>,
}

/// A record of another incarnation, and what is known of it.
#[derive(Debug)]
struct Contest {
    /// `None`: a netd that knew no incarnations.
    rival: Option<String>,
    /// The record's revision.
    at: Revision,
    until: Instant,
    /// Whether this machine is the contender; else it waits for another one's contest to end.
    challenged: bool,
}

/// This machine, which asks.
struct Asker<'a> {
    keys: &'a ClusterKeys,
    me: &'a NodeIdentity,
    attrs: &'a LeaseAttrs,
}

/// What follows from a node's record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// The id is this machine's.
    Ours,
    /// The record is to be written before anything else.
    Write,
    /// Another incarnation is to be asked whether it lives.
    Challenge(Txn),
    /// The other may still answer.
    WaitUntil(Instant),
    /// This node's address is not known yet.
    Undecided,
    /// Another machine has the id; which.
    Theirs(String),
}

impl Tenure {
    /// Of a node that may use what it has, or has to find out first.
    pub(super) fn new(in_use: bool) -> Self {
        Self { in_use, contest: None, asked: None }
    }

    /// What to do about this node's record. `attrs`: what is announced; `None`: nothing yet.
    pub(super) fn judge(
        &mut self,
        keys: &ClusterKeys,
        node: Option<&NodeKey>,
        me: &NodeIdentity,
        attrs: Option<&LeaseAttrs>,
        now: Instant,
    ) -> Verdict {
        let read = node.and_then(|node| Some((node, node.record.as_ref().ok()?)));
        let Some((node, record)) = read else {
            self.contest = None;
            return if self.in_use { Verdict::Ours } else { Verdict::Write };
        };
        if record.incarnation.as_ref() == Some(&me.incarnation) {
            (self.contest, self.in_use) = (None, true);
            // Who asks must not wait until all else is written.
            return if record.contender.is_some() { Verdict::Write } else { Verdict::Ours };
        }
        let Some(attrs) = attrs else { return Verdict::Undecided };
        let asker = Asker { keys, me, attrs };
        let contest = self.contest.as_ref().filter(|c| c.rival == record.incarnation);
        let Some(Contest { at, until, challenged, .. }) = contest else {
            return self.begin(&asker, node, record, now);
        };
        let (unchanged, until, challenged) = (*at == node.modified, *until, *challenged);
        match (unchanged, challenged) {
            (true, _) if now < until => Verdict::WaitUntil(until),
            (true, true) => Verdict::Write,
            (true, false) => self.challenge(&asker, node, record),
            (false, true) if record.contender.is_none() => {
                self.contest = None;
                Verdict::Theirs(who(record))
            }
            (false, _) => self.begin(&asker, node, record, now),
        }
    }

    /// The challenge is in the store: whatever is written to the record after `at` is an answer,
    /// also if it comes into sight together with the challenge.
    pub(super) fn challenged(&mut self, at: Revision, now: Instant) {
        if let Some((rival, answer_within)) = self.asked.take() {
            let until = now + answer_within;
            self.contest = Some(Contest { rival, at, until, challenged: true });
        }
    }

    fn challenge(&mut self, asker: &Asker<'_>, node: &NodeKey, record: &NodeRecord) -> Verdict {
        let Asker { keys, me, attrs } = asker;
        self.asked = Some((record.incarnation.clone(), answer_within(record, attrs)));
        let record = NodeRecord { contender: Some(me.incarnation.clone()), ..record.clone() };
        Verdict::Challenge(writes::challenge(keys.node(&me.id), node, &record))
    }

    fn begin(
        &mut self,
        asker: &Asker<'_>,
        node: &NodeKey,
        record: &NodeRecord,
        now: Instant,
    ) -> Verdict {
        let Some(contender) = &record.contender else {
            self.contest = None;
            return self.challenge(asker, node, record);
        };
        let challenged = *contender == asker.me.incarnation;
        let answer_within = answer_within(record, asker.attrs);
        // Another contender writes the record itself when its time is over.
        let until = now + if challenged { answer_within } else { answer_within * 2 };
        let rival = record.incarnation.clone();
        self.contest = Some(Contest { rival, at: node.modified, until, challenged });
        Verdict::WaitUntil(until)
    }
}

fn answer_within(record: &NodeRecord, attrs: &LeaseAttrs) -> Duration {
    let same = record.public_ip == attrs.public_v4 && record.public_ipv6 == attrs.public_v6;
    if same { SAME_ADDRESS_TIMEOUT } else { OTHER_ADDRESS_TIMEOUT }
}

/// A machine, for people.
pub(super) fn who(record: &NodeRecord) -> String {
    let v4 = record.public_ip.map(|ip| ip.to_string());
    let ips: Vec<_> = v4.into_iter().chain(record.public_ipv6.map(|ip| ip.to_string())).collect();
    format!("node {} at {}", record.name, ips.join(", "))
}
