//! An ADD that is repeated with other wishes is refused, and the message says what differs.

use anyhow::{Result, ensure};
use netd_api::v1::{AttachRequest, Driver, PortMapping};
use serde_json::{Value, json};
use testbed::case;
use tonic::Code;

use crate::node::{Node, network};

/// Name, the change of the configuration, and a word of the refusal.
type Case = (&'static str, fn(&mut Value), &'static str);

#[test]
fn an_add_with_other_wishes_is_refused_and_the_same_one_is_answered() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        node.netd.create_network(network("blue", Driver::Bridge, &["10.77.0.0/24"]))?;
        let mut pod = node.bare("pod")?;
        pod.config["runtimeConfig"] = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                             {"hostPort": 8081, "containerPort": 81, "protocol": "tcp"}]
        });
        let first = pod.add(&node.host)?;
        let (same, ports) = (pod.config.clone(), pod.config["runtimeConfig"].clone());
        let cases: [Case; 6] = [
            ("network", |c| c["network"] = json!("blue"), "blue"),
            ("ips", |c| c["runtimeConfig"]["ips"] = json!(["10.88.7.7/16"]), "10.88.7.7"),
            (
                "mac",
                |c| c["runtimeConfig"]["mac"] = json!("02:00:00:00:07:07"),
                "02:00:00:00:07:07",
            ),
            ("ports", |c| c["runtimeConfig"]["portMappings"] = json!([]), "8080"),
            (
                "bandwidth",
                |c| {
                    c["runtimeConfig"]["bandwidth"] =
                        json!({"ingressRate": 8000000, "ingressBurst": 8000000});
                },
                "bandwidth",
            ),
            ("default route", |c| c["defaultRoute"] = json!(true), "default route"),
        ];
        for restart in [false, true] {
            if restart {
                node.netd.kill9()?;
                node.netd.restart()?;
            }
            for (what, change, word) in &cases {
                pod.config = same.clone();
                change(&mut pod.config);
                let answer = node.add(&pod)?;
                let said = answer.json.to_string();
                ensure!(!answer.success && said.contains(word), "{what}: {answer:?}");
            }
            pod.config = same.clone();
            // The order of ports is no wish.
            let mut reversed = ports.clone();
            if let Some(all) = reversed["portMappings"].as_array_mut() {
                all.reverse();
            }
            pod.config["runtimeConfig"] = reversed;
            ensure!(pod.add(&node.host)? == first, "another answer to the same wishes");
        }
        // CHECK with another network.
        let mut call = pod.call("CHECK");
        let mut config = same.clone();
        config["prevResult"] = first.clone();
        call.stdin = config.to_string().into_bytes();
        call.execute(&node.host)?.ok()?;
        config["network"] = json!("blue");
        call.stdin = config.to_string().into_bytes();
        let wrong = call.execute(&node.host)?;
        ensure!(!wrong.success && wrong.json.to_string().contains("blue"), "{wrong:?}");
        pod.config = same;
        pod.del(&node.host)
    })
}

#[test]
fn an_attach_over_grpc_with_other_wishes_is_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        node.netd.create_network(network("blue", Driver::Routed, &["10.77.0.0/24"]))?;
        let pod = node.bare("pod")?;
        let first = node.netd.attach(pod.request())?;
        let port = PortMapping { host_port: 8080, container_port: 80, ..Default::default() };
        let others = [
            AttachRequest { network: "blue".into(), ..pod.request() },
            AttachRequest { addresses: vec!["10.88.7.7".into()], ..pod.request() },
            AttachRequest { mac: "02:00:00:00:07:07".into(), ..pod.request() },
            AttachRequest { mtu: 1300, ..pod.request() },
            AttachRequest { port_mappings: vec![port], ..pod.request() },
            AttachRequest { no_default_route: true, ..pod.request() },
        ];
        for other in others {
            let refused = node.netd.attach(other.clone()).err();
            let code = refused.as_ref().map(tonic::Status::code);
            ensure!(code == Some(Code::AlreadyExists), "{other:?}: {refused:?}");
        }
        ensure!(node.netd.attach(pod.request())? == first);
        let check = netd_api::v1::CheckRequest {
            sandbox_id: pod.id.clone(),
            network: "blue".into(),
            ..Default::default()
        };
        let code = node.netd.check(check).err().map(|status| status.code());
        ensure!(code == Some(Code::FailedPrecondition), "{code:?}");
        Ok(())
    })
}
