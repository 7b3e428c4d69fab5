//! Circles that are still to be cut: the files of each package that are in one.
//! A file that is out of its circle must leave the list.

pub const KNOWN: &[(&str, &[&str])] = &[
    ("netd", &["src/api/connection.rs", "src/api/peer.rs"]),
    (
        "netd-cluster",
        &[
            "src/backend/alloc.rs",
            "src/backend/extension.rs",
            "src/backend/host_gw.rs",
            "src/backend/ipip.rs",
            "src/backend/mod.rs",
            "src/backend/reach.rs",
            "src/backend/udp.rs",
            "src/backend/vxlan.rs",
            "src/backend/wireguard.rs",
            "src/desired/aggregate.rs",
            "src/desired/mod.rs",
            "src/flannel/value.rs",
            "src/membership/claims.rs",
            "src/membership/diff.rs",
            "src/membership/files.rs",
            "src/membership/follow.rs",
            "src/membership/mod.rs",
            "src/membership/pending_updates.rs",
            "src/membership/reconciler/mod.rs",
            "src/membership/run.rs",
            "src/membership/saver.rs",
            "src/membership/status.rs",
            "src/membership/writes.rs",
        ],
    ),
    ("netd-cni", &["src/bare/main.rs", "src/bare/start.rs", "src/error.rs", "src/refusal.rs"]),
    (
        "netd-store",
        &[
            "src/conformance/compare.rs",
            "src/conformance/leases.rs",
            "src/conformance/limits.rs",
            "src/conformance/mod.rs",
            "src/conformance/watches.rs",
        ],
    ),
    ("netd-tests", &["src/containerd.rs", "src/containerd/config.rs", "src/hook.rs"]),
    (
        "netd-tunnel",
        &[
            "src/engine/mod.rs",
            "src/engine/udp.rs",
            "src/engine/wireguard/inbound.rs",
            "src/engine/wireguard/mod.rs",
            "src/engine/wireguard/peer.rs",
            "src/tunnel/mod.rs",
            "src/tunnel/queue_worker.rs",
            "src/tunnel/workers.rs",
        ],
    ),
];
