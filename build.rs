//! Compiles `proto/` with protox, so that no protoc is needed on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 6] = [
    "netd/v1/cluster.proto",
    "netd/v1/network.proto",
    "netd/v1/endpoint.proto",
    "netd/v1/sandbox.proto",
    "netd/v1/node.proto",
    "netd/tunnel/v1/tunnel.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Served by netd's reflection service; netd-tunnel's API is not netd's.
    let mut served = descriptors.clone();
    served.file.retain(|file| file.package() != "netd.tunnel.v1");
    fs::write(out.join("netd.v1.bin"), served.encode_to_vec())?;
    const GRPC: &str = r#"#[cfg(feature = "grpc")]"#;
    tonic_prost_build::configure()
        .client_mod_attribute(".", GRPC)
        .server_mod_attribute(".", GRPC)
        // std's HashMap does not exist without std.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
