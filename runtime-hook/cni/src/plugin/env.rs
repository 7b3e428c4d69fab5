//! The CNI environment variables (CNI spec 1.1.0, section 2).

use crate::error::{HookError, shown};

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Compare.
    Check,
    /// Is the plugin ready?
    Status,
    /// Remove what is not in the list.
    Gc,
    /// Which versions are spoken?
    Version,
}

/// One attachment, as the environment names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; not read in DEL.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`, as it is; not read in DEL.
    pub args: String,
}

/// Looks up a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Reads `CNI_COMMAND`.
///
/// # Errors
/// [`HookError::Environment`].
pub fn command(lookup: Lookup<'_>) -> Result<Command, HookError> {
    let text = required(lookup, "CNI_COMMAND")?;
    Ok(match text.as_str() {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "STATUS" => Command::Status,
        "GC" => Command::Gc,
        "VERSION" => Command::Version,
        _ => {
            let problem =
                format!("{} is none of ADD, DEL, CHECK, STATUS, GC, VERSION", shown(&text));
            return Err(wrong("CNI_COMMAND", problem));
        }
    })
}

/// Reads and validates the variables that name an attachment.
///
/// # Errors
/// [`HookError::Environment`], naming the variable and its value.
pub fn attachment(lookup: Lookup<'_>, command: Command) -> Result<Attachment, HookError> {
    let container_id = required(lookup, "CNI_CONTAINERID")?;
    check_id(&container_id).map_err(|problem| wrong("CNI_CONTAINERID", problem))?;
    let ifname = required(lookup, "CNI_IFNAME")?;
    check_ifname(&ifname).map_err(|problem| wrong("CNI_IFNAME", problem))?;
    if command == Command::Del {
        // Neither is needed to find what is to be removed.
        return Ok(Attachment { container_id, ifname, ..Attachment::default() });
    }
    let netns = required(lookup, "CNI_NETNS")?;
    if !netns.starts_with('/') || netns.len() > 4095 {
        return Err(wrong("CNI_NETNS", format!("{} is not an absolute path", shown(&netns))));
    }
    let args = optional(lookup, "CNI_ARGS")?;
    Ok(Attachment { container_id, netns, ifname, args })
}

/// A container id: a letter or digit, then letters, digits, `_`, `.`, `-`; at most 256
/// bytes, which is netd's limit.
///
/// # Errors
/// The value and the rule.
pub fn check_id(id: &str) -> Result<(), String> {
    let rest = |b: &u8| b.is_ascii_alphanumeric() || b"_.-".contains(b);
    let bytes = id.as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    if first && bytes.iter().all(rest) && bytes.len() <= 256 {
        return Ok(());
    }
    Err(format!(
        "{} must be 1 to 256 of letters, digits, '_', '.', '-' and start with a letter or a digit",
        shown(id)
    ))
}

/// An interface's name as the kernel takes it.
fn check_ifname(name: &str) -> Result<(), String> {
    let bad = |b: u8| b.is_ascii_control() || b.is_ascii_whitespace() || b"/:".contains(&b);
    let problem = if name.len() > 15 {
        "has more than 15 bytes"
    } else if name == "." || name == ".." {
        "is not a name"
    } else if name.bytes().any(bad) {
        "must not contain '/', ':' or white space"
    } else {
        return Ok(());
    };
    Err(format!("{} {problem}", shown(name)))
}

fn required(lookup: Lookup<'_>, variable: &'static str) -> Result<String, HookError> {
    match optional(lookup, variable)? {
        text if text.is_empty() => Err(wrong(variable, "is required".into())),
        text => Ok(text),
    }
}

fn optional(lookup: Lookup<'_>, variable: &'static str) -> Result<String, HookError> {
    let text = lookup(variable).unwrap_or_default();
    String::from_utf8(text).map_err(|error| {
        let text = String::from_utf8_lossy(error.as_bytes());
        wrong(variable, format!("{} is not UTF-8", shown(&text)))
    })
}

fn wrong(variable: &'static str, problem: String) -> HookError {
    HookError::Environment { variable, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 3] =
        [("CNI_CONTAINERID", "abc"), ("CNI_NETNS", "/run/netns/x"), ("CNI_IFNAME", "eth0")];

    fn with(variable: &str, value: &[u8], command: Command) -> Result<Attachment, HookError> {
        attachment(
            &|name| {
                if name == variable {
                    return Some(value.to_vec());
                }
                GOOD.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes().to_vec())
            },
            command,
        )
    }

    #[test]
    fn hostile_values_are_refused_with_the_name_of_their_variable() {
        let long = "x".repeat(1 << 17);
        let cases: [(&str, &[u8]); 14] = [
            ("CNI_CONTAINERID", b""),
            ("CNI_CONTAINERID", b"../../etc"),
            ("CNI_CONTAINERID", b"-rf"),
            ("CNI_CONTAINERID", b"a\nb"),
            ("CNI_CONTAINERID", long.as_bytes()),
            ("CNI_CONTAINERID", b"\xff\xfe"),
            ("CNI_IFNAME", b""),
            ("CNI_IFNAME", b"0123456789abcdef"),
            ("CNI_IFNAME", b"eth/0"),
            ("CNI_IFNAME", b".."),
            ("CNI_IFNAME", b"eth 0"),
            ("CNI_NETNS", b""),
            ("CNI_NETNS", b"run/netns/x"),
            ("CNI_ARGS", b"\xff"),
        ];
        for (variable, value) in cases {
            let error = with(variable, value, Command::Add).unwrap_err();
            assert_eq!(error.cni_code(), 4);
            let text = error.to_string();
            assert!(text.contains(variable) && text.len() < 400, "{text}");
        }
    }

    #[test]
    fn only_del_goes_without_a_namespace() {
        for netns in [&b""[..], b"x", b"\xff"] {
            assert_eq!(with("CNI_NETNS", netns, Command::Del).unwrap().netns, "");
            assert!(with("CNI_NETNS", netns, Command::Check).is_err());
        }
        assert!(with("CNI_ARGS", b"\xff", Command::Del).is_ok());
    }

    #[test]
    fn commands_are_exact() {
        let command = |text: &str| command(&|_| Some(text.as_bytes().to_vec()));
        assert_eq!(command("GC").unwrap(), Command::Gc);
        for bad in ["", "add", "ADD ", "NOPE"] {
            assert_eq!(command(bad).unwrap_err().cni_code(), 4);
        }
    }
}
