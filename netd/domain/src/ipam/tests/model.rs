//! Random sequences, against a model that is slow and obvious.

use std::{collections::BTreeSet, net::IpAddr};

use proptest::prelude::*;

use super::{ip, narrow, pool};
use crate::Pool;
use crate::ipam::{Family, IpamError, NetworkAllocator, PoolAllocator};

#[derive(Debug, Clone)]
enum Step {
    Allocate,
    Request(usize),
    Release(usize),
    ReleaseAny(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Allocate),
        2 => (0usize..80).prop_map(Step::Request),
        4 => (0usize..80).prop_map(Step::Release),
        1 => (0usize..80).prop_map(Step::ReleaseAny),
        1 => Just(Step::Restart),
    ]
}

fn networks() -> impl Strategy<Value = Vec<Pool>> {
    let v4 = pool("10.1.0.0/29");
    let more = narrow("10.2.0.0/24", ("10.2.0.1", "10.2.0.9"), &["10.2.0.4/31"]);
    let v6 = narrow("fd00::/64", ("fd00::f0", "fd00::fb"), &["fd00::f8/126", "fd00::f3/128"]);
    let tiny6 = pool("fd01::/125");
    prop_oneof![
        Just(vec![v4.clone()]),
        Just(vec![tiny6.clone()]),
        Just(vec![v4.clone(), v6.clone()]),
        Just(vec![v6.clone(), v4.clone(), tiny6.clone(), more.clone()]),
        Just(vec![more, v4]),
    ]
}

/// Every address near the pools, whether it can be given out or not.
fn candidates() -> Vec<IpAddr> {
    let v4 = (0..10).flat_map(|n| [format!("10.1.0.{n}"), format!("10.2.0.{n}")]);
    let v6 = (0..16).map(|n| format!("fd00::f{n:x}")).chain((0..8).map(|n| format!("fd01::{n}")));
    let odd = ["10.2.0.10", "10.3.0.1", "fd02::1"].map(String::from);
    v4.chain(v6).chain(odd).map(|s| ip(&s)).collect()
}

/// Whether a pool may ever give `ip` out, said once more in plain words.
fn may(pool: &Pool, ip: IpAddr) -> bool {
    pool.subnet.contains(&ip)
        && ip != pool.gateway
        && ip != pool.subnet.network()
        && (ip.is_ipv6() || ip != pool.subnet.broadcast())
        && (pool.range_start..=pool.range_end).contains(&ip)
        && !pool.reserved.iter().any(|net| net.contains(&ip))
}

struct Model {
    pools: Vec<Pool>,
    fresh: BTreeSet<(usize, IpAddr)>,
    freed: Vec<IpAddr>,
    used: BTreeSet<IpAddr>,
    last: [Option<(usize, IpAddr)>; 2],
}

impl Model {
    fn new(pools: &[Pool]) -> Self {
        let all = candidates();
        let of = |(i, p): (usize, &Pool)| {
            all.iter().filter(|ip| may(p, **ip)).map(|ip| (i, *ip)).collect::<Vec<_>>()
        };
        Self {
            fresh: pools.iter().enumerate().flat_map(of).collect(),
            pools: pools.to_vec(),
            freed: vec![],
            used: BTreeSet::new(),
            last: [None; 2],
        }
    }

    fn has(&self, v4: bool) -> bool {
        self.pools.iter().any(|p| p.is_v4() == v4)
    }

    fn next(&self, v4: bool) -> Option<IpAddr> {
        let own = |(_, ip): &&(usize, IpAddr)| ip.is_ipv4() == v4;
        let after = self.last[usize::from(!v4)];
        let next = after.and_then(|last| self.fresh.range(last..).find(own));
        let next = next.or_else(|| self.fresh.iter().find(own)).map(|(_, ip)| *ip);
        next.or_else(|| self.freed.iter().find(|ip| ip.is_ipv4() == v4).copied())
    }

    fn free(&self, ip: IpAddr) -> bool {
        self.freed.contains(&ip) || self.fresh.iter().any(|(_, f)| *f == ip)
    }

