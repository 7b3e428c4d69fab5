//! STATUS says whether an ADD would work, by what netd itself knows.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{Daemon, DaemonConfig, Sandbox, case, hook::Answer, wait};

/// STATUS of the plugin whose configuration names this network.
fn status(host: &testbed::Host, network: &str) -> Result<Answer> {
    let mut any = Sandbox::bare(host, "any")?;
    any.config["network"] = json!(network);
    any.call("STATUS").execute(host)
}

fn refused(answer: &Answer, code: u64, words: &[&str]) -> Result<()> {
    ensure!(answer.code() == Some(code), "not code {code}: {answer:?}");
    let said = answer.json.to_string();
    for word in words {
        ensure!(said.contains(word), "{word} is not in {said}");
    }
    Ok(())
}

#[test]
fn a_network_that_is_missing_or_full_is_not_ready_and_others_are() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        // Two addresses: .2 and .3.
        let config = DaemonConfig::default().and_network("small", "bridge", &["10.77.0.0/29"]);
        let netd = Daemon::start(&host, &config)?;
        for network in ["default", "small"] {
            let answer = status(&host, network)?;
            ensure!(answer.success, "{network}: {answer:?}");
        }
        refused(&status(&host, "nothing")?, 50, &["nothing", "netd network list"])?;

        let mut pods = Vec::new();
        while pods.len() < 20 {
            let mut pod = Sandbox::bare(&host, "pod")?;
            pod.config["network"] = json!("small");
            let works = status(&host, "small")?;
            let answer = pod.call("ADD").execute(&host)?;
            ensure!(works.success == answer.success, "{works:?}, then {answer:?}");
            if !answer.success {
                refused(&works, 50, &["small", "no free IPv4 address"])?;
                break;
            }
            pods.push(pod);
        }
        ensure!(pods.len() == 5, "{} pods in a /29", pods.len());
        ensure!(status(&host, "default")?.success, "another network's pools are none of its");
        // The node itself goes on: only this network is full.
        ensure!(netd.status()?.ready);
        pods.remove(0).del(&host)?;
        // The address is free when the kernel has removed the link.
        wait::until(Duration::from_secs(10), "there is an address again", || {
            let answer = status(&host, "small")?;
            ensure!(answer.success, "{answer:?}");
            Ok(())
        })?;
        netd.cli(&["network", "create", "late", "--pool", "10.66.0.0/24"])?;
        ensure!(status(&host, "late")?.success);
        Ok(())
    })
}
