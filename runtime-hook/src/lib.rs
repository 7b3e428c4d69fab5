//! The hook.
