//! What tells a namespace: not its path, which can vanish, and not its inode, which comes
//! back.

use std::{
    cmp::Ordering,
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use netd_api::v1::CheckRequest;
use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use testbed::{Host, Namespace, Sandbox, case, net::probe, wait};

use crate::node::{GRACE, Node, SOON};

/// Namespaces and files of /proc/net have inodes of one row; a UTS namespace takes just one.
fn new_uts_namespace() -> Result<File> {
    let taken = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWUTS)?;
        Ok(File::open("/proc/thread-self/ns/uts")?)
    });
    taken.join().map_err(|_| anyhow!("panicked"))?
}

/// Takes the pod's namespace away and puts another one at its path, with the same inode;
/// `None` if another program's namespace got the number first.
fn same_inode_again(host: &Host, pod: &mut Sandbox) -> Result<Option<Namespace>> {
    let inode = pod.net.inode()?;
    let path = pod.request().netns_path;
    pod.vanish();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // The kernel gives out the lowest number that is free: those below are used up.
    let mut below = Vec::new();
    wait::until(SOON, "the old namespace is taken apart", || {
        loop {
            let taken = new_uts_namespace()?;
            match taken.metadata()?.ino().cmp(&inode) {
                Ordering::Less => below.push(taken),
                Ordering::Equal => return Ok(()),
                Ordering::Greater => bail!("its number is not free"),
            }
        }
    })?;
    let next = Namespace::create(host.directory().join(format!("spare/{}", pod.id)))?;
    if next.inode()? != inode {
        return Ok(None);
    }
    File::create(&path)?;
    let bound = Command::new("mount").arg("--bind").arg(next.path()).arg(&path).status()?;
    ensure!(bound.success(), "mount --bind {path}");
    Ok(Some(next))
}

/// A pod, attached, and a later namespace at its path with its inode.
fn reused(node: &mut Node, stopped: bool) -> Result<(Sandbox, Namespace)> {
    for _ in 0..10 {
        let mut pod = node.attached("pod")?;
        if stopped {
            node.netd.kill9()?;
        }
        let another = same_inode_again(&node.host, &mut pod)?;
        if stopped {
            node.netd.restart()?;
        }
        match another {
            Some(another) => return Ok((pod, another)),
            None => pod.del(&node.host)?,
        }
    }
    bail!("no inode came back")
}

fn untouched(net: &Namespace) -> Result<()> {
    let links = net.sh("ip -o link")?;
    ensure!(links.lines().count() == 1, "netd put something into another's namespace: {links}");
    Ok(())
}

#[test]
fn a_namespace_with_the_inode_of_an_earlier_one_is_another() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        // While netd runs, and while it does not.
        for stopped in [false, true] {
            let (mut pod, another) = reused(&mut node, stopped)?;
            let check = CheckRequest {
                sandbox_id: pod.id.clone(),
                netns_path: pod.request().netns_path,
                ..CheckRequest::default()
            };
            ensure!(node.netd.check(check).is_err(), "CHECK took it for the endpoint's own");
            wait::until(SOON, "the endpoint is collected", || {
                untouched(&another)?;
                ensure!(!node.has(&pod)?);
                Ok(())
            })?;
            untouched(&another)?;
            // Asked for, it gets an endpoint of its own.
            pod.net = Namespace::of(pod.request().netns_path);
            pod.add(&node.host)?;
            another.sh("ip -o link show eth0")?;
            pod.del(&node.host)?;
            unmount(&pod.request().netns_path)?;
        }
        node.nothing_left()
    })
}

#[test]
fn an_attach_in_a_namespace_with_the_same_inode_makes_a_new_endpoint() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let (mut pod, another) = reused(&mut node, false)?;
        wait::until(SOON, "it is attached", || pod.add(&node.host))?;
        another.sh("ip -o link show eth0")?;
        let others = node.attached("other")?;
        probe::ping(&others.net, pod.v4()?)?;
        pod.del(&node.host)?;
        unmount(&pod.request().netns_path)?;
        others.del(&node.host)?;
        node.nothing_left()
    })
}

struct Living(Child);

impl Living {
    fn inside(net: &Namespace) -> Result<Self> {
        Ok(Self(net.command("sleep").arg("1000").spawn().context("sleep")?))
    }

    fn end(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn unmount(path: &str) -> Result<()> {
    let status = Command::new("umount").args(["-l", path]).status()?;
    ensure!(status.success(), "umount {path}");
    Ok(())
}

/// A pod that lives keeps its network, whatever becomes of the path that it was attached by.
#[test]
fn a_pod_that_lives_keeps_its_network_without_its_path() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let client = node.attached("client")?;
        let (removed, file, replaced) =
            (node.attached("removed")?, node.attached("file")?, node.attached("replaced")?);
        // By the path of a process, as the OCI front attaches; the process ends before another
        // one of the same pod.
        let mut by_process = node.attached("by-process")?;
        let mut alive = Vec::new();
        for pod in [&removed, &file, &replaced, &by_process] {
            alive.push(Living::inside(&pod.net)?);
        }
        let mut first = Living::inside(&by_process.net)?;
        wait::pause(Duration::from_millis(200));
        let path = format!("/proc/{}/ns/net", first.0.id());
        by_process.del(&node.host)?;
        node.netd.attach(netd_api::v1::AttachRequest {
            netns_path: path.clone(),
            ..by_process.request()
        })?;
        first.end()?;
        by_process.vanish();
        ensure!(!Path::new(&path).exists());
        for pod in [&removed, &file, &replaced] {
            unmount(&pod.request().netns_path)?;
        }
        std::fs::remove_file(removed.request().netns_path)?;
        let _another = Namespace::create(replaced.request().netns_path)?;
        let v4: Vec<_> = node
            .netd
            .endpoints()?
            .iter()
            .filter(|e| e.sandbox_id != client.id)
            .filter_map(|e| e.addresses.first()?.address.split('/').next()?.parse().ok())
            .collect::<Vec<std::net::IpAddr>>();
        ensure!(v4.len() == 4, "{v4:?}");
        for _ in 0..2 {
            wait::pause(GRACE * 2);
            for ip in &v4 {
                probe::ping(&client.net, *ip).with_context(|| format!("{ip} is cut off"))?;
            }
            node.netd.kill9()?;
            node.netd.restart()?;
        }
        // Level-triggered: each goes with its last process.
        for living in &mut alive {
            living.end()?;
        }
        wait::until(SOON, "only the client is left", || {
            ensure!(node.netd.endpoints()?.len() == 1);
            Ok(())
        })?;
        client.del(&node.host)?;
        node.nothing_left()
    })
}
