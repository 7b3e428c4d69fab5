//! What the CNI plugin receives when it asks netd.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd_cni::rpc::fuzzing::fuzz(input));
