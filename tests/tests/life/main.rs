//! Beginnings and ends: collection, reboots, the service manager, the OCI front.

mod capabilities;
mod collection;
mod node;
mod oci;
mod pid_namespace;
mod reboot;
mod systemd;
mod verbs;
