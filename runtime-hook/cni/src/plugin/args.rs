//! `CNI_ARGS`: `KEY=value;KEY=value` (CNI conventions; `K8S_*` are kubelet's).

use netd_api::v1::PodIdentity;

use super::address::{is_address, is_mac};
use crate::error::{HookError, shown};

/// What `CNI_ARGS` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CniArgs {
    /// `K8S_POD_NAMESPACE`, `K8S_POD_NAME`, `K8S_POD_UID`.
    pub pod: PodIdentity,
    /// `IP`: addresses, separated by commas.
    pub ips: Vec<String>,
    /// `MAC`.
    pub mac: Option<String>,
}

/// Parses `CNI_ARGS`. The order of the keys does not count; of a key given twice the
/// last value does.
///
/// # Errors
/// [`HookError::Environment`] for a pair without `=`, for an `IP` or a `MAC` that is none, and
/// for an unknown key unless `IgnoreUnknown` is `1` or `true`.
pub fn parse(text: &str) -> Result<CniArgs, HookError> {
    let mut args = CniArgs::default();
    let mut unknown = None;
    let mut ignore = false;
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(wrong(format!("{} is not KEY=value", shown(pair))));
        };
        match key {
            "K8S_POD_NAMESPACE" => args.pod.namespace = value.into(),
            "K8S_POD_NAME" => args.pod.name = value.into(),
            "K8S_POD_UID" => args.pod.uid = value.into(),
            // The same as CNI_CONTAINERID.
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            "IP" => {
                args.ips = value.split(',').map(str::trim).map(str::to_owned).collect();
                args.ips.retain(|ip| !ip.is_empty());
                if let Some(bad) = args.ips.iter().find(|ip| !is_address(ip)) {
                    let problem = "is not an IP address, with or without a prefix length";
                    return Err(wrong(format!("IP: {} {problem}", shown(bad))));
                }
            }
            "MAC" if !value.is_empty() && !is_mac(value) => {
                return Err(wrong(format!("MAC: {} is not a MAC address", shown(value))));
            }
            "MAC" => args.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
            "IgnoreUnknown" => ignore = boolean(value)?,
            _ => unknown = unknown.or(Some(key)),
        }
    }
    match unknown {
        Some(key) if !ignore => {
            Err(wrong(format!("unknown key {}; IgnoreUnknown=1 lets it pass", shown(key))))
        }
        _ => Ok(args),
    }
}

fn boolean(value: &str) -> Result<bool, HookError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong(format!("IgnoreUnknown={} is neither 1 nor 0", shown(value)))),
    }
}

fn wrong(problem: String) -> HookError {
    HookError::Environment { variable: "CNI_ARGS", problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_s_arguments_give_the_pod_in_any_order() {
        let text = "K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID=abc;X=y;K8S_POD_NAME=web;\
                    IgnoreUnknown=1;K8S_POD_NAMESPACE=shop";
        let pod = parse(text).unwrap().pod;
        assert_eq!((pod.namespace, pod.name, pod.uid), ("shop".into(), "web".into(), "u-1".into()));
    }

    #[test]
    fn an_unknown_key_is_an_error_unless_it_is_to_be_ignored() {
        let error = parse("FOO=1").unwrap_err();
        assert_eq!(error.cni_code(), 4);
        assert!(error.to_string().contains("\"FOO\""), "{error}");
        assert!(parse("FOO=1;IgnoreUnknown=TRUE").is_ok());
        assert!(parse("FOO=1;IgnoreUnknown=0").is_err());
        assert!(parse("IgnoreUnknown=maybe").is_err());
    }

    #[test]
    fn addresses_and_mac_are_taken() {
        let args = parse("IP=10.0.0.5,fd00::5;MAC=0a:58:00:00:00:05;").unwrap();
        assert_eq!(args.ips, ["10.0.0.5", "fd00::5"]);
        assert_eq!(args.mac.as_deref(), Some("0a:58:00:00:00:05"));
        assert_eq!(parse("IP=;MAC=").unwrap(), CniArgs::default());
    }

    #[test]
    fn junk_is_refused_and_cut_in_the_message() {
        for bad in ["FOO", &"x".repeat(1 << 20), ";=;;=", "a=b=c"] {
            assert!(parse(bad).unwrap_err().to_string().len() < 300);
        }
        assert!(parse("").is_ok() && parse(";;").is_ok());
    }
}
