//! netd has no descriptors left: that is no statement about the pod.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::AttachRequest;
use serde_json::json;
use testbed::{Sandbox, case, net::probe, wait};
use tonic::Code;

use crate::node::{GRACE, Node, SOON};

/// Below the limit that a process has on any machine.
const ENOUGH: usize = 512;

/// Sets the soft limit.
fn limit(pid: u32, descriptors: usize) -> Result<()> {
    let status = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={descriptors}:"))
        .status()?;
    ensure!(status.success(), "prlimit");
    Ok(())
}

/// The lowest number that no descriptor has: a limit of it leaves none to open.
fn lowest_free(pid: u32) -> Result<usize> {
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        open.push(entry?.file_name().to_string_lossy().parse::<usize>()?);
    }
    (0..).find(|number| !open.contains(number)).context("no end of descriptors")
}

#[test]
fn out_of_descriptors_add_says_try_again_and_no_pod_loses_anything() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pods = [node.attached("one")?, node.attached("two")?];
        let pid = node.netd.pid();
        let mut refused = 0;
        for more in 0..8 {
            let mut pod = Sandbox::bare(&node.host, "late")?;
            pod.config["timeout"] = json!(2);
            limit(pid, lowest_free(pid)? + more)?;
            for command in ["ADD", "CHECK", "DEL"] {
                if command == "CHECK" {
                    pod.config["prevResult"] = json!({"cniVersion": "1.1.0"});
                }
                let answer = pod.call(command).execute(&node.host)?;
                pod.config.as_object_mut().map(|config| config.remove("prevResult"));
                if command == "ADD" && !answer.success {
                    ensure!(answer.code() == Some(11), "{more} left: {answer:?}");
                    refused += 1;
                }
                let blamed = answer.json.to_string();
                ensure!(!blamed.contains("is not a network namespace"), "{blamed}");
            }
            limit(pid, ENOUGH)?;
            wait::until(SOON, "the DEL is done", || pod.del(&node.host))?;
        }
        ensure!(refused > 0, "there were always enough");
        // By the path alone, over a connection that is there already.
        let pod = Sandbox::bare(&node.host, "by-path")?;
        let mut service = node.netd.endpoint_service()?;
        let list = netd_api::v1::ListEndpointsRequest::default();
        testbed::block_on(service.list_endpoints(list))?;
        limit(pid, lowest_free(pid)?)?;
        let request = AttachRequest { ..pod.request() };
        let answer = testbed::block_on(service.attach(request));
        let status = answer.err().map(|status| status.code());
        ensure!(status == Some(Code::Unavailable), "{status:?}");
        // Long enough for a collection that takes the namespaces for gone.
        wait::pause(GRACE * 2);
        limit(pid, ENOUGH)?;
        for pod in &pods {
            ensure!(node.has(pod)?);
        }
        probe::ping(&pods[0].net, pods[1].v4()?)?;
        for pod in pods {
            pod.del(&node.host)?;
        }
        node.nothing_left()
    })
}
