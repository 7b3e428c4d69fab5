//! Events of pods.

use std::time::Duration;

use runtime_hook::nri::{Policy, messages::PodSandbox};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    containerd::{Listener, PluginConnection, REMOVE, RUN, STOP, Style, pod, without_namespaces},
    netd::FakeNetd,
    start,
};

const STYLES: [Style; 2] = [Style::StateChange, Style::Calls];

async fn refused(peer: &mut PluginConnection, pod: &PodSandbox, words: &[&str]) -> i32 {
    let status = peer.event(Style::Calls, RUN, pod).await.unwrap_err();
    for word in words {
        assert!(status.message.contains(word), "{word} is not in: {}", status.message);
    }
    assert!(status.message.contains(&pod.id) && status.message.contains("shop/web-0"));
    status.code
}

#[tokio::test]
async fn a_pod_lives_and_dies_in_both_event_styles() {
    for style in STYLES {
        let (listener, netd) = (Listener::new(), FakeNetd::default());
        let _front = start(&listener, &netd, Policy::default());
        let mut peer = listener.ready().await;
        netd.has("s1", "eth0");
        netd.has("other", "eth0");
        let mut web = pod("s1", &[("netd.io/networks", "blue,red"), ("team", "x")]);
        web.annotations.insert("io.kubernetes.cri.sandbox-id".into(), "s1".into());
        web.labels.insert("io.cri-containerd.kind".into(), "sandbox".into());
        peer.event(style, RUN, &web).await.unwrap();
        assert_eq!(netd.interfaces("s1"), ["eth0", "eth1", "eth2"]);
        let eth0 = netd.state().endpoints[&("s1".into(), "eth0".into())].clone();
        assert_eq!(eth0.pod.as_ref().map(|p| p.uid.as_str()), Some("u-1"));
        assert_eq!((eth0.labels["app"].as_str(), eth0.annotations["team"].as_str()), ("web", "x"));
        assert_eq!(
            (eth0.labels.len(), eth0.annotations.len()),
            (1, 2),
            "the runtime's are left out"
        );
        let attached = netd.state().attached.clone();
        assert!(attached.iter().all(|a| a.no_default_route && a.issued_at > 0));
        assert!(attached.iter().all(|a| a.netns_path == "/run/netns/cni-x"));
        let networks: Vec<_> = attached.iter().map(|a| a.network.as_str()).collect();
        assert_eq!(networks, ["blue", "red"]);

        // eth0 is CNI DEL's.
        peer.event(style, STOP, &without_namespaces(&web)).await.unwrap();
        assert_eq!(netd.interfaces("s1"), ["eth0"]);
        peer.event(style, REMOVE, &without_namespaces(&web)).await.unwrap();
        assert_eq!(netd.interfaces("s1"), Vec::<String>::new());
        assert_eq!(netd.interfaces("other"), ["eth0"]);
    }
}

#[tokio::test]
async fn a_pod_without_extra_networks_costs_one_call_and_nothing_on_stop() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    netd.has("s1", "eth0");
    peer.event(Style::Calls, RUN, &pod("s1", &[])).await.unwrap();
    peer.event(Style::Calls, STOP, &pod("s1", &[])).await.unwrap();
    let state = netd.state();
    assert_eq!((state.annotated.len(), state.attached.len(), state.detached.len()), (1, 0, 0));
}

#[tokio::test]
async fn host_network_pods_are_left_alone() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.state().down = true;
    let mut host = pod("s1", &[("netd.io/networks", "blue")]);
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    for style in STYLES {
        let linux = host.linux.as_mut().unwrap();
        linux.namespaces.retain(|n| n.r#type != "network");
        peer.event(style, RUN, &host).await.unwrap();
        host.linux = None;
        peer.event(style, RUN, &host).await.unwrap();
        host = pod("s1", &[]);
        host.linux.as_mut().unwrap().namespaces[1].path.clear();
        peer.event(style, RUN, &host).await.unwrap();
    }
    assert!(netd.state().attached.is_empty());
}

#[tokio::test]
async fn a_pod_whose_eth0_is_not_netds_is_refused_with_the_way_out() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let words = ["did not attach its eth0", "netd.io/primary", "--allow-unattached"];
    let mut lost = pod("s1", &[("netd.io/networks", "blue")]);
    assert_eq!(refused(&mut peer, &lost, &words).await, Code::FailedPrecondition as i32);
    netd.has("s1", "eth7");
    assert_eq!(refused(&mut peer, &lost, &words).await, Code::FailedPrecondition as i32);
    assert!(netd.state().attached.is_empty());

    netd.has("s1", "eth0");
    netd.state().endpoints.get_mut(&("s1".into(), "eth0".into())).unwrap().state = 3;
    refused(&mut peer, &lost, &["being detached"]).await;
    netd.state().down = true;
    let code = refused(&mut peer, &lost, &["netd is away"]).await;
    assert_eq!(code, Code::Unavailable as i32);
    lost.annotations.insert("netd.io/primary".into(), "no".into());
    refused(&mut peer, &lost, &["netd.io/primary", "\"no\"", "\"other\""]).await;
}

