//! Options of the NRI front, from its command line or from the runtime's environment.

use std::{env, fs, os::unix::fs::FileTypeExt as _, path::PathBuf};

use serde::Deserialize;

const NAME: &str = "netd";
const IDX: &str = "10";
const NRI_SOCKET: &str = "/var/run/nri/nri.sock";

/// An option with a value that the runtime would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {value:?}: {rule}")]
pub struct OptionError {
    /// The flag, or the environment variable of a pre-installed plugin.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// What a value must look like.
    pub rule: &'static str,
}

/// Options of the NRI front.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Socket on which the runtime listens for NRI plugins
    #[arg(long = "nri-socket", value_name = "PATH", default_value = NRI_SOCKET)]
    pub socket: PathBuf,
    /// The runtime's connection to a pre-installed plugin, a file descriptor; not a flag.
    #[arg(skip)]
    pub fd: Option<i32>,
    /// Name under which the plugin registers
    #[arg(long, value_name = "NAME", default_value = NAME)]
    pub name: String,
    /// Two digits: the runtime calls plugins in the order of their indices
    #[arg(long, value_name = "NN", default_value = IDX)]
    pub idx: String,
    /// netd's socket
    #[arg(
        long = "netd-socket",
        value_name = "PATH",
        env = "NETD_SOCKET",
        value_parser = crate::service::netd_socket(),
        default_value = netd_api::DEFAULT_SOCKET
    )]
    pub netd_socket: PathBuf,
    /// Which pods may run without an eth0 of netd's.
    #[command(flatten)]
    pub policy: Policy,
}

/// Which pods may run although netd did not attach their `eth0`.
///
/// None by default: on a node where netd's CNI configuration is the runtime's default, such a
/// pod has lost its attach and must not run. Another CNI plugin may be the primary one for all
/// pods (`--allow-unattached`), for those of a runtime class (`--unattached-handler`), or for
/// single pods (annotation `netd.io/primary: "other"`) of the namespaces whose authors may say so
/// (`--unattached-namespace`). For these netd only adds networks and labels.
///
/// A pre-installed plugin has no command line. It reads the same fields, as JSON, from the
/// configuration that the runtime passes on (`/etc/nri/conf.d/10-netd.conf`):
/// `{"allow_unattached": true, "unattached_handlers": ["kata"], "unattached_namespaces": ["vm"]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Let all pods run whose eth0 is not netd's
    #[arg(long)]
    pub allow_unattached: bool,
    /// Let pods of this runtime handler run whose eth0 is not netd's; repeatable
    #[arg(long = "unattached-handler", value_name = "HANDLER")]
    pub unattached_handlers: Vec<String>,
    /// Let pods of this namespace say that their eth0 is not netd's (annotation
    /// netd.io/primary: "other"); "*" for all namespaces; repeatable
    #[arg(long = "unattached-namespace", value_name = "NAMESPACE")]
    pub unattached_namespaces: Vec<String>,
}

impl Policy {
    /// Whether a pod of this runtime handler may run although its eth0 is not netd's.
    pub(super) fn lets_handler(&self, handler: &str) -> bool {
        self.allow_unattached || self.unattached_handlers.iter().any(|known| known == handler)
    }

    /// Whether a pod of this namespace may say so itself. Where the runtime knows no namespace,
    /// root made the pod.
    pub(super) fn lets_namespace(&self, namespace: &str) -> bool {
        let named = |known: &String| known == namespace || known == "*";
        namespace.is_empty() || self.unattached_namespaces.iter().any(named)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: NRI_SOCKET.into(),
            fd: None,
            name: NAME.into(),
            idx: IDX.into(),
            netd_socket: netd_api::DEFAULT_SOCKET.into(),
            policy: Policy::default(),
        }
    }
}

impl Options {
    /// Checks the values that the runtime would refuse.
    ///
    /// # Errors
    /// The first one that it would refuse.
    pub fn check(&self) -> Result<(), OptionError> {
        let bad = |option, value: &dyn std::fmt::Display, rule| {
            Err(OptionError { option, value: value.to_string(), rule })
        };
        if self.idx.len() != 2 || !self.idx.bytes().all(|b| b.is_ascii_digit()) {
            return bad("idx", &self.idx, "must be two digits, 00 to 99");
        }
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
        if self.name.is_empty() || !self.name.bytes().all(ok) {
            return bad("name", &self.name, "must be letters, digits, '_', '.', '+' and '-'");
        }
        if let Some(fd) = self.fd {
            let link = format!("/proc/self/fd/{fd}");
            if !fs::metadata(link).is_ok_and(|m| m.file_type().is_socket()) {
                return bad(
                    "NRI_PLUGIN_SOCKET",
                    &fd,
                    "must be the file descriptor of an open socket",
                );
            }
        }
        Ok(())
    }
}

/// The options of a pre-installed plugin, which the runtime itself started (from
/// `/opt/nri/plugins/NN-name`) and describes by environment variables; `None` if these are not
/// set. netd's socket is `NETD_SOCKET` or the default.
pub fn preinstalled() -> Option<Options> {
    let var = |name| env::var(name).ok();
    from_environment(&var)
}

fn from_environment(var: &dyn Fn(&'static str) -> Option<String>) -> Option<Options> {
    let (name, idx) = (var("NRI_PLUGIN_NAME")?, var("NRI_PLUGIN_IDX")?);
    let fd = var("NRI_PLUGIN_SOCKET")?.parse().ok()?;
    let mut options = Options { name, idx, fd: Some(fd), ..Options::default() };
    if let Some(socket) = var("NETD_SOCKET").filter(|path| !path.is_empty()) {
        options.netd_socket = socket.into();
    }
    Some(options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn flags_and_defaults_agree() {
        let parsed = Cli::parse_from(["x", "--netd-socket", netd_api::DEFAULT_SOCKET]).options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
        let flags = ["x", "--allow-unattached", "--unattached-handler", "kata"];
        let policy = Cli::parse_from(flags).options.policy;
        assert!(policy.allow_unattached && policy.unattached_handlers == ["kata"]);
    }

    #[test]
    fn a_plugin_started_by_the_runtime_is_known_by_its_environment() {
        let full = |name| match name {
            "NRI_PLUGIN_NAME" => Some("netd".to_owned()),
            "NRI_PLUGIN_IDX" => Some("15".to_owned()),
            "NRI_PLUGIN_SOCKET" => Some("3".to_owned()),
            _ => None,
        };
        let options = from_environment(&full).unwrap();
        assert_eq!((options.fd, options.idx.as_str()), (Some(3), "15"));
        for missing in ["NRI_PLUGIN_NAME", "NRI_PLUGIN_IDX", "NRI_PLUGIN_SOCKET"] {
            let part = |name: &'static str| full(name).filter(|_| name != missing);
            assert!(from_environment(&part).is_none(), "{missing}");
        }
    }

    #[test]
    fn options_that_the_runtime_would_refuse_are_refused_here() {
        for (options, word) in [
            (Options { idx: "1".into(), ..Options::default() }, "idx"),
            (Options { idx: "ab".into(), ..Options::default() }, "idx"),
            (Options { name: "a b".into(), ..Options::default() }, "name"),
            (Options { name: String::new(), ..Options::default() }, "name"),
            (Options { fd: Some(9999), ..Options::default() }, "NRI_PLUGIN_SOCKET"),
        ] {
            assert!(options.check().unwrap_err().to_string().contains(word));
        }
        assert!(Options::default().check().is_ok());
    }
}
