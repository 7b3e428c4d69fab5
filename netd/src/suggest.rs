//! Suggestions for mistyped names.

/// The known name that is most like `given`, if one is like it at all.
pub(crate) fn closest<'n>(given: &str, known: &[&'n str]) -> Option<&'n str> {
    const MIN_SIMILARITY: f64 = 0.8;
    let given: String = given.chars().take(64).collect::<String>().to_lowercase();
    let scored = known.iter().map(|name| (strsim::jaro_winkler(&given, name), *name));
    scored
        .filter(|(score, _)| *score >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n)| n)
}