#[tokio::test]
async fn pods_of_another_primary_run_if_they_the_handler_or_the_node_say_so() {
    let handler = PodSandbox { runtime_handler: "kata".into(), ..pod("s1", &[]) };
    let kata = Policy { unattached_handlers: vec!["kata".into()], ..Policy::default() };
    let all = Policy { allow_unattached: true, ..Policy::default() };
    let shop = Policy { unattached_namespaces: vec!["shop".into()], ..Policy::default() };
    let any = Policy { unattached_namespaces: vec!["*".into()], ..Policy::default() };
    let cases = [
        (pod("s1", &[("netd.io/primary", "other")]), shop),
        (pod("s1", &[("netd.io/primary", "other")]), any),
        (pod("s1", &[("netd.io/primary", "other")]), all.clone()),
        (handler, kata.clone()),
        (pod("s1", &[]), all.clone()),
    ];
    for (mut web, policy) in cases {
        let (listener, netd) = (Listener::new(), FakeNetd::default());
        let _front = start(&listener, &netd, policy);
        let mut peer = listener.ready().await;
        web.annotations.insert("netd.io/networks".into(), "blue".into());
        peer.event(Style::Calls, RUN, &web).await.unwrap();
        assert_eq!(netd.interfaces("s1"), ["eth1"]);
    }
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, kata);
    let mut peer = listener.ready().await;
    refused(&mut peer, &pod("s2", &[]), &["eth0"]).await;
    let strict =
        PodSandbox { runtime_handler: "kata".into(), ..pod("s3", &[("netd.io/primary", "netd")]) };
    refused(&mut peer, &strict, &["eth0"]).await;
}

#[tokio::test]
async fn a_pod_turns_the_gate_off_only_where_the_administrator_lets_it() {
    let bank = Policy { unattached_namespaces: vec!["bank".into()], ..Policy::default() };
    for policy in [Policy::default(), bank] {
        let (listener, netd) = (Listener::new(), FakeNetd::default());
        let _front = start(&listener, &netd, policy);
        let mut peer = listener.ready().await;
        let web = pod("s1", &[("netd.io/primary", "other")]);
        let words = ["netd.io/primary", "\"shop\"", "--unattached-namespace shop"];
        let code = refused(&mut peer, &web, &words).await;
        assert_eq!(code, Code::PermissionDenied as i32);
        // A namespace listed without the annotation changes nothing.
        refused(&mut peer, &pod("s2", &[]), &["did not attach its eth0"]).await;
    }
}

#[tokio::test]
async fn an_annotation_of_netds_that_nothing_reads_is_refused() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    netd.has("s1", "eth0");
    for (key, right) in [
        ("netd.io/netwroks", "netd.io/networks"),
        ("netd.io/network", "netd.io/networks"),
        ("netd.io/ports", "netd.io/networks"),
        ("netd.io/prmiary", "netd.io/primary"),
    ] {
        let code = refused(&mut peer, &pod("s1", &[(key, "blue")]), &[key, right]).await;
        assert_eq!(code, Code::InvalidArgument as i32, "{key}");
    }
    assert!(netd.state().attached.is_empty());
    // It was not refused while it ran, and has to be let go.
    peer.event(Style::Calls, STOP, &pod("s1", &[("netd.io/network", "blue")])).await.unwrap();
}

#[tokio::test]
async fn a_bad_annotation_is_refused_before_anything_is_attached() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    netd.has("s1", "eth0");
    let web = pod("s1", &[("netd.io/networks", "blue,Red")]);
    let code = refused(&mut peer, &web, &["netd.io/networks", "blue,Red", "\"blue,red\""]).await;
    assert_eq!(code, Code::InvalidArgument as i32);
    assert!(netd.state().attached.is_empty());
    peer.event(Style::Calls, STOP, &web).await.unwrap();
}

#[tokio::test]
async fn when_one_network_fails_the_others_are_undone() {
    for (code, kept) in [
        (Code::NotFound, vec![]),
        (Code::PermissionDenied, vec![]),
        (Code::AlreadyExists, vec!["eth2"]),
    ] {
        let (listener, netd) = (Listener::new(), FakeNetd::default());
        let _front = start(&listener, &netd, Policy::default());
        let mut peer = listener.ready().await;
        netd.has("s1", "eth0");
        kept.iter().for_each(|name| netd.has("s1", name));
        netd.state().refuse = Some(("red".into(), Status::new(code, "network red: no")));
        let web = pod("s1", &[("netd.io/networks", "blue,red,green")]);
        let words = ["netd.io/networks", "eth2 to network red", "network red: no"];
        assert_eq!(refused(&mut peer, &web, &words).await, code as i32);
        assert_eq!(netd.interfaces("s1"), [vec!["eth0"], kept].concat());
    }
}

#[tokio::test]
async fn an_attach_that_hangs_is_answered_in_time_and_undone() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    peer.configure(1000).await;
    netd.has("s1", "eth0");
    netd.state().hang = Some("red".into());
    let began = Instant::now();
    let web = pod("s1", &[("netd.io/networks", "blue,red")]);
    let code = refused(&mut peer, &web, &["did not answer Attach of eth2"]).await;
    assert_eq!(code, Code::DeadlineExceeded as i32);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(netd.interfaces("s1"), ["eth0"]);
}

#[tokio::test]
async fn a_netd_that_is_too_slow_fails_the_pod_in_time() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    peer.configure(400).await;
    netd.has("s1", "eth0");
    netd.state().slow = Duration::from_secs(30);
    let began = Instant::now();
    refused(&mut peer, &pod("s1", &[]), &["did not answer Annotate"]).await;
    assert!(began.elapsed() < Duration::from_millis(390), "{:?}", began.elapsed());
}

#[tokio::test]
async fn ten_thousand_labels_are_passed_on() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    netd.has("s1", "eth0");
    let mut web = pod("s1", &[]);
    web.labels = (0..10_000).map(|i| (format!("label-{i}"), "x".repeat(63))).collect();
    peer.event(Style::StateChange, RUN, &web).await.unwrap();
    assert_eq!(netd.state().endpoints[&("s1".into(), "eth0".into())].labels.len(), 10_000);
}
