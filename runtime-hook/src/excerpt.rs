//! Values from outside, cut to a length that an error message can carry.

/// The first 200 characters, with "..." where more follow: a value can be a megabyte long.
pub(crate) fn excerpt(value: &str) -> String {
    const MAX_CHARS: usize = 200;
    match value.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// As [`excerpt`], with control characters and everything beyond ASCII escaped.
pub(crate) fn escaped(value: &str) -> String {
    excerpt(value).escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters_and_marked() {
        assert_eq!(excerpt("10.1.0.0/16"), "10.1.0.0/16");
        assert_eq!(excerpt(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(excerpt(&"é".repeat(201)), "é".repeat(200) + "...");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\n\"é"), "a\\n\\\"\\u{e9}");
    }
}
