//! Records as they stand in the store, each kind, and what is rebuilt from them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd::fuzzing::records(input));
