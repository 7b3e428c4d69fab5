//! Tests of the allocators: examples of every error, a model, and cost.

#![allow(clippy::unwrap_used)]

mod cost;
mod examples;
mod model;

use std::net::IpAddr;

use crate::Pool;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn pool(subnet: &str) -> Pool {
    Pool::new(subnet.parse().unwrap(), None, (None, None), vec![]).unwrap()
}

/// A pool that gives out `range` only, without `reserved`.
fn narrow(subnet: &str, range: (&str, &str), reserved: &[&str]) -> Pool {
    let reserved = reserved.iter().map(|r| r.parse().unwrap()).collect();
    let range = (Some(ip(range.0)), Some(ip(range.1)));
    Pool::new(subnet.parse().unwrap(), None, range, reserved).unwrap()
}
