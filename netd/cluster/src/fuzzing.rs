//! For fuzzing: hostile values in etcd, and how they are read.

use super::{
    Identity, Lease, Local, Subnets, Underlay,
    backend::PeerProblem,
    desired::{Desired, PeerState},
    flannel::{config, key, subnet_env::SubnetEnv, value},
};
use netd_domain::{Mac, overlay::SecretKey};
use netd_store::Revision;

/// Lines: a configuration, then changes of leases in their order. `NAME VALUE` sets one (the
/// longer the value, the later it was created), `NAME` alone removes it. What comes of them one by one is what comes of those that are
/// left. Each line is also tried as a `subnet.env`.
pub fn leases(bytes: &[u8]) {
    let mut lines = bytes.split(|b| *b == b'\n');
    let Some(Ok(read)) = lines.next().map(config::parse) else { return };
    let Some(local) = node(read) else { return };
    let Ok(mut desired) = Desired::new(local.clone()) else { return };
    let mut left: Vec<(String, Revision, Lease)> = vec![];
    for line in lines.map(String::from_utf8_lossy) {
        if let Ok(env) = SubnetEnv::parse(&line) {
            let _ = env.render();
        }
        match line.split_once(' ') {
            Some((name, value)) => set(&mut desired, &mut left, name, value.as_bytes()),
            None => {
                desired.remove(&line);
                left.retain(|(name, ..)| *name != line);
            }
        }
    }
    let Ok(mut fresh) = Desired::new(local) else { return };
    for (name, created, lease) in &left {
        fresh.set(name, *created, lease.clone());
        let _ = value::format(&lease.attrs);
    }
    assert!(fresh.state() == desired.state(), "the way to these leases counts");
    assert!(fresh.tunnels().eq(desired.tunnels()), "the way to these leases counts");
    for (name, peer) in desired.peers() {
        let problem = matches!(peer.state, PeerState::Problem(_)) || peer.refused.is_some();
        assert!(problem == desired.problems().any(|(key, _)| key == name), "{name}");
    }
}

fn set(desired: &mut Desired, left: &mut Vec<(String, Revision, Lease)>, name: &str, value: &[u8]) {
    match read(name, value) {
        Ok(lease) => {
            assert!(key::parse(&key::name(&lease.subnets)) == Ok(lease.subnets), "{name}");
            let created = i64::try_from(value.len() / 8).unwrap_or(0);
            left.retain(|(key, ..)| key != name);
            left.push((name.to_owned(), created, lease.clone()));
            desired.set(name, created, lease);
        }
        Err(problem) => desired.refuse(name, problem),
    }
}

fn read(name: &str, value: &[u8]) -> Result<Lease, PeerProblem> {
    let (subnets, attrs) = (key::parse(name)?, value::parse(value)?);
    Ok(Lease { subnets, attrs, reservation: value.len().is_multiple_of(8) })
}

/// A node with the first subnet of each family.
fn node(read: config::Read) -> Option<Local> {
    let cluster = read.config;
    let v4 = cluster.v4.and_then(|r| ipnet::Ipv4Net::new(r.min, r.subnet_len).ok());
    let v6 = cluster.v6.and_then(|r| ipnet::Ipv6Net::new(r.min, r.subnet_len).ok());
    let device = "eth0".parse().ok()?;
    let addresses = vec!["192.0.2.3/24".parse().ok()?, "2001:db8::3/64".parse().ok()?];
    Some(Local {
        cluster,
        underlay: Underlay { device, mtu: 1500, addresses },
        public_v4: "192.0.2.3".parse().ok(),
        public_v6: "2001:db8::3".parse().ok(),
        subnets: vec![Subnets { v4, v6 }],
        identity: Identity {
            vtep_v4: Mac::derived(b"v4"),
            vtep_v6: Mac::derived(b"v6"),
            wireguard: SecretKey([7; 32]),
        },
        kernel_wireguard: read.warnings.is_empty(),
        blackhole: true,
        extension_data: None,
    })
}
