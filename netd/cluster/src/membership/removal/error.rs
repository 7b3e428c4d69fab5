//! Why a node was not removed.

use netd_store::StoreError;

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// Nothing is meant.
    #[error(
        "no lease or node in etcd is named \"{0}\", has that address or that subnet; `netd node \
         list` shows them"
    )]
    NotFound(String),
    /// More than one node is meant.
    #[error("\"{text}\" can mean several: {nodes}; name the id or the subnet instead")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Which there are.
        nodes: String,
    },
    /// The node that was asked.
    #[error(
        "{0} is this node itself; to take it out of the cluster stop netd here, and ask another \
         node"
    )]
    Own(String),
    /// The node answered.
    #[error("{0} runs: it answered just now. Stop netd there first")]
    Alive(String),
    /// Nobody could answer.
    #[error(
        "netd can't tell whether {who} runs, because {why}; make sure that it does not, and use \
         --force"
    )]
    Unknown {
        /// The node.
        who: String,
        /// Why.
        why: &'static str,
    },
    /// Another writer was there in between.
    #[error("the leases of {0} were changed in the meantime: it may run; try again")]
    Changed(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
