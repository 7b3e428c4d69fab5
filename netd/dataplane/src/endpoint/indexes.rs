//! Interface indexes around an endpoint.

/// An index of 0 is not known yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Indexes {
    /// The host's end.
    pub host: u32,
    /// The sandbox's end.
    pub pod: u32,
    /// The host's id for the sandbox's namespace.
    pub pod_netns: Option<i32>,
    /// The bridge.
    pub bridge: Option<u32>,
    /// The device that limits what the pod sends.
    pub ifb: u32,
}
