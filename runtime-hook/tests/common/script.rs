//! What a fake netd is told to say, and what it was asked.
#![allow(dead_code)]

use netd_api::v1::*;
use tonic::Status;

/// What the hook asked.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // a handful in a test
pub(crate) enum Asked {
    Attach(AttachRequest),
    Detach(DetachRequest),
    Check(CheckRequest),
    Join(JoinRequest),
    Leave(LeaveRequest),
    Publish(PublishRequest),
    Synchronize(SynchronizeRequest),
    Annotate(AnnotateRequest),
    Status(GetStatusRequest),
}

/// How the fake behaves.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Every call gets this, from the n-th call on.
    pub refuse: Option<Status>,
    /// Calls that succeed before `refuse` counts.
    pub grace: usize,
    /// Never answers.
    pub hang: bool,
    /// Answers without the message's content.
    pub empty: bool,
    /// Answers as one that is not ready.
    pub starting: bool,
    /// This component is not ready.
    pub waiting: Option<String>,
    /// No bridge, as with the routed driver.
    pub routed: bool,
    /// TCP ports of the host that another endpoint holds.
    pub busy_ports: Vec<u32>,
}

impl Script {
    /// What the `count`-th call gets.
    pub(crate) fn verdict(&self, count: usize) -> Result<(), Status> {
        match &self.refuse {
            Some(status) if count > self.grace => Err(status.clone()),
            _ => Ok(()),
        }
    }

    pub(crate) fn endpoint(
        &self,
        sandbox: &str,
        interface: &str,
        dns: Option<Dns>,
    ) -> Option<Endpoint> {
        (!self.empty).then(|| endpoint(sandbox, interface, dns, self.routed))
    }
}

/// The endpoint that the fake always makes.
pub(crate) fn endpoint(sandbox: &str, interface: &str, dns: Option<Dns>, routed: bool) -> Endpoint {
    let (gw4, gw6) = if routed { ("169.254.1.1", "fe80::1") } else { ("10.88.0.1", "fd00:88::1") };
    let address = |a: &str, g: &str| Address { address: a.into(), gateway: g.into() };
    let route = |d: &str, g: &str| Route { destination: d.into(), gateway: g.into() };
    let mut routes = vec![route("0.0.0.0/0", gw4), route("::/0", gw6)];
    if routed {
        routes.insert(0, route("169.254.1.1/32", ""));
    }
    Endpoint {
        sandbox_id: sandbox.into(),
        interface: interface.into(),
        network: "default".into(),
        state: EndpointState::Attached as i32,
        host_interface: "nv0123456789ab".into(),
        mac: "0a:58:0a:58:00:05".into(),
        host_mac: "0e:00:00:00:00:01".into(),
        mtu: 1450,
        addresses: vec![address("10.88.0.5/16", gw4), address("fd00:88::5/64", gw6)],
        routes,
        dns,
        bridge: if routed { String::new() } else { "cni0".into() },
        bridge_mac: if routed { String::new() } else { "0e:00:00:00:00:02".into() },
        ..Endpoint::default()
    }
}
