//! Calls that come twice, late, or for what belongs to another caller.

use anyhow::{Result, ensure};
use netd_api::v1::{AttachRequest, CheckRequest, DetachRequest};
use testbed::{Sandbox, case, wait};
use tonic::Code;

use crate::node::{Node, detach, refused};

const DETACHED: (Code, &str) = (Code::FailedPrecondition, "DETACHED_SINCE");

fn issued(sandbox: &Sandbox, at: u64) -> AttachRequest {
    AttachRequest { issued_at: at, ..sandbox.request() }
}

#[test]
fn an_attach_issued_before_a_detach_is_refused_also_by_a_restarted_netd() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let early = wait::boottime()?;
        node.netd.attach(pod.request())?;
        ensure!(node.detach(&pod)? == 1);
        node.refuses("a late attach", issued(&pod, early), DETACHED)?;
        node.netd.restart()?;
        node.refuses("after a restart", issued(&pod, early), DETACHED)?;
        node.netd.kill9()?;
        node.netd.restart()?;
        node.refuses("after a crash", issued(&pod, early), DETACHED)?;
        node.nothing_left()?;
        // Asked for after the detach: another attempt, which counts.
        node.netd.attach(issued(&pod, wait::boottime()?))?;
        node.detach(&pod)?;
        node.nothing_left()
    })
}

#[test]
fn a_detach_of_what_was_never_attached_fences_off_the_attach_it_overtook() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let early = wait::boottime()?;
        let (whole, single) = (node.bare("whole")?, node.bare("single")?);
        ensure!(node.detach(&whole)? == 0);
        let only = DetachRequest { interface: "eth0".to_owned(), ..detach(&single) };
        ensure!(node.netd.detach(only)? == 0);
        for pod in [&whole, &single] {
            node.refuses("overtaken", issued(pod, early), DETACHED)?;
        }
        // The fence of one interface is none for another.
        let other = AttachRequest { interface: "eth1".to_owned(), ..issued(&single, early) };
        node.netd.attach(other)?;
        node.detach(&single)?;
        node.nothing_left()
    })
}

/// DEL of an earlier attempt that was on its way for a long time: what it meant is gone, and
/// the sandbox was attached again since.
#[test]
fn a_detach_issued_before_the_attach_removes_nothing() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let (first, late) = (wait::boottime()?, wait::boottime()?);
        node.netd.attach(issued(&pod, first))?;
        ensure!(node.detach(&pod)? == 1);
        let made = node.netd.attach(issued(&pod, wait::boottime()?))?;
        let whole = DetachRequest { issued_at: late, ..detach(&pod) };
        let single = DetachRequest { interface: "eth0".to_owned(), ..whole.clone() };
        for _ in 0..2 {
            for request in [&whole, &single] {
                ensure!(node.netd.detach(request.clone())? == 0, "{request:?}");
                ensure!(node.netd.endpoints()? == std::slice::from_ref(&made));
                pod.net.sh("ip -o link show eth0")?;
            }
            node.netd.kill9()?;
            node.netd.restart()?;
        }
        // Asked for again, which is answered with what is there: a detach from between the
        // two requests is late, too.
        let between = wait::boottime()?;
        ensure!(node.netd.attach(issued(&pod, wait::boottime()?))? == made);
        ensure!(node.netd.detach(DetachRequest { issued_at: between, ..detach(&pod) })? == 0);
        pod.net.sh("ip -o link show eth0")?;
        ensure!(node.detach(&pod)? == 1);
        node.nothing_left()
    })
}

#[test]
fn a_detach_can_be_repeated() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        node.netd.attach(pod.request())?;
        ensure!(node.detach(&pod)? == 1);
        ensure!(node.detach(&pod)? == 0);
        pod.del(&node.host)?;
        pod.del(&node.host)?;
        node.nothing_left()
    })
}

#[test]
fn a_repeated_attach_answers_the_first_ones_result() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let first = node.netd.attach(pod.request())?;
        ensure!(node.netd.attach(pod.request())? == first);
        node.netd.restart()?;
        ensure!(node.netd.attach(pod.request())? == first, "after a restart");
        ensure!(node.netd.addresses_used()? == 2);
        node.detach(&pod)?;
        node.nothing_left()
    })
}

#[test]
fn the_same_key_with_another_namespace_is_refused_and_harms_nobody() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (pod, other) = (node.bare("pod")?, node.bare("other")?);
        let first = node.netd.attach(pod.request())?;
        let stolen = AttachRequest { sandbox_id: pod.id.clone(), ..other.request() };
        let elsewhere = (Code::AlreadyExists, "ENDPOINT_ELSEWHERE");
        node.refuses("another namespace", stolen, elsewhere)?;
        let links = other.net.sh("ip -o link")?;
        ensure!(links.lines().count() == 1, "{links}");
        ensure!(node.netd.endpoints()? == [first]);
        let check = CheckRequest { sandbox_id: pod.id.clone(), ..CheckRequest::default() };
        node.netd.check(check.clone())?;
        let netns_path = other.net.path().display().to_string();
        let wrong = node.netd.check(CheckRequest { netns_path, ..check });
        refused("a check elsewhere", wrong, (Code::FailedPrecondition, "WRONG_NETNS"))
    })
}

#[test]
fn a_namespace_recreated_at_the_same_path_is_another() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut pod = node.bare("pod")?;
        node.netd.attach(pod.request())?;
        pod.replace_namespace()?;
        // The old one is gone for good, so this may succeed or be refused, but it must
        // not answer the old result for a namespace without an interface.
        if node.netd.attach(pod.request()).is_ok() {
            pod.net.sh("ip -o link show eth0")?;
        }
        node.detach(&pod)?;
        node.netd.attach(pod.request())?;
        pod.net.sh("ip -o link show eth0")?;
        node.detach(&pod)?;
        node.nothing_left()
    })
}

#[test]
fn an_interface_that_is_there_is_refused_and_left_alone() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        pod.net.sh("ip link add eth0 type veth peer name other; ip link set eth0 up")?;
        let before = pod.net.sh("ip -o link")?;
        let answer = pod.call("ADD").execute(&node.host)?;
        ensure!(!answer.success, "{answer:?}");
        ensure!(node.netd.attach(pod.request()).is_err());
        ensure!(pod.net.sh("ip -o link")? == before, "the foreign interface was touched");
        node.nothing_left()?;
        // A DEL of the failed ADD does not take the foreign interface away either.
        pod.del(&node.host)?;
        ensure!(pod.net.sh("ip -o link")? == before, "DEL took a foreign interface");
        Ok(())
    })
}

#[test]
fn eight_attaches_of_one_key_at_once_make_one_endpoint() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let made = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..8).map(|_| scope.spawn(|| node.netd.attach(pod.request()))).collect();
            let joined = calls.into_iter().filter_map(|call| call.join().ok());
            joined.collect::<Vec<_>>()
        });
        ensure!(made.len() == 8);
        let mut endpoints = Vec::new();
        for outcome in made {
            endpoints.push(outcome?);
        }
        endpoints.dedup();
        ensure!(endpoints.len() == 1, "{endpoints:?}");
        ensure!(node.netd.addresses_used()? == 2);
        node.detach(&pod)?;
        node.nothing_left()
    })
}
