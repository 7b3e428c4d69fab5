//! Pods on this node that netd has no record of: other CNI plugins made them, or netd's
//! records were lost. Their addresses are not given out and their links are left alone,
//! until the kernel says that they are gone.

mod decide;
mod detach;
mod host_local;
mod scan;
