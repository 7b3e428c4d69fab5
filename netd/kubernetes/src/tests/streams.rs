//! Lists as streams, by a server that answers what a test says: the Kubernetes that the tests run is
//! too old for them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::node;
use crate::{
    annotations::AnnotationPrefix,
    api::{ApiError, ApiServer},
    followed::{Nodes, PodsOf},
    options::ApiAccess,
};

/// The API, what was asked for, and the directory of the kubeconfig.
type Served = (ApiServer, mpsc::UnboundedReceiver<String>, tempfile::TempDir);

/// Answers one request after the other, each on a connection of its own; what was asked for.
async fn serve(answers: Vec<(&'static str, String)>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 16 << 10];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let line = request.lines().next().unwrap_or_default().to_owned();
            let _ = tell.send(line);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let config = json!({
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let timeout = Duration::from_secs(5);
    let access = ApiAccess { kubeconfig: Some(kubeconfig), url: None, timeout };
    (ApiServer::new(access, AnnotationPrefix::default()), asked, directory)
}

fn event(kind: &str, object: &Value) -> String {
    json!({ "type": kind, "object": object }).to_string() + "\n"
}

fn bookmark(version: &str, annotations: &Value) -> String {
    let metadata = json!({ "resourceVersion": version, "annotations": annotations });
    event("BOOKMARK", &json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata }))
}

fn refused(code: u16) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "Invalid", "message": "sendInitialEvents: Forbidden",
    })
    .to_string()
}

fn names(listed: &(Vec<crate::node::NodeFacts>, String)) -> Vec<&str> {
    listed.0.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test]
async fn a_stream_is_a_list_with_what_changed_meanwhile() {
    let n = |name: &str, cidr: &str| node(name, cidr, None);
    let stream = [
        event("ADDED", &n("n1", "10.5.1.0/24")),
        event("ADDED", &n("n2", "10.5.2.0/24")),
        bookmark("40", &json!({})),
        event("ADDED", &n("n3", "10.5.3.0/24")),
        event("DELETED", &n("n2", "10.5.2.0/24")),
        event("MODIFIED", &n("n3", "10.5.33.0/24")),
        bookmark("42", &json!({ "k8s.io/initial-events-end": "true" })),
        event("ADDED", &n("n9", "10.5.9.0/24")),
    ];
    let (api, mut asked, _directory) = serve(vec![("200 OK", stream.concat())]).await;
    let listed = api.list(&Nodes(AnnotationPrefix::default())).await.unwrap();
    assert_eq!((names(&listed), listed.1.as_str()), (vec!["n1", "n3"], "42"));
    let subnets = listed.0[1].subnets.clone().unwrap().unwrap();
    assert_eq!(subnets.v4.unwrap().to_string(), "10.5.33.0/24");
    let request = asked.recv().await.unwrap();
    assert!(request.contains("sendInitialEvents=true"), "{request}");
    assert!(request.contains("resourceVersionMatch=NotOlderThan"), "{request}");
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_for_pages_and_not_for_a_stream_a_second_time() {
    for code in [400, 422] {
        let page = json!({
            "kind": "NodeList", "apiVersion": "v1", "metadata": { "resourceVersion": "7" },
            "items": [node("n1", "10.5.1.0/24", None)],
        });
        let status = if code == 400 { "400 Bad Request" } else { "422 Unprocessable Entity" };
        let answers = vec![
            (status, refused(code)),
            ("200 OK", page.to_string()),
            ("200 OK", page.to_string()),
        ];
        let (api, mut asked, _directory) = serve(answers).await;
        for _ in 0..2 {
            let listed = api.list(&Nodes(AnnotationPrefix::default())).await.unwrap();
            assert_eq!((names(&listed), listed.1.as_str()), (vec!["n1"], "7"));
        }
        let mut streams = 0;
        while let Ok(request) = asked.try_recv() {
            streams += usize::from(request.contains("sendInitialEvents"));
        }
        assert_eq!(streams, 1);
    }
}

/// Half a list must not look as if the other Nodes were gone.
#[tokio::test]
async fn a_stream_that_is_cut_off_is_no_list() {
    let stream = event("ADDED", &node("n1", "10.5.1.0/24", None));
    let (api, _asked, _directory) = serve(vec![("200 OK", stream)]).await;
    let error = api.list(&Nodes(AnnotationPrefix::default())).await.err().unwrap();
    assert!(matches!(&error, ApiError::Failed(why) if why.contains("before its end")), "{error}");
}

/// Without the selector a node would hold the pods of the whole cluster.
#[tokio::test]
async fn only_the_nodes_own_pods_are_asked_for() {
    let page = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "7" }, "items": [],
    });
    let answers = vec![("422 Unprocessable Entity", refused(422)), ("200 OK", page.to_string())];
    let (api, mut asked, _directory) = serve(answers).await;
    api.list(&PodsOf("n1".into())).await.unwrap();
    for _ in 0..2 {
        let request = asked.recv().await.unwrap();
        assert!(request.contains("fieldSelector=spec.nodeName%3Dn1"), "{request}");
    }
}
