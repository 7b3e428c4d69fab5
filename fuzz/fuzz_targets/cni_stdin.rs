//! What a runtime writes to the CNI plugin's standard input, for every command.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| runtime_hook::cni::fuzzing::fuzz(input));
