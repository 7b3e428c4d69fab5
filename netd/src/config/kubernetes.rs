//! The section `[kubernetes]`.

use std::{path::PathBuf, time::Duration};

use netd_kubernetes::{AnnotationPrefix, ApiAccess};

use super::{
    duration::duration,
    section::Section,
    values::{self, boolean, shown, text},
};

/// The Kubernetes API as the cluster's truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// How the API is reached.
    pub access: ApiAccess,
    /// flannel's net-conf.json.
    pub net_conf: PathBuf,
    /// Before the names of the annotations.
    pub prefix: AnnotationPrefix,
    /// Whether netd writes the Node's condition NetworkUnavailable.
    pub network_condition: bool,
}

/// Keys without a default, which are a mistake where Kubernetes is not enabled.
const NEED_ENABLED: [&str; 2] = ["kubeconfig", "api_url"];

/// `None` where it is not enabled.
pub(super) fn read(mut s: Section<'_>) -> Option<Kubernetes> {
    let given: Vec<_> = NEED_ENABLED.into_iter().filter(|key| s.has(key)).collect();
    let enabled = s.get("enabled", boolean).unwrap_or(false);
    if !enabled && !given.is_empty() {
        s.bad("enabled", format!("needed to be true for {}", given.join(", ")));
    }
    let kubeconfig = s.get("kubeconfig", values::path);
    let url = s.get("api_url", |value| {
        let url = text(value)?.parse::<http::Uri>().ok();
        let right = |url: &http::Uri| {
            matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
        };
        url.filter(right)
            .ok_or_else(|| format!("{} is not a URL like \"https://192.0.2.1:6443\"", shown(value)))
    });
    let net_conf = s.get("net_conf", values::path);
    let prefix = s.get("annotation_prefix", |value| text(value)?.parse());
    let network_condition = s.get("network_condition", boolean).unwrap_or(true);
    let timeout =
        s.get("timeout", |v| duration(v, Duration::from_millis(100)..=Duration::from_secs(60)));
    s.finish();
    enabled.then(|| Kubernetes {
        access: ApiAccess { kubeconfig, url, timeout: timeout.unwrap_or(Duration::from_secs(10)) },
        net_conf: net_conf.unwrap_or_else(|| "/etc/kube-flannel/net-conf.json".into()),
        prefix: prefix.unwrap_or_default(),
        network_condition,
    })
}
