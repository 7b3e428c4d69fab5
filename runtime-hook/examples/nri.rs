//! The NRI front alone, for runs by hand: `cargo run --example nri -- --nri-socket PATH`.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use runtime_hook::nri;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: nri::Options,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let options = nri::preinstalled().unwrap_or_else(|| Cli::parse().options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(nri::run(options))?;
    Ok(ExitCode::SUCCESS)
}
