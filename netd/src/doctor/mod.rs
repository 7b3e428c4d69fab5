use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}
pub async fn run(_a: DoctorArgs) -> Result<ExitCode, crate::cli::Failure> {
    Ok(ExitCode::SUCCESS)
}
