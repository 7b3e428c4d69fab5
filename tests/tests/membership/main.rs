//! Membership on a real etcd: members lost, all of them, history cut off and turned back.

mod large;
mod node;
mod rough;
