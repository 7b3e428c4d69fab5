//! The operator's commands, as data.

/// A command with what it is told. It is run without a shell: values of a lease are
/// never code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// As configured: words, with `$NAME` and `${NAME}` in them.
    pub line: String,
    /// Beside netd's own environment.
    pub env: Vec<(&'static str, String)>,
    /// Standard input; a newline is at its end.
    pub stdin: String,
}

impl Command {
    /// `None`: no command is configured.
    pub(super) fn new(line: &str, env: Vec<(&'static str, String)>, stdin: &str) -> Option<Self> {
        let some = line.split_whitespace().next().is_some();
        some.then(|| Self { line: line.to_owned(), env, stdin: format!("{stdin}\n") })
    }

    /// The program and its arguments: the line's words, each with its variables expanded
    /// and not split again. `inherited` is netd's own environment; a variable that is
    /// nowhere is empty.
    pub fn argv(&self, inherited: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let value = |name: &str| {
            let own = self.env.iter().find(|(known, _)| *known == name);
            own.map(|(_, value)| value.clone()).or_else(|| inherited(name)).unwrap_or_default()
        };
        self.line.split_whitespace().map(|word| expand(word, &value)).collect()
    }
}

/// Replaces `$NAME` and `${NAME}`; any other `$` stays.
fn expand(word: &str, value: &impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, left) = match braced {
            Some(parts) => parts,
            None => after.split_at(end.unwrap_or(after.len())),
        };
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&value(name));
        }
        rest = left;
    }
    out.push_str(rest);
    out
}
