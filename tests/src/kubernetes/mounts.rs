//! A node's own view of the file system: what kubelet, containerd and a pod's hostPaths share of a
//! machine, so that several nodes are on this one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{host::Host, service::Service, wait};

/// Settings of the whole machine that kubelet would change, and what it wants them to be.
const MACHINE_WIDE: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A mount namespace that lasts as long as the value and what runs in it.
#[derive(Debug)]
pub(super) struct Mounts {
    holder: Service,
    net: PathBuf,
}

impl Mounts {
    /// Makes it for a host, whose directory keeps what has to last or is looked at from outside.
    pub(super) fn make(host: &Host) -> Result<Self> {
        let here = host.directory();
        for part in ["fake", "netd/run", "netd/state", "containerd/cni", "containerd/bin"] {
            fs::create_dir_all(here.join(part))?;
        }
        for (name, value) in MACHINE_WIDE {
            fs::write(here.join("fake").join(name.replace('/', ".")), value)?;
        }
        let script = here.join("mounts.sh");
        fs::write(&script, text(here))?;
        let mut command = host.net.command("unshare");
        command.args(["--mount", "sh", "-e"]).arg(script);
        let mut holder = Service::start("a node's mounts", command, &here.join("mounts.log"))?;
        let made = here.join("mounts-made");
        wait::until(Duration::from_secs(10), "a node's mounts are made", || {
            holder.check_alive()?;
            ensure!(made.exists(), "not yet");
            Ok(())
        })?;
        Ok(Self { holder, net: host.net.path().to_owned() })
    }

    /// What enters the node: a program and its arguments.
    pub(super) fn enter(&self) -> Vec<String> {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.holder.pid());
        vec!["nsenter".to_owned(), format!("--net={}", self.net.display()), mount, "--".to_owned()]
    }

    /// A command that will run in the node.
    pub(super) fn command(&self, program: &Path) -> Command {
        let enter = self.enter();
        let mut command = Command::new("nsenter");
        command.args(enter.iter().skip(1)).arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// What makes the mounts and then holds them, by a program that names the bed. They are shared within the node: a pod's mounts
/// with propagation HostToContainer are refused otherwise.
fn text(here: &Path) -> String {
    let fakes = MACHINE_WIDE.map(|(name, _)| {
        let fake = here.join("fake").join(name.replace('/', "."));
        format!("test ! -e /proc/sys/{name} || mount --bind {} /proc/sys/{name}\n", fake.display())
    });
    let here = here.display();
    format!(
        "mount --make-rprivate /
cp -a /etc {here}/etc
mount --bind {here}/etc /etc
for each in /run /opt /var/lib /var/log; do mount -t tmpfs node $each; done
bind() {{ mkdir -p \"$2\"; mount --bind \"{here}/$1\" \"$2\"; }}
bind netd/run /run/netd
bind netd/state /var/lib/netd
bind containerd/bin /opt/cni/bin
bind containerd/cni /etc/cni/net.d
{}mount --make-rshared /
touch {here}/mounts-made
exec tail -f {here}/mounts-made
",
        fakes.concat()
    )
}
