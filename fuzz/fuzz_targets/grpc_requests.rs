//! Requests as they come over gRPC: decoded, checked, turned into domain values.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd::fuzzing::requests(input));
