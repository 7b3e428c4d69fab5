//! `extension`: commands of the operator's. They are told as flannel tells them: by
//! environment and standard input.

use serde_json::Value;

use super::{Backend, Command, LocalPlan, PeerCommands, PeerPlan, PeerProblem, reach};
use crate::{BackendConfig, BackendData, Family, Lease, LeaseAttrs, Local, Subnets};

#[derive(Debug)]
pub(super) struct Extension {
    pub post_startup: String,
    pub subnet_add: String,
    pub subnet_remove: String,
}

/// What has to be run before this node is announced; what it puts out on standard output
/// and error, trimmed, is [`Local::extension_data`].
pub fn pre_startup(config: &BackendConfig) -> Option<Command> {
    match config {
        BackendConfig::Extension { pre_startup, .. } => Command::new(pre_startup, vec![], ""),
        _ => None,
    }
}

/// Whose subnets and addresses a command is about. What is not there is not set.
fn about(
    subnets: &Subnets,
    public: impl Fn(Family) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let vars = [
        ("SUBNET", subnets.v4.map(|n| n.to_string())),
        ("IPV6SUBNET", subnets.v6.map(|n| n.to_string())),
        ("PUBLIC_IP", public(Family::V4)),
        ("PUBLIC_IPV6", public(Family::V6)),
    ];
    vars.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

impl Backend for Extension {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        let v6 = local.cluster.network(Family::V6).is_some();
        LeaseAttrs {
            public_v4: local.public_v4,
            public_v6: local.public_v6.filter(|_| v6),
            backend_type: Some("extension".to_owned()),
            data_v4: local.extension_data.clone().map(|text| Value::String(text).into()),
            data_v6: None,
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        let objects = reach::blackholes(local).collect();
        let mut env: Vec<_> =
            local.cluster.v4.map(|r| ("NETWORK", r.network.to_string())).into_iter().collect();
        if let Some(range) = local.cluster.v6 {
            env.push(("IPV6NETWORK", range.network.to_string()));
        }
        let post_startup = local.subnets.first().and_then(|first| {
            env.extend(about(first, |f| local.public(f).map(|ip| ip.to_string())));
            Command::new(&self.post_startup, env, "")
        });
        Ok(LocalPlan { objects, mtu: local.underlay.mtu, post_startup, ..LocalPlan::default() })
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        if !reach::is_of(lease, "extension")? {
            return Ok(PeerPlan::default());
        }
        for family in Family::ALL.into_iter().filter(|f| lease.attrs.public(*f).is_some()) {
            reach::remote(local, lease, family)?;
        }
        let data = match lease.attrs.data_v4.as_ref().map(BackendData::value) {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => return Err(PeerProblem::new("BackendData", "not a string")),
        };
        let env = about(&lease.subnets, |f| lease.attrs.public(f).map(|ip| ip.to_string()));
        let commands = PeerCommands {
            add: Command::new(&self.subnet_add, env.clone(), &data),
            remove: Command::new(&self.subnet_remove, env, &data),
        };
        Ok(PeerPlan { commands: Some(commands), ..PeerPlan::default() })
    }
}
