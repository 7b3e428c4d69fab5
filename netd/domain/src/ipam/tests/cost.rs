//! Cost by structure: every step is a few look-ups in ordered maps of so many
//! pieces, so the number of pieces bounds both time and memory.

use super::{ip, pool};
use crate::ipam::{MAX_FREED, NetworkAllocator};

fn pieces(network: &NetworkAllocator) -> (usize, usize) {
    network.pools()[0].pieces()
}

#[test]
fn filling_a_slash_16_never_makes_more_than_one_piece() {
    let mut network = NetworkAllocator::new(&[pool("10.1.0.0/16")]);
    let size = network.usage()[0].size;
    assert_eq!(size, 65_533);
    for left in (0..size).rev() {
        network.allocate(&[]).unwrap();
        assert_eq!(pieces(&network), (usize::from(left > 0), 0));
    }
    network.allocate(&[]).unwrap_err();
}

#[test]
fn churn_in_a_nearly_full_slash_16_adds_no_pieces() {
    let mut network = NetworkAllocator::new(&[pool("10.1.0.0/16")]);
    let mut held: std::collections::VecDeque<_> =
        (0..65_500).map(|_| network.allocate(&[]).unwrap()[0].ip).collect();
    for _ in 0..10_000 {
        network.release(held.pop_front().unwrap());
        held.push_back(network.allocate(&[]).unwrap()[0].ip);
        let (ranges, freed) = pieces(&network);
        assert!(ranges <= 1 && freed <= 33, "{ranges} ranges, {freed} freed");
    }
}

#[test]
fn a_slash_64_costs_what_an_empty_slash_24_costs() {
    for subnet in ["10.1.0.0/24", "fd00::/64", "fd00::/16"] {
        let mut network = NetworkAllocator::new(&[pool(subnet)]);
        assert_eq!(pieces(&network), (1, 0), "{subnet}");
        for _ in 0..200 {
            network.allocate(&[]).unwrap();
            assert_eq!(pieces(&network), (1, 0), "{subnet}");
        }
    }
}

#[test]
fn scattered_static_addresses_cost_one_piece_each() {
    let mut network = NetworkAllocator::new(&[pool("fd00::/64")]);
    for n in 1..=1000u32 {
        network.allocate(&[ip(&format!("fd00::{n:x}:5"))]).unwrap();
        assert!(pieces(&network).0 <= n as usize + 1);
    }
}

#[test]
fn remembered_releases_are_bounded_and_forgotten_ones_become_fresh_again() {
    let mut network = NetworkAllocator::new(&[pool("fd00::/64")]);
    for _ in 0..MAX_FREED + 1000 {
        let got = network.allocate(&[]).unwrap();
        network.release(got[0].ip);
    }
    let (ranges, freed) = pieces(&network);
    assert_eq!((ranges, freed), (2, MAX_FREED));
    // The forgotten ones lie behind the cursor: not even they come again soon.
    let next = network.allocate(&[]).unwrap()[0].ip;
    assert_eq!(next, ip(&format!("fd00::{:x}:{:x}", 1, 1000 + 2)));
}
