//! What a runtime writes to the CNI plugin's standard input, for every command.
#![no_main]

use libfuzzer_sys::fuzz_target;

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"];

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (choice, stdin) = input;
    let command = COMMANDS[usize::from(choice) % COMMANDS.len()];
    let lookup = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "fuzz",
            "CNI_NETNS" => "/nonexistent",
            "CNI_IFNAME" => "eth0",
            _ => return None,
        };
        Some(value.into())
    };
    // A config that passes ends in "no netd at that socket", which is an error too.
    let _ = runtime_hook::cni::run(&lookup, stdin.as_slice(), 1);
});
