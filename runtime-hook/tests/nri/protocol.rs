//! Registering, configuring, synchronizing, hostile bytes, reconnecting.

use std::{os::fd::IntoRawFd, sync::Arc, time::Duration};

use prost::Message;
use runtime_hook::nri::{
    self, Options, Policy,
    messages::{ConfigureRequest, PLUGIN_SERVICE, Status, SynchronizeRequest},
};
use tokio::io::AsyncWriteExt;

use crate::{
    containerd::{
        Listener, PluginConnection, RUN, Style, encode_event, frame, message, named, pod, request,
    },
    netd::FakeNetd,
    start,
};

#[tokio::test]
async fn it_registers_and_subscribes_to_the_three_pod_events_only() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    let request = peer.register().await;
    assert_eq!((request.plugin_name.as_str(), request.plugin_idx.as_str()), ("netd", "10"));
    assert_eq!(peer.configure(2000).await.events, 0x7);
}

#[tokio::test]
async fn configure_is_answered_before_the_registration_is() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    assert_eq!(peer.configure(2000).await.events, 0x7);
    peer.register().await;
    assert!(!peer.synchronize(vec![], false).await.unwrap().more);
}

#[tokio::test]
async fn a_refused_registration_is_tried_again_later() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    peer.registration().await;
    peer.answer_registration(Some(Status::new(3, "no"))).await;
    assert!(
        peer.answer().await.is_none(),
        "the plugin closes a connection on which it was refused"
    );
    listener.ready().await;
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    for (service, method) in [
        (PLUGIN_SERVICE, "ValidateContainerAdjustment"),
        (PLUGIN_SERVICE, "CreateContainer"),
        (PLUGIN_SERVICE, ""),
        ("nri.pkg.api.v1alpha1.Runtime", "Configure"),
        ("", "Configure"),
    ] {
        let status = peer.call(service, method, vec![]).await.unwrap_err();
        assert_eq!(status.code, 12, "{service}/{method}: {}", status.message);
    }
    // StateChange with an event that was not asked for.
    let (method, payload) = encode_event(Style::StateChange, 12, &pod("a", &[]));
    assert_eq!(peer.call(PLUGIN_SERVICE, method, payload).await, Ok(vec![]));
}

#[tokio::test]
async fn a_set_of_pods_in_parts_goes_to_netd_once_and_known_endpoints_are_annotated() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.has("b", "eth0");
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    peer.register().await;
    peer.configure(2000).await;
    assert!(peer.synchronize(vec![pod("a", &[]), pod("b", &[])], true).await.unwrap().more);
    assert!(peer.synchronize(vec![], true).await.unwrap().more);
    assert!(netd.state().synchronized.is_empty());
    assert!(!peer.synchronize(vec![pod("c", &[])], false).await.unwrap().more);
    netd.wait_until(|state| !state.annotated.is_empty()).await;
    let sets = netd.state().synchronized.clone();
    assert_eq!(sets.len(), 1);
    assert_eq!((sets[0].source.as_str(), sets[0].authoritative), ("nri", false));
    let ids: Vec<_> = sets[0].sandboxes.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(sets[0].sandboxes[0].netns_path, "/run/netns/cni-x");
    assert!(sets[0].sandboxes[0].labels.is_empty(), "the set must fit one message");
    let ids: Vec<_> = netd.state().annotated.iter().map(|s| s.id.clone()).collect();
    assert_eq!(ids, ["b"]);
    assert_eq!(netd.state().endpoints[&("b".into(), "eth0".into())].labels["app"], "web");
}

#[tokio::test]
async fn a_set_that_netd_can_not_take_yet_is_delivered_later_and_pods_stay_guarded() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.state().down = true;
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    peer.register().await;
    peer.configure(2000).await;
    peer.synchronize(vec![pod("old", &[])], false).await.unwrap();
    let status = peer.event(Style::Calls, RUN, &pod("new", &[])).await.unwrap_err();
    assert_eq!(status.code, 14, "{}", status.message);
    netd.state().down = false;
    netd.wait_until(|state| !state.synchronized.is_empty()).await;
    assert_eq!(netd.state().synchronized[0].sandboxes[0].id, "old");
}

