//! Suggestions for mistyped names, in requests, configurations and annotations.

use alloc::string::String;

/// Characters of a given name that are looked at: it can be megabytes of junk.
const MAX_CHARS: usize = 64;
/// From 0 (nothing in common) to 1 (the same).
const MIN_SIMILARITY: f64 = 0.8;

/// The known name that is most like `given`, in whatever case, if one is like it at all.
pub fn closest<'n>(given: &str, known: &[&'n str]) -> Option<&'n str> {
    let given: String = given.chars().take(MAX_CHARS).collect::<String>().to_lowercase();
    let similarity = |name: &str| strsim::jaro_winkler(&given, &name.to_lowercase());
    let scored = known.iter().map(|name| (similarity(name), *name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= MIN_SIMILARITY).map(|(_, name)| name)
}
