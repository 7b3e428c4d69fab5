//! Log lines name their object in the message: `journalctl -u netd -g SANDBOX` finds them.

use std::sync::{Mutex, OnceLock};

use serde_json::Value;

use super::{
    bed::{Bed, key, spec},
    space::Space,
};

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Sink;

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Collects what netd logs from now on, in every test of this process.
fn collect() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| tracing_subscriber::fmt().json().with_writer(|| Sink).init());
}

/// The fields of every line of `netd::node`, the message among them.
fn logged() -> Vec<Value> {
    let lines = LINES.lock().unwrap().clone();
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    let ours = |line: &Value| text(line, "target").is_some_and(|t| t.starts_with("netd::node"));
    lines.filter(ours).map(|mut line| line["fields"].take()).collect()
}

fn text<'a>(fields: &'a Value, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

#[test]
fn every_line_about_an_object_names_it_in_its_message() {
    collect();
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let key = key("logged-sandbox", "eth0");
    let endpoint = netd.attach(spec(&key, &pod, "default")).unwrap();
    let said = |start: &str| {
        let lines = logged();
        lines.iter().any(|fields| text(fields, "message").is_some_and(|m| m.starts_with(start)))
    };
    let ip = endpoint.ips().next().unwrap();
    netd.until("attached", |_| said(&format!("attached logged-sandbox/eth0 {ip}")));
    bed.host.ip(&format!("link del {}", endpoint.wiring.host_ifname));
    netd.until("put back", |_| said("put back the link of logged-sandbox/eth0: "));
    bed.faults.after(0, 2);
    netd.attach(spec(&super::bed::key("other", "eth0"), &pod, "default")).unwrap_err();
    netd.until("not ready", |_| said("not ready: store: "));
    netd.until("ready", |_| said("ready: store"));
    while netd.detach(&key).is_err() {}
    netd.until("detached", |_| said("detached logged-sandbox/eth0"));
    for fields in logged() {
        let message = text(&fields, "message").unwrap();
        for name in ["sandbox", "endpoint", "object", "network", "link", "component", "key"] {
            let Some(object) = text(&fields, name) else { continue };
            assert!(message.contains(object), "{name}={object} is not in \"{message}\"");
        }
    }
}
