//! One case each.