    /// What an allocation has to answer; `None`: an error.
    fn allocate(&mut self, request: Option<IpAddr>) -> Option<Vec<IpAddr>> {
        let mut got = vec![];
        for v4 in [true, false] {
            match request.filter(|ip| ip.is_ipv4() == v4) {
                Some(ip) => got.push(Some(ip).filter(|ip| self.free(*ip))?),
                None if self.has(v4) => got.push(self.next(v4)?),
                None => {}
            }
        }
        if request.is_some_and(|ip| !got.contains(&ip)) {
            return None;
        }
        for ip in &got {
            self.fresh.retain(|(_, f)| f != ip);
            self.freed.retain(|f| f != ip);
            self.used.insert(*ip);
            if request != Some(*ip) {
                let index = self.pools.iter().position(|p| p.subnet.contains(ip)).unwrap();
                self.last[usize::from(ip.is_ipv6())] = Some((index, *ip));
            }
        }
        Some(got)
    }

    fn release(&mut self, ip: IpAddr) -> bool {
        let held = self.used.remove(&ip);
        if held {
            self.freed.push(ip);
        }
        held
    }

    fn restarted(&self) -> NetworkAllocator {
        let last: Vec<_> = self.last.iter().flatten().map(|(_, ip)| *ip).collect();
        let used = self.used.iter().copied();
        NetworkAllocator::restore(&self.pools, used, self.freed.iter().copied(), &last)
    }
}

fn check_sums(network: &NetworkAllocator) -> Result<(), TestCaseError> {
    for (fresh, freed, used, size) in network.pools().iter().map(PoolAllocator::census) {
        prop_assert_eq!(fresh + freed as u128 + used as u128, size, "an address leaked");
    }
    Ok(())
}

fn check_full(network: &NetworkAllocator, err: &IpamError) -> Result<(), TestCaseError> {
    if let IpamError::PoolFull { family, pools } = err {
        prop_assert!(pools.iter().all(|p| p.size == p.used));
        let own = |s: &ipnet::IpNet| Family::of(s.addr()) == *family;
        let now: Vec<_> = network.usage().into_iter().filter(|u| own(&u.subnet)).collect();
        prop_assert_eq!(&now, pools);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_with_restarts_gives_what_the_model_gives(
        pools in networks(),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let all = candidates();
        let mut model = Model::new(&pools);
        let mut network = NetworkAllocator::new(&pools);
        for step in steps {
            let request = match step {
                Step::Request(i) => Some(all[i % all.len()]),
                _ => None,
            };
            match step {
                Step::Allocate | Step::Request(_) => {
                    let held = model.used.clone();
                    let expected = model.allocate(request);
                    let asked: Vec<_> = request.into_iter().collect();
                    let got = network.allocate(&asked);
                    if let Err(err) = &got {
                        check_full(&network, err)?;
                    }
                    for one in got.iter().flatten() {
                        prop_assert!(!held.contains(&one.ip), "{} twice", one.ip);
                        prop_assert!(may(&pools[one.pool_index], one.ip), "{} given", one.ip);
                    }
                    let got = got.ok().map(|all| all.iter().map(|a| a.ip).collect::<Vec<_>>());
                    prop_assert_eq!(got, expected);
                }
                Step::Release(i) if !model.used.is_empty() => {
                    let ip = *model.used.iter().nth(i % model.used.len()).unwrap();
                    prop_assert!(model.release(ip) && network.release(ip));
                }
                Step::ReleaseAny(i) => {
                    let ip = all[i % all.len()];
                    prop_assert_eq!(network.release(ip), model.release(ip));
                }
                Step::Restart => network = model.restarted(),
                Step::Release(_) => {}
            }
            check_sums(&network)?;
            prop_assert!(all.iter().all(|ip| network.is_used(*ip) == model.used.contains(ip)));
        }
    }

    #[test]
    fn forgetting_the_order_of_old_releases_loses_no_address(
        pools in networks(),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut used = BTreeSet::new();
        let mut network = NetworkAllocator::remembering(&pools, 2);
        for step in steps {
            match step {
                Step::Release(i) | Step::ReleaseAny(i) | Step::Request(i) if !used.is_empty() => {
                    let ip = *used.iter().nth(i % used.len()).unwrap();
                    prop_assert!(used.remove(&ip) && network.release(ip));
                }
                _ => match network.allocate(&[]) {
                    Ok(got) => prop_assert!(got.iter().all(|a| used.insert(a.ip))),
                    Err(err) => check_full(&network, &err)?,
                },
            }
            check_sums(&network)?;
            prop_assert!(network.pools().iter().all(|p| p.pieces().1 <= 2));
        }
    }
}
