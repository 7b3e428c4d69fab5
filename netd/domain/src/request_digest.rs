//! How a request is kept with the endpoint that it led to.

use serde::{Deserialize, Serialize};

/// A number for each part of a request, equal where the parts are. Labels, annotations and who
/// asked are no part: runtimes change them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestDigest(pub(crate) Vec<u32>);

/// Hexadecimal digits of a part.
const DIGITS: usize = 8;

impl From<RequestDigest> for String {
    fn from(digest: RequestDigest) -> Self {
        digest.0.iter().map(|part| format!("{part:08x}")).collect()
    }
}

impl TryFrom<String> for RequestDigest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a digest: groups of {DIGITS} hexadecimal digits");
        let groups = text.as_bytes().chunks(DIGITS);
        let part = |group: &[u8]| {
            let digits = std::str::from_utf8(group).ok().filter(|group| group.len() == DIGITS)?;
            u32::from_str_radix(digits, 16).ok()
        };
        groups.map(|group| part(group).ok_or_else(bad)).collect::<Result<_, _>>().map(Self)
    }
}
