//! netd as deploy/kubernetes/netd.yaml installs it, in a whole Kubernetes: API server, controllers,
//! scheduler, kubelets, containerds and kube-proxies, on hosts of the bed.

mod chart;
mod churn;
mod from_flannel;
mod rights;
mod services;
mod updates;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use testbed::kubernetes::WebPod;

/// What kubelet may take to start or to end a few pods, with other work on the machine.
const PODS: Duration = Duration::from_secs(60);

/// Each pod has an address of its own.
fn no_address_twice(pods: &[WebPod]) -> Result<()> {
    let addresses: BTreeSet<&str> = pods.iter().map(|pod| pod.ip.as_str()).collect();
    ensure!(addresses.len() == pods.len(), "an address twice: {pods:?}");
    Ok(())
}
