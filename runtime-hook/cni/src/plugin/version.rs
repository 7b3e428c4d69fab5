//! The versions of the CNI spec that are spoken.

use serde_json::{Value, json};

use crate::error::{HookError, shown};

/// A version of the spec; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// 0.3.0; its results are those of 0.3.1.
    V030,
    /// 0.3.1
    V031,
    /// 0.4.0: CHECK.
    V040,
    /// 1.0.0: no `version` in `ips`.
    V100,
    /// 1.1.0: STATUS, GC, `mtu` of interfaces.
    V110,
}

impl SpecVersion {
    /// All, oldest first.
    pub const ALL: [Self; 5] = [Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];
    /// The newest.
    pub(crate) const NEWEST: Self = Self::V110;

    /// As in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// All, for people and for VERSION.
    pub fn names() -> [&'static str; 5] {
        Self::ALL.map(Self::as_str)
    }

    /// Reads `cniVersion` of a configuration.
    ///
    /// # Errors
    /// [`HookError::Version`] for one that is not spoken; a missing one means 0.1.0.
    /// [`HookError::Config`] when it is no string.
    pub fn of(config: &Value) -> Result<Self, HookError> {
        let text = match config.get("cniVersion") {
            None | Some(Value::Null) => "0.1.0",
            Some(Value::String(text)) => text,
            Some(_) => return Err(HookError::field("cniVersion", "must be a string")),
        };
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| {
            let names = Self::names().join(", ");
            HookError::Version(format!(
                "CNI version {} is not supported; supported are {names}",
                shown(text)
            ))
        })
    }

    /// An element of `ips` of any version in the form of this one: before 1.0.0 it tells its
    /// family.
    pub(super) fn shape_ip(self, ip: &mut Value) {
        let is_v6 = ip.get("address").and_then(Value::as_str).is_some_and(|a| a.contains(':'));
        let Some(fields) = ip.as_object_mut() else { return };
        if self < Self::V100 {
            fields.insert("version".into(), if is_v6 { "6" } else { "4" }.into());
        } else {
            fields.remove("version");
        }
    }

    /// An element of `interfaces` of any version in the form of this one: before 1.1.0 it has
    /// no MTU and no device.
    pub(super) fn shape_interface(self, interface: &mut Value) {
        if self < Self::V110
            && let Some(fields) = interface.as_object_mut()
        {
            for key in ["mtu", "socketPath", "pciID"] {
                fields.remove(key);
            }
        }
    }

    /// Refuses a command that the configuration's version does not have.
    ///
    /// # Errors
    /// [`HookError::Version`].
    pub fn needs(self, command: &str, since: Self) -> Result<(), HookError> {
        if self >= since {
            return Ok(());
        }
        Err(HookError::Version(format!(
            "{command} needs cniVersion {} or later, the configuration has {}",
            since.as_str(),
            self.as_str()
        )))
    }
}

/// The answer to VERSION.
pub fn answer(asked: SpecVersion) -> Value {
    json!({ "cniVersion": asked.as_str(), "supportedVersions": SpecVersion::names() })
}
