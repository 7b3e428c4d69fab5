//! Whose this node's id is, and what follows from that.

use std::time::{Duration, Instant};

use super::{IdentityUpdate, Reconciler, Verdict};
use crate::membership::{diff::Now, view::Part};

/// After a reboot, so long is waited for the store before what the node remembers counts
/// without it.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Decides whether the node's id is this machine's.
    pub(super) fn judge_identity(&mut self, now: Now) {
        if self.displaced.is_some() {
            return;
        }
        let me = &self.claims.me;
        let (keys, node) = (&self.view.keys, self.view.nodes.get(&me.id));
        let attrs = self.claims.attrs.as_ref().filter(|_| self.announced);
        self.verdict = self.tenure.judge(keys, node, me, attrs, now.mono);
        match self.verdict.clone() {
            Verdict::Theirs(who) => self.is_displaced(who),
            Verdict::Challenge(_) | Verdict::WaitUntil(_) => self.is_contested(),
            Verdict::Write | Verdict::Undecided => {}
            Verdict::Ours => {
                if self.identity_problem.take().is_some() {
                    tracing::info!("no other machine has this node's id");
                    self.pending.identity(IdentityUpdate::Confirmed);
                }
            }
        }
    }

    fn is_contested(&mut self) {
        if self.identity_problem.is_some() {
            return;
        }
        let id = &self.claims.me.id;
        let record = self.view.nodes.get(id).and_then(|node| node.record.as_ref().ok());
        let who = record.map(|record| crate::membership::tenure::who(record)).unwrap_or_default();
        let in_use = self.tenure.in_use;
        let why = format!(
            "{who} has this node's id {id} according to etcd: this machine was rebooted, or one is \
             a copy of the other; asking whether it runs"
        );
        tracing::info!("{why}");
        self.identity_problem = Some(why.clone());
        self.pending.identity(IdentityUpdate::Contested { in_use, why });
    }

    /// Another machine runs with this node's id: nothing that it has is used any longer.
    fn is_displaced(&mut self, who: String) {
        let id = &self.claims.me.id;
        tracing::warn!(
            "{who} runs with this node's id {id}: one is a copy of the other. This one leaves it \
             the id and the subnets, and takes a new id"
        );
        for own in self.told.iter().flatten() {
            self.pending.lost(own.subnets);
        }
        self.tenure.in_use = false;
        self.announced = false;
        self.identity_problem = Some(format!("{who} runs with the id {id} that this node had"));
        self.displaced = Some(who);
        self.claims.forget_all();
        self.tell_own();
    }

    /// Without the store nobody can be asked. A node that is where it was goes on as it was,
    /// after a reboot too.
    pub(super) fn go_on_without_store(&mut self, now: Now) {
        let began = *self.began.get_or_insert(now.mono);
        if !self.waits_for_store() || now.mono < began + STORE_TIMEOUT {
            return;
        }
        let (known, attrs) = (&self.saved.attrs, &self.claims.attrs);
        let address = |attrs: &crate::LeaseAttrs| (attrs.public_v4, attrs.public_v6);
        if self.announced && known.as_ref().map(address) == attrs.as_ref().map(address) {
            tracing::warn!("etcd is out of reach: going on with the subnets that are remembered");
            self.tenure.in_use = true;
            self.tell_own();
        }
    }

    /// When [`Self::go_on_without_store`] has something to do.
    pub(super) fn goes_on_at(&self) -> Option<Instant> {
        self.began.filter(|_| self.waits_for_store()).map(|began| began + STORE_TIMEOUT)
    }

    fn waits_for_store(&self) -> bool {
        let listed = self.view.at(Part::Cluster).is_some();
        !self.tenure.in_use && !listed && !self.saved.held.is_empty() && self.displaced.is_none()
    }
}
