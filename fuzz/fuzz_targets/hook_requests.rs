//! What a hook sends over its socket: ttrpc frames and descriptors, and the calls in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd::fuzzing::hook(input));
