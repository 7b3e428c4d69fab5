//! GC: the attachments that the runtime still has.

use std::collections::BTreeSet;

use netd_api::v1::{Sandbox, SynchronizeRequest};

use super::env;
use crate::json::{JsonNode, Reader};

/// The key of the list (CNI spec 1.1.0, section 2, "GC").
const VALID: &str = "cni.dev/valid-attachments";
/// The same in libcni, which gives the list under both.
const VALID_OF_LIBCNI: &str = "cni.dev/attachments";

/// Who attaches, and whose set it is: GC judges what the network configuration of
/// the same name attached, and nothing of other configurations or fronts.
pub fn source(name: &str) -> String {
    format!("cni/{name}")
}

/// Reads the list. It must be there: a missing one taken for an empty one would
/// remove every pod's network. `null` is how Go writes an empty list. netd keeps or removes a
/// sandbox as a whole, so one valid interface keeps all of its sandbox's.
pub fn request(
    root: &JsonNode<'_>,
    name: &str,
    network: &str,
    reader: &mut Reader,
) -> SynchronizeRequest {
    let given = |key: &&str| root.value().get(*key).is_some();
    let Some(key) = [VALID, VALID_OF_LIBCNI].into_iter().find(given) else {
        reader.add(VALID, "is required by GC");
        return SynchronizeRequest::default();
    };
    let mut ids = BTreeSet::new();
    for node in reader.list(root.get(key)) {
        let Some(attachment) = reader.object(Some(node)) else { continue };
        reader.string(attachment.get("ifname"));
        let path = attachment.path_of("containerID");
        match reader.string(attachment.get("containerID")).map(|id| (env::check_id(&id), id)) {
            Some((Ok(()), id)) => drop(ids.insert(id)),
            Some((Err(problem), _)) => reader.add(path, problem),
            None => reader.add(path, "is required"),
        }
    }
    let sandbox = |id| Sandbox { id, ..Sandbox::default() };
    SynchronizeRequest {
        source: source(name),
        sandboxes: ids.into_iter().map(sandbox).collect(),
        network: network.to_owned(),
        authoritative: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Vec<String>, crate::error::HookError> {
        let mut reader = Reader::new();
        let request = request(&JsonNode::root(value), "pods", "default", &mut reader);
        reader.finish()?;
        assert!(request.authoritative && request.network == "default");
        assert_eq!(request.source, "cni/pods");
        Ok(request.sandboxes.into_iter().map(|s| s.id).collect())
    }

    #[test]
    fn attachments_of_one_container_are_one_sandbox() {
        let config = json!({VALID: [{"containerID": "b", "ifname": "eth0"},
            {"containerID": "a", "ifname": "eth0"}, {"containerID": "a", "ifname": "eth1"}]});
        assert_eq!(read(&config).unwrap(), ["a", "b"]);
        for empty in [json!({VALID: []}), json!({VALID: null}), json!({VALID_OF_LIBCNI: null})] {
            assert_eq!(read(&empty).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_missing_or_broken_list_is_never_taken_for_an_empty_one() {
        for config in [
            json!({}),
            json!({VALID: {}}),
            json!({VALID: ["a"]}),
            json!({VALID: [{}]}),
            json!({VALID: [{"containerID": 1}]}),
            json!({VALID: [{"containerID": "../a", "ifname": "eth0"}]}),
        ] {
            assert_eq!(read(&config).unwrap_err().cni_code(), 7, "{config}");
        }
    }
}
