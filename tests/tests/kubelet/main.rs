//! netd as deploy/kubernetes/netd.yaml installs it, in a whole Kubernetes: API server, controllers,
//! scheduler, kubelets, containerds and kube-proxies, on hosts of the bed.

mod chart;
mod churn;
mod from_flannel;
mod rights;
mod services;
mod updates;

use std::time::Duration;

/// What kubelet may take to start or to end a few pods, with other work on the machine.
const PODS: Duration = Duration::from_secs(60);
