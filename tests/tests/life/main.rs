//! Beginnings and ends: collection, reboots, the service manager, the OCI front.

mod collection;
mod node;
mod oci;
mod reboot;
mod systemd;
mod verbs;
