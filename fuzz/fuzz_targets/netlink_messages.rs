//! What the kernel says on netlink sockets: links, addresses, routes, queues, nftables
//! and connections.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd::fuzzing::netlink(input));