#[tokio::test]
async fn a_synchronize_that_fails_closes_the_connection_and_the_next_one_starts_over() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.accept().await;
    peer.register().await;
    peer.configure(2000).await;
    let mut huge = pod("old", &[]);
    huge.annotations.insert("x".into(), "x".repeat(3 << 20));
    let mut parts = 0;
    let status = loop {
        match peer.synchronize(vec![huge.clone()], true).await {
            Ok(answer) => assert!(answer.more && parts < 30),
            Err(status) => break status,
        }
        parts += 1;
    };
    assert_eq!(status.code, 8, "{}", status.message);
    assert!(peer.answer().await.is_none());
    let mut peer = listener.accept().await;
    peer.register().await;
    peer.configure(2000).await;
    peer.synchronize(vec![pod("new", &[])], false).await.unwrap();
    netd.wait_until(|state| !state.synchronized.is_empty()).await;
    let sets = netd.state().synchronized.clone();
    let ids: Vec<_> = sets.iter().flat_map(|s| &s.sandboxes).map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["new"]);
}

#[tokio::test]
async fn it_comes_back_after_the_connection_is_lost_and_synchronizes_again() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    for round in 1..=3 {
        let peer = listener.ready().await;
        netd.wait_until(|state| state.synchronized.len() == round).await;
        drop(peer);
    }
}

#[tokio::test]
async fn a_plugin_that_the_runtime_started_serves_the_socket_it_was_given_and_then_ends() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let options =
        Options { fd: Some(theirs.into_raw_fd()), idx: "15".into(), ..Options::default() };
    let netd = FakeNetd::default();
    let front = tokio::spawn(nri::run_with(options, Arc::new(netd.clone())));
    let mut peer = PluginConnection::on(tokio::net::UnixStream::from_std(ours).unwrap());
    assert_eq!(peer.register().await.plugin_idx, "15");
    assert_eq!(peer.configure(2000).await.events, 7);
    drop(peer);
    front.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_is_answered_and_ends_the_connection() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    assert_eq!(peer.call(PLUGIN_SERVICE, "Shutdown", vec![]).await, Ok(vec![]));
    assert!(peer.answer().await.is_none());
}

#[tokio::test]
async fn a_request_cut_at_any_byte_is_answered() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let payload = SynchronizeRequest { pods: vec![], more: true }.encode_to_vec();
    let inner = request(101, PLUGIN_SERVICE, "Synchronize", payload);
    // Cut inside the stream of bytes: two writes. Cut inside the message: two frames.
    let whole = frame(1, &inner);
    for at in 0..whole.len() {
        peer.send(&whole[..at]).await;
        tokio::task::yield_now().await;
        peer.send(&whole[at..]).await;
        assert!(peer.answer().await.unwrap().1.is_ok(), "bytes cut at {at}");
    }
    for at in 0..inner.len() {
        let noise = frame(9, b"of another stream");
        let frames = [frame(1, &inner[..at]), noise, frame(1, &inner[at..])].concat();
        peer.send(&frames).await;
        assert!(peer.answer().await.unwrap().1.is_ok(), "message cut at {at}");
    }
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.state().slow = Duration::from_millis(20);
    for id in ["a", "b", "c"] {
        netd.has(id, "eth0");
    }
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let mut all = Vec::new();
    for (stream, id) in [(11, "a"), (13, "b"), (15, "c")] {
        let (method, payload) = encode_event(Style::Calls, RUN, &pod(id, &[]));
        all.extend(request(stream, PLUGIN_SERVICE, method, payload));
    }
    peer.send(&frame(1, &all)).await;
    for stream in [11, 13, 15] {
        assert_eq!(peer.answer().await.unwrap(), (stream, Ok(vec![])));
    }
    let ids: Vec<_> = netd.state().annotated.iter().map(|s| s.id.clone()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[tokio::test]
async fn reading_goes_on_while_a_handler_waits_and_too_many_requests_are_refused() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.has("a", "eth0");
    netd.state().slow = Duration::from_millis(300);
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    for _ in 0..40 {
        let (method, payload) = encode_event(Style::Calls, RUN, &pod("a", &[]));
        peer.begin(PLUGIN_SERVICE, method, payload).await;
    }
    let (_, first) = peer.answer().await.unwrap();
    let status = first.unwrap_err();
    assert_eq!(status.code, 8, "{}", status.message);
}

