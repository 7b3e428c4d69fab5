//! Speaks to netd-tunnel.
