//! The test bed: nodes made of network namespaces, real containerds, netd and its
//! hook as built, packets made by hand. Everything that a test makes lives under
//! one directory and carries its path, so that it can be taken away as a whole,
//! even when the test was killed.

pub mod bed;
pub mod bundle;
pub mod cluster;
pub mod containerd;
pub mod cri;
pub mod daemon;
pub mod docker;
pub mod etcd;
pub mod frozen;
pub mod hook;
pub mod host;
pub mod image;
pub mod inventory;
pub mod kubernetes;
pub mod leftovers;
pub mod machine;
pub mod namespace;
pub mod net;
pub mod nri;
pub mod old_plugins;
pub mod package;
pub mod paths;
pub mod random;
pub mod raw_netlink;
pub mod report;
pub mod service;
pub mod stack;
pub mod unit;
pub mod wait;

pub use bed::{Bed, case};
pub use cluster::{Cluster, Plan};
pub use containerd::{Containerd, Version};
pub use daemon::{Daemon, DaemonConfig};
pub use docker::{Docker, DockerVersion};
pub use etcd::EtcdCluster;
pub use hook::Sandbox;
pub use host::Host;
pub use kubernetes::{ApiServer, KubeNode, KubernetesCluster};
pub use machine::Machine;
pub use namespace::Namespace;
pub use random::Random;
pub use stack::Stack;

use std::{env, future::Future, panic, str::FromStr, sync::OnceLock, thread::ScopedJoinHandle};

use anyhow::{Context as _, Result};

/// Runs gRPC futures for tests that are plain functions.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap_or_else(|error| panic!("no tokio runtime: {error}"))
        })
        .block_on(future)
}

/// How large a test is to be: a number from the environment, if it is there and not empty.
pub fn scale<T>(variable: &str, default: T) -> Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match env::var(variable) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{variable}={text}")),
        _ => Ok(default),
    }
}

/// What a thread ended with; its panic goes on here.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
}

/// Makes a test of each function, for each containerd: `fn(Version) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod containerd_2_1 {
            $(#[test] fn $test() -> anyhow::Result<()> { super::$test($crate::Version::V2_1) })*
        }
        mod containerd_1_7 {
            $(#[test] fn $test() -> anyhow::Result<()> { super::$test($crate::Version::V1_7) })*
        }
    };
}
