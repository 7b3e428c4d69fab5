//! What another source of the cluster's truth than etcd needs: the loop behind a
//! [`Membership`](super::Membership) of its own takes [`Command`]s, and tells [`PendingUpdates`].

pub use super::{
    command::Command,
    config_in_force::ConfigInForce,
    diff::{Known, Now, Peers, Seen},
    files::{read_json, write},
    left::vtep,
    ownership::overlap,
    pending_updates::PendingUpdates,
    saver::PeersSaver,
    waiting::{Doing, at, finished, now},
};
