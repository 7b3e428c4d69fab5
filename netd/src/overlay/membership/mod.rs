//! This node's leases, and what is known of the others'.
