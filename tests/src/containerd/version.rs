//! The containerds that the tests run against.

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.7.24 of Debian trixie: NRI 0.6, events as StateChange.
    V1_7,
    /// 2.1.9 of Debian forky: NRI 0.8.
    V2_1,
}

impl Version {
    /// The directory below `.testbed/`.
    pub fn directory(self) -> &'static str {
        match self {
            Self::V1_7 => "containerd-1.7",
            Self::V2_1 => "containerd-2.1",
        }
    }
}
