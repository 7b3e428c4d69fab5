//! What is wrong with a value that came from outside.

use std::fmt;

/// One field that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the caller wrote it: `pools[1].gateway`.
    pub field: String,
    /// The value, what is wrong with it, and what would be right.
    pub problem: String,
}

/// All violations of a request or a configuration, so that they are reported together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invalid {
    /// In the order in which they were found: the first 64.
    pub violations: Vec<Violation>,
    /// How many more there are.
    pub omitted: usize,
}

/// Violations of one request that are told, so that a large request that is all wrong has a
/// small answer.
const MAX_VIOLATIONS: usize = 64;

impl Invalid {
    /// Without a violation.
    pub fn new() -> Self {
        Self::default()
    }

    /// An error about one field.
    pub fn field(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        let mut all = Self::new();
        all.add(field, problem);
        all
    }

    /// Records a violation.
    pub fn add(&mut self, field: impl Into<String>, problem: impl fmt::Display) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { field: field.into(), problem: problem.to_string() });
        } else {
            self.omitted += 1;
        }
    }

    /// The value of a result; records the error under `field`.
    pub fn take<T, E: fmt::Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|e| self.add(field, e)).ok()
    }

    /// Adds what `inner` found, its fields prefixed with `prefix.`.
    pub fn nest(&mut self, prefix: &str, inner: Invalid) {
        self.omitted += inner.omitted;
        for v in inner.violations {
            self.add(format!("{prefix}.{}", v.field), v.problem);
        }
    }

    /// Adds what `inner` found.
    pub fn extend(&mut self, inner: Invalid) {
        self.omitted += inner.omitted;
        for v in inner.violations {
            self.add(v.field, v.problem);
        }
    }

    /// `Ok` without a violation.
    pub fn into_result(self) -> Result<(), Self> {
        if self.violations.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.violations.iter().enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}{}: {}", v.field, v.problem)?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_beyond_the_limit_are_counted() {
        let mut bad = Invalid::new();
        for i in 0..1000 {
            bad.add(format!("field[{i}]"), "is wrong");
        }
        let mut outer = Invalid::field("first", "is wrong too");
        outer.nest("inner", bad);
        assert_eq!(outer.violations.len(), MAX_VIOLATIONS);
        assert_eq!(outer.violations.len() + outer.omitted, 1001);
        assert!(outer.to_string().ends_with("; and 937 more"), "{outer}");
    }
}