#[tokio::test]
async fn garbage_inside_a_message_is_answered_and_the_connection_lives_on() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    peer.send(&frame(1, &message(51, 1, &[0xff; 40]))).await;
    let (stream, result) = peer.answer().await.unwrap();
    assert_eq!((stream, result.unwrap_err().code), (51, 3));
    for method in ["Configure", "Synchronize", "RunPodSandbox", "StateChange"] {
        let status = peer.call(PLUGIN_SERVICE, method, vec![0xff; 40]).await.unwrap_err();
        assert_eq!(status.code, 3, "{method}");
        if method == "Synchronize" {
            assert!(peer.answer().await.is_none());
            peer = listener.ready().await;
        }
    }
    // An event without a pod, and answers and data to no request.
    let status = peer.call(PLUGIN_SERVICE, "RunPodSandbox", vec![]).await.unwrap_err();
    assert!(status.message.contains("pod.id"), "{}", status.message);
    peer.send(&frame(1, &message(53, 2, b"x"))).await;
    peer.send(&frame(1, &message(55, 3, b"x"))).await;
    peer.send(&frame(2, &message(1, 2, b"late"))).await;
    peer.send(&frame(2, &[])).await;
    assert_eq!(peer.configure(2000).await.events, 7);
}

#[tokio::test]
async fn a_message_too_long_is_refused_and_the_connection_lives_on() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let long = message(61, 1, &vec![0; (4 << 20) + 1]);
    let (a, b) = long.split_at(1 << 20);
    peer.send(&frame(1, a)).await;
    let (stream, result) = peer.answer().await.unwrap();
    assert_eq!((stream, result.unwrap_err().code), (61, 8));
    peer.send(&frame(1, b)).await;
    assert_eq!(peer.configure(2000).await.events, 7);
}

#[tokio::test]
async fn a_frame_of_impossible_length_ends_the_connection_and_it_dials_again() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64]] {
        let mut peer = listener.ready().await;
        peer.send(garbage).await;
        assert!(peer.answer().await.is_none());
    }
    listener.ready().await;
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_the_answer_in_hand() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    netd.has("a", "eth0");
    netd.state().slow = Duration::from_millis(100);
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let (method, payload) =
        encode_event(Style::Calls, RUN, &pod("a", &[("netd.io/networks", "blue")]));
    peer.begin(PLUGIN_SERVICE, method, payload).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.answer().await.unwrap().1, Ok(vec![]));
    assert!(peer.answer().await.is_none());
    assert_eq!(netd.interfaces("a"), ["eth0", "eth1"]);
    listener.ready().await;
}

#[tokio::test]
async fn the_runtimes_configuration_text_sets_the_policy_or_is_refused() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let _front = start(&listener, &netd, Policy::default());
    let mut peer = listener.ready().await;
    let mut configure = async |config: &str| {
        let request = ConfigureRequest { config: config.to_owned(), ..named() };
        peer.call(PLUGIN_SERVICE, "Configure", request.encode_to_vec()).await
    };
    let status = configure("{\"allow\": 1}").await.unwrap_err();
    assert!(status.code == 3 && status.message.contains("allow_unattached"), "{status:?}");
    configure("{\"allow_unattached\": true}").await.unwrap();
    peer.event(Style::Calls, RUN, &pod("nobody's", &[])).await.unwrap();
}
