//! Versions of the kernel and of programs.

/// The numbers that a version begins with, as `6.1.0-50-amd64` or `1.1`; 0 for what is missing.
pub(crate) fn version_numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_numbers() {
        for newer in ["6.1.0-50-amd64", "6.12", "7.2.12+deb14-amd64", "10.0-rc1"] {
            assert!(version_numbers(newer) >= [6, 1, 0], "{newer}");
        }
        for older in ["5.10.0-32-amd64", "5.15", "6-x", ""] {
            assert!(version_numbers(older) < [6, 1, 0], "{older}");
        }
    }
}
