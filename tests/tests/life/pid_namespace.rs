//! A runtime in PID and mount namespaces of its own: what `/proc/PID/ns/net` means to it is
//! not what it means to netd.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::EndpointState;
use testbed::{Host, Sandbox, case, paths, wait};

use crate::node::{GRACE, Node, SOON};

/// Printed after a script, with its exit status.
const END: &str = "END-OF-SCRIPT";

/// A shell that stands for the runtime: pid 1 of its own PID namespace, with its own /proc.
struct Runtime {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Runtime {
    fn start(host: &Host) -> Result<Self> {
        let mut command = host.net.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = shell.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(shell.stdout.take().context("no stdout")?);
        Ok(Self { shell, stdin, stdout })
    }

    /// What a script prints; an error if it fails.
    fn sh(&mut self, script: &str) -> Result<String> {
        writeln!(self.stdin, "{{ {script}\n}} </dev/null 2>&1; s=$?; echo; echo {END} $s")?;
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.stdout.read_line(&mut line)? > 0, "the shell has ended: {printed}");
            match line.strip_prefix(END) {
                Some(status) => {
                    ensure!(status.trim() == "0", "`{script}`: {status}{printed}");
                    return Ok(printed);
                }
                None => printed += &line,
            }
        }
    }

    /// Starts a container, in a network namespace of its own, as process `pid`.
    fn container(&mut self, pid: u32) -> Result<()> {
        self.sh(&format!(
            "echo {} > /proc/sys/kernel/ns_last_pid; unshare --net sleep 600 & c=$!
             test $c = {pid} || exit 7
             until test $(readlink /proc/$c/ns/net) != $(readlink /proc/self/ns/net); do :; done",
            pid - 1
        ))?;
        Ok(())
    }

    /// The plugin as this runtime calls it, for the container that is process `pid`.
    fn plugin(
        &mut self,
        command: &str,
        sandbox: &Sandbox,
        host: &Host,
        pid: u32,
    ) -> Result<String> {
        let config = host.directory().join("runtime.json");
        fs::write(&config, sandbox.config.to_string())?;
        let (config, plugin) = (config.display(), paths::plugin()?);
        let (id, plugin) = (&sandbox.id, plugin.display());
        self.sh(&format!(
            "CNI_COMMAND={command} CNI_CONTAINERID={id} CNI_IFNAME=eth0 CNI_PATH=/nowhere \
             CNI_NETNS=/proc/{pid}/ns/net {plugin} < {config}"
        ))
    }

    /// Addresses in the container.
    fn addresses(&mut self, pid: u32) -> Result<String> {
        self.sh(&format!("nsenter --net=/proc/{pid}/ns/net ip -o address show"))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Everything in its PID namespace goes with it.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn the_interface_is_in_the_caller_s_container_and_not_in_a_stranger_s() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let stranger = Sandbox::bare(&node.host, "stranger")?;
        let mut process = stranger.net.command("sleep").arg("600").spawn()?;
        let pid = process.id();
        let mut runtime = Runtime::start(&node.host)?;
        runtime.container(pid)?;
        let mut pod = Sandbox::bare(&node.host, "pod")?;

        let result = runtime.plugin("ADD", &pod, &node.host, pid)?;
        ensure!(result.contains("\"ips\""), "{result}");
        let own = runtime.addresses(pid)?;
        ensure!(own.contains("eth0") && own.contains("10.88."), "{own}");
        let others = stranger.net.sh("ip -o address show")?;
        ensure!(!others.contains("eth0"), "{others}");

        // What it says again, netd answers, and sees in the right namespace.
        runtime.plugin("ADD", &pod, &node.host, pid)?;
        pod.config["prevResult"] = serde_json::from_str(&result)?;
        runtime.plugin("CHECK", &pod, &node.host, pid)?;
        runtime.sh(&format!("nsenter --net=/proc/{pid}/ns/net ip link set eth0 down"))?;
        ensure!(runtime.plugin("CHECK", &pod, &node.host, pid).is_err());
        pod.config["prevResult"] = serde_json::Value::Null;
        runtime.plugin("ADD", &pod, &node.host, pid)?;
        ensure!(runtime.addresses(pid)?.contains("10.88."));
        process.kill()?;
        process.wait()?;

        // Its path leads netd nowhere, or elsewhere; that is no reason to collect it.
        wait::pause(GRACE * 2);
        ensure!(node.has(&pod)?, "collected while its container lives");
        node.netd.restart()?;
        wait::until(SOON, "the next netd takes it for attached", || {
            let endpoints = node.netd.endpoints()?;
            let endpoint = endpoints.iter().find(|e| e.sandbox_id == pod.id);
            let state = endpoint.map(|e| e.state()).context("it is not there")?;
            ensure!(state == EndpointState::Attached, "{state:?}");
            Ok(())
        })?;
        wait::pause(GRACE * 2);
        ensure!(node.has(&pod)?, "collected by the next netd");
        ensure!(runtime.addresses(pid)?.contains("10.88."));

        // With the container goes its namespace, and then the endpoint.
        drop(runtime);
        wait::until(SOON, "the endpoint is collected", || {
            ensure!(!node.has(&pod)?, "still there");
            Ok(())
        })?;
        node.nothing_left()
    })
}
