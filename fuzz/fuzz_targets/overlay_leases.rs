//! The overlay's configuration and leases as they stand in etcd, and what is made of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd::fuzzing::leases(input));
