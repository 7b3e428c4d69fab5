//! How many fields an encoded message has. An empty message within a message takes two bytes
//! on the wire and hundreds in memory, so a request's length alone does not bound what it
//! takes to decode it.

use tonic::Status;

/// More fields than any request of use has: ten thousand labels have thirty thousand.
const MAX_FIELDS: usize = 1 << 16;
/// Messages within messages; those of the API have three levels.
const MAX_DEPTH: u32 = 4;

/// Whether `message` has at most [`MAX_FIELDS`] fields, those of messages within it included.
/// Bytes and strings that could be messages count like them.
fn is_bounded(message: &[u8]) -> bool {
    let mut left = MAX_FIELDS;
    count(message, MAX_DEPTH, &mut left);
    left > 0
}

/// Refuses a message with more fields.
///
/// # Errors
/// RESOURCE_EXHAUSTED, with the number.
pub(crate) fn check(message: &[u8]) -> Result<(), Status> {
    if is_bounded(message) {
        return Ok(());
    }
    let text = format!("the request has more than {MAX_FIELDS} fields; send fewer at a time");
    Err(Status::resource_exhausted(text))
}

/// Takes the message's fields off `left`. Returns whether it is a whole message; what is none
/// is decoded up to its fault, and so far it counts.
fn count(mut message: &[u8], depth: u32, left: &mut usize) -> bool {
    while !message.is_empty() {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return true;
        }
        let Some((inner, rest)) = field(message) else { return false };
        message = rest;
        if let Some(inner) = inner.filter(|_| depth > 0) {
            let outside = *left;
            // A string, as a rule: its bytes are decoded as one field.
            if !count(inner, depth - 1, left) && depth < MAX_DEPTH {
                *left = outside;
            }
        }
    }
    true
}

/// A field's content if it can be a message, and what follows the field; `None`: no field.
fn field(message: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (tag, rest) = varint(message)?;
    match tag & 7 {
        0 => varint(rest).map(|(_, rest)| (None, rest)),
        1 => Some((None, rest.get(8..)?)),
        5 => Some((None, rest.get(4..)?)),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).ok()?;
            Some((Some(rest.get(..length)?), rest.get(length..)?))
        }
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use netd_api::v1;
    use prost::Message as _;

    use super::*;

    fn synchronize(ids: impl Iterator<Item = String>) -> Vec<u8> {
        let sandbox = |id| v1::Sandbox { id, ..Default::default() };
        v1::SynchronizeRequest { sandboxes: ids.map(sandbox).collect(), ..Default::default() }
            .encode_to_vec()
    }

    #[test]
    fn what_a_node_sends_is_bounded_and_what_grows_in_memory_is_not() {
        let ids = (0..10_000).map(|n| format!("{n:064}"));
        assert!(is_bounded(&synchronize(ids)));
        // Empty sandboxes: two bytes each.
        assert!(!is_bounded(&synchronize((0..2_000_000).map(|_| String::new()))));
        let ports = vec![v1::PortMapping::default(); 100_000];
        let attach = v1::AttachRequest { port_mappings: ports, ..Default::default() };
        assert!(!is_bounded(&attach.encode_to_vec()));
        // One level further in.
        let pools = vec![v1::Pool::default(); 100_000];
        let network = v1::Network { pools, ..Default::default() };
        let create = v1::CreateNetworkRequest { network: Some(network), force: false };
        assert!(!is_bounded(&create.encode_to_vec()));
    }

    #[test]
    fn many_labels_and_long_texts_are_bounded() {
        let text = "kubectl.kubernetes.io/last-applied-configuration: {}\n".repeat(5000);
        let annotations = [("long".to_owned(), text)].into();
        let labels = (0..10_000).map(|n| (format!("app.example/label-{n}"), "value".to_owned()));
        let request =
            v1::AttachRequest { labels: labels.collect(), annotations, ..Default::default() };
        assert!(is_bounded(&request.encode_to_vec()));
        assert!(is_bounded(b"") && is_bounded(&[0xff; 40]) && is_bounded(&[0x0a, 0x7f]));
    }
}
