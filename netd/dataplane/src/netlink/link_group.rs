//! Link groups of endpoints, and of detached links: the kernel removes all links of a group
//! at once.
//!
//! Removing one veth costs its caller 20 ms in `rcu_barrier`, and ten veths in one message
//! cost as much as ten messages. Removing a group costs those 20 ms once. Meanwhile nobody
//! else gets the kernel's rtnl lock (0.3-0.5 ms a link), so links are spread over many
//! small groups, and attaches go on in between.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The first link group of detached links: "nd" and a number, which no other program is
/// likely to use.
pub(crate) const FIRST_GROUP: u32 = 0x6e64_0000;
/// How many groups there are. They are used in turn.
const GROUPS: u32 = 256;
/// Links in a group: removing so many delays an attach by some 10 ms, and removes some
/// 900 links a second.
const GROUP_SIZE: u32 = 32;

/// The link group of the host's sides of living endpoints: by it the firewall knows whose
/// packets it has to check. It comes with the link and goes with it, and no other program's
/// device is in it by its name.
pub(crate) const ENDPOINT_GROUP: u32 = FIRST_GROUP + GROUPS;

/// Whether links of this group are detached and about to be removed.
pub(crate) fn is_detached(group: u32) -> bool {
    (FIRST_GROUP..FIRST_GROUP + GROUPS).contains(&group)
}

/// The groups that hold detached links.
#[derive(Debug, Default)]
pub(crate) struct LinkGroups(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    detached: u32,
    groups: BTreeSet<u32>,
    /// Whether the groups that an earlier process filled are among `groups`.
    complete: bool,
}

impl LinkGroups {
    /// The group for the next link. Call [`LinkGroups::occupied`] once the link is in it.
    pub(crate) fn next(&self) -> u32 {
        let mut inner = self.0.lock();
        inner.detached = inner.detached.wrapping_add(1);
        FIRST_GROUP + inner.detached / GROUP_SIZE % GROUPS
    }

    /// Notes that a link was put into the group. Only then: the reaper forgets a group when
    /// it removes the group's links, and a link that came later would stay.
    pub(crate) fn occupied(&self, group: u32) {
        self.0.lock().groups.insert(group);
    }

    /// Takes out one group that holds links.
    pub(crate) fn pop(&self) -> Option<u32> {
        self.0.lock().groups.pop_first()
    }

    /// Whether the groups that an earlier process filled are known.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.lock().complete
    }

    /// Adds the groups of the links that an earlier process left.
    pub(crate) fn complete(&self, groups: impl Iterator<Item = u32>) {
        let mut inner = self.0.lock();
        inner.groups.extend(groups.filter(|group| is_detached(*group)));
        inner.complete = true;
    }
}
