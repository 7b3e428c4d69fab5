//! Address allocation: pure arithmetic, no I/O.
