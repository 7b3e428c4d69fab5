//! `make soak` in small: that it goes on where it was ended, and ends well.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use testbed::case;

fn soak(state: &std::path::Path, minutes: &str) -> Result<(Option<i32>, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_netd-soak"))
        .envs([("NETD_SOAK_PODS", "300"), ("NETD_SOAK_KILLS", "60")])
        .env("NETD_SOAK_MINUTES", minutes)
        .env("NETD_SOAK_STATE", state)
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), printed + &String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn pods_by_the_hundred_come_and_go_under_every_fault() -> Result<()> {
    case(|bed| {
        let state = bed.directory().join("soak.json");
        // No time at all: whatever it has made is taken away, and the rest is left.
        let (code, said) = soak(&state, "0")?;
        ensure!(code == Some(3), "{code:?}: {said}");
        ensure!(state.exists(), "what was done is not kept: {said}");
        let kept = fs::read_to_string(&state)?;
        fs::write(&state, kept.replace("\"by_runtime\":0", "\"by_runtime\":7"))?;
        let (code, said) = soak(&state, "10")?;
        ensure!(code == Some(0), "{code:?}: {said}");
        ensure!(!state.exists(), "another run would go on after the end: {said}");
        for fault in ["nft flush ruleset", "full disk", "etcd killed", "etcd frozen", "containerd"]
        {
            ensure!(said.contains(fault), "{fault} was left out: {said}");
        }
        println!("{said}");
        Ok(())
    })
}
