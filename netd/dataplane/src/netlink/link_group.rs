//! Which link groups hold links on their way out.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The first link group of parked links: "nd" and a number, nobody else's in all likelihood.
pub(crate) const FIRST_GROUP: u32 = 0x6e64_0000;
/// How many such groups there are; used in turn.
const GROUPS: u32 = 256;
/// Links in a group: holds an attach up by some 10 ms, and removes some 900 a second.
const GROUP_SIZE: u32 = 32;

/// Whether links of this group are on their way out.
pub(crate) fn is_detached(group: u32) -> bool {
    (FIRST_GROUP..FIRST_GROUP + GROUPS).contains(&group)
}

/// Which groups hold parked links.
#[derive(Debug, Default)]
pub(crate) struct LinkGroups(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    parked: u32,
    groups: BTreeSet<u32>,
    /// The groups of an earlier process are among them.
    complete: bool,
}

impl LinkGroups {
    /// The group for the next link; [`LinkGroups::occupied`] has to follow.
    pub(crate) fn next(&self) -> u32 {
        let mut inner = self.0.lock();
        inner.parked = inner.parked.wrapping_add(1);
        FIRST_GROUP + inner.parked / GROUP_SIZE % GROUPS
    }

    /// A link was put in the group. Not before it is there: the reaper forgets a group
    /// when it removes it.
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
