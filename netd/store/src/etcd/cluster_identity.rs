//! Whether etcd still holds the data that it held before.
//!
//! Data restored from a backup has lower revisions than were seen, until new changes
//! have passed them. Then raft's log tells it, because a restored cluster starts a new one: each
//! entry makes one revision at most, so that the surplus of entries over revisions only
//! grows in one log, and falls by the backup's revision with a new one. What was restored
//! escapes only if it then saw more leases and elections than the backup has revisions.

use crate::Revision;

/// What a member reported: first the revision, by a read that all earlier changes go before,
/// then the index of the last entry that raft has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub cluster: u64,
    pub revision: Revision,
    /// Not known to a user without rights.
    pub index: Option<i64>,
}

/// What was known when a question was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: u64,
    cluster: Option<u64>,
    revision: Revision,
    index: i64,
    surplus: i64,
    peak: Revision,
}

/// What is known about the identity of etcd's data.
#[derive(Debug)]
pub(super) struct ClusterIdentity {
    /// How often other data took the place of what was there.
    epoch: u64,
    cluster: Option<u64>,
    revision: Revision,
    index: i64,
    /// raft has at least so many more entries than there are revisions.
    surplus: i64,
    /// The greatest revision of any epoch.
    peak: Revision,
}

impl Default for ClusterIdentity {
    fn default() -> Self {
        Self { epoch: 0, cluster: None, revision: 0, index: 0, surplus: i64::MIN, peak: 0 }
    }
}

impl ClusterIdentity {
    pub(super) fn mark(&self) -> Mark {
        let Self { epoch, cluster, revision, index, surplus, peak } = *self;
        Mark { epoch, cluster, revision, index, surplus, peak }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A revision that any answer has named.
    pub(super) fn seen(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.peak = self.peak.max(revision);
    }

    /// The last entry that a member had applied, and then its revision.
    pub(super) fn applied(&mut self, epoch: u64, index: i64, revision: Revision) {
        if epoch == self.epoch {
            self.surplus = self.surplus.max(index.saturating_sub(revision));
        }
    }

    /// Takes up what was seen after `mark`; begins another epoch if the data was replaced.
    pub(super) fn judge(&mut self, mark: Mark, now: Observation) {
        let other_log =
            |index: i64| index < mark.index || index.saturating_sub(now.revision) < mark.surplus;
        let other = mark.cluster.is_some_and(|cluster| cluster != now.cluster)
            || now.revision < mark.revision
            || now.index.is_some_and(other_log);
        // Another request may have found out while the answer was on its way.
        if other && mark.epoch == self.epoch {
            let (epoch, peak) = (self.epoch + 1, self.peak);
            *self = Self { epoch, peak, ..Self::default() };
        }
        self.cluster = Some(now.cluster);
        self.index = self.index.max(now.index.unwrap_or(0));
        self.seen(now.revision);
    }

    /// Whether what follows `after`, a revision of `epoch`, can still be told: etcd, asked
    /// after `mark`, was at `now`. A revision that no answer has named yet may be waited for.
    pub(super) fn can_resume(
        &self,
        mark: Mark,
        epoch: u64,
        after: Revision,
        now: Revision,
    ) -> bool {
        epoch == self.epoch && (after <= now || after > mark.peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cluster: u64, revision: Revision, index: i64) -> Observation {
        Observation { cluster, revision, index: Some(index) }
    }

    fn next(identity: &mut ClusterIdentity, now: Observation) -> u64 {
        let mark = identity.mark();
        identity.judge(mark, now);
        identity.epoch()
    }

    #[test]
    fn going_on_is_no_new_epoch() {
        let mut identity = ClusterIdentity::default();
        for now in [at(7, 10, 12), at(7, 10, 12), at(7, 11, 15)] {
            assert_eq!(next(&mut identity, now), 0);
        }
        assert_eq!(next(&mut identity, Observation { index: None, ..at(7, 11, 0) }), 0);
        let mark = identity.mark();
        assert!(identity.can_resume(mark, 0, 9, 11) && identity.can_resume(mark, 0, 12, 11));
        // Reached by another program while the answer was on its way.
        identity.seen(12);
        assert!(identity.can_resume(mark, 0, 12, 11));
    }

    #[test]
    fn other_data_is_known_by_cluster_revision_or_index() {
        for now in [at(8, 10, 12), at(7, 9, 12), at(7, 50, 11)] {
            let mut identity = ClusterIdentity::default();
            next(&mut identity, at(7, 10, 12));
            assert_eq!(next(&mut identity, now), 1, "{now:?}");
            let mark = identity.mark();
            assert!(!identity.can_resume(mark, 0, 5, now.revision));
            assert!(identity.can_resume(mark, 1, 5, now.revision));
            assert_eq!(next(&mut identity, now), 1, "told once");
        }
    }

    #[test]
    fn other_data_is_known_by_its_log_when_it_has_passed_the_old_one() {
        let mut identity = ClusterIdentity::default();
        next(&mut identity, at(7, 1000, 1200));
        identity.applied(0, 1200, 1000);
        // Changes (one entry, one revision), elections and leases (no revision).
        for now in [at(7, 5000, 5200), at(7, 5000, 9999)] {
            assert_eq!(next(&mut identity, now), 0);
        }
        // From a backup at revision 4000, 6000 changes and 100 others later.
        assert_eq!(next(&mut identity, at(7, 10_000, 6100)), 1);
        assert_eq!(next(&mut identity, at(7, 10_001, 6101)), 1);
        identity.applied(0, 1_000_000, 1);
        assert_eq!(next(&mut identity, at(7, 10_002, 6102)), 1, "of the old data");
    }

    #[test]
    fn an_answer_that_was_overtaken_is_no_new_epoch() {
        let mut identity = ClusterIdentity::default();
        let early = identity.mark();
        next(&mut identity, at(7, 20, 30));
        identity.judge(early, at(7, 10, 12));
        assert_eq!(identity.epoch(), 0);
        // Two askers find the same thing out.
        let mark = identity.mark();
        identity.judge(mark, at(7, 5, 6));
        identity.judge(mark, at(7, 6, 7));
        assert_eq!(identity.epoch(), 1);
    }

    #[test]
    fn a_revision_of_the_replaced_data_is_not_waited_for() {
        let mut identity = ClusterIdentity::default();
        identity.seen(100);
        next(&mut identity, at(7, 90, 9));
        assert_eq!(identity.epoch(), 1);
        let mark = identity.mark();
        assert!(!identity.can_resume(mark, 1, 100, 90), "named by a list before");
        assert!(identity.can_resume(mark, 1, 101, 90), "never seen");
    }
}
