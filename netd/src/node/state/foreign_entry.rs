//! An address that a pod has of which netd has no record.

use std::{fmt, path::PathBuf};

use netd_domain::NetworkName;

/// Who has an address that netd did not give out, as far as it can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignHolder {
    /// The link on the host behind which the address is.
    pub(crate) link: Option<String>,
    /// The container id in host-local's file.
    pub(crate) container: Option<String>,
    /// That file.
    pub(crate) file: Option<PathBuf>,
}

impl fmt::Display for ForeignHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = self.container.iter().map(|id| format!("container {id}"));
        let link = self.link.iter().map(|name| format!("behind {name}"));
        let file = self.file.iter().map(|path| format!("reserved by {}", path.display()));
        f.write_str(&container.chain(link).chain(file).collect::<Vec<_>>().join(", "))
    }
}

/// In the state.
#[derive(Debug)]
pub(super) struct ForeignEntry {
    pub(super) holder: ForeignHolder,
    /// The network in whose pools it was taken; `None`: in none, or an endpoint has it.
    pub(super) taken_in: Option<NetworkName>,
}
