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

/// What the section says.
pub(super) struct Given {
    /// The API is the cluster's truth.
    pub enabled: bool,
    pub settings: Kubernetes,
}

/// Keys without a default, which are a mistake where the API is not used.
const NEED_THE_API: [&str; 2] = ["kubeconfig", "api_url"];

/// `asks_for_node`: the API is used whether it is the cluster's truth or not.
pub(super) fn read(mut s: Section<'_>, asks_for_node: bool) -> Given {
    let given: Vec<_> = NEED_THE_API.into_iter().filter(|key| s.has(key)).collect();
    let enabled = s.get("enabled", boolean).unwrap_or(false);
    if !enabled && !asks_for_node && !given.is_empty() {
        let needed = format!(
            "needed to be true for {} (or overlay.pod_cidr = \"node\", with etcd)",
            given.join(", ")
        );
        s.bad("enabled", needed);
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
    let settings = Kubernetes {
        access: ApiAccess { kubeconfig, url, timeout: timeout.unwrap_or(Duration::from_secs(10)) },
        net_conf: net_conf.unwrap_or_else(|| "/etc/kube-flannel/net-conf.json".into()),
        prefix: prefix.unwrap_or_default(),
        network_condition,
    };
    Given { enabled, settings }
}
