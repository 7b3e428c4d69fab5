//! Beginnings and ends: collection, reboots, the service manager, the OCI front.

mod capabilities;
mod collection;
mod descriptors;
mod hang;
mod namespaces;
mod node;
mod oci;
mod old_pods;
mod pid_namespace;
mod reboot;
mod records_lost;
mod start;
mod systemd;
mod two_netds;
mod verbs;
