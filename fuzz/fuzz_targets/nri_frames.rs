//! What a runtime sends over the NRI connection.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| runtime_hook::nri::fuzzing::fuzz(input));
