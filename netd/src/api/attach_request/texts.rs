//! A request's labels and annotations.

use std::collections::BTreeMap;

use netd_api::{annotations, suggest::closest};
use netd_domain::Invalid;

/// Entries of labels, and of annotations, each.
const MAX_ENTRIES: usize = 4096;
/// Bytes of labels and annotations together; Kubernetes allows 256 KiB of annotations.
/// Counted as they are stored (JSON), so that a record fits into the store's limit of 1 MiB.
pub(super) const MAX_TEXT_BYTES: usize = 512 << 10;

/// Whether a record has room for all labels and annotations.
pub(crate) fn check_size(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    bad: &mut Invalid,
) {
    let mut total = 0;
    for (name, map) in [("labels", labels), ("annotations", annotations)] {
        if map.len() > MAX_ENTRIES {
            bad.add(name, format!("{} entries; at most {MAX_ENTRIES}", map.len()));
        }
        total += map.iter().map(|(k, v)| stored(k) + stored(v)).sum::<usize>();
    }
    if total > MAX_TEXT_BYTES {
        bad.add("annotations", format!("{total} bytes with the labels; at most {MAX_TEXT_BYTES}"));
    }
}

/// An annotation of netd's that no hook reads is refused: its author meant another network than
/// the pod would get. A pod's annotations come by CNI and NRI, which read none of a container's.
pub(super) fn check_annotations(all: &BTreeMap<String, String>, source: &str, bad: &mut Invalid) {
    let both = [annotations::OF_PODS.as_slice(), &annotations::OF_CONTAINERS].concat();
    let of_pod = source == "nri" || source.starts_with("cni/");
    let known = if of_pod { annotations::OF_PODS.as_slice() } else { &both };
    for key in all.keys().filter(|key| annotations::is_unread(key, known)) {
        let shown: String = key.chars().take(64).collect();
        let problem = if both.contains(&key.as_str()) {
            format!(
                "is for containers of the OCI hook; pods ask for networks by {}",
                annotations::NETWORKS
            )
        } else {
            match closest(key, known) {
                Some(name) => format!("unknown annotation; did you mean \"{name}\"?"),
                None => format!("unknown annotation; netd knows {}", known.join(", ")),
            }
        };
        bad.add(format!("annotations.{shown:?}"), problem);
    }
}

/// The length of `text` as JSON, in which a control character takes six bytes.
fn stored(text: &str) -> usize {
    let one = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(one).sum()
}
