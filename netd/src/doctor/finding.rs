//! The result of a check.

use serde::Serialize;

use crate::terminal::table;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Pods get their main network, but something else does not work or may stop working.
    Warn,
    /// Pods do not get their network, or it does not work.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What does not work because of it.
    pub breaks: String,
    /// What to do. The JSON field keeps its first name.
    #[serde(rename = "mend")]
    pub fix: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what.into())
    }

    pub(super) fn warn(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Warn, what.into())
    }

    pub(super) fn fail(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Fail, what.into())
    }

    fn new(check: &'static str, severity: Severity, what: String) -> Self {
        Self { check, severity, what, breaks: String::new(), fix: String::new() }
    }

    pub(super) fn breaks(mut self, text: impl Into<String>) -> Self {
        self.breaks = text.into();
        self
    }

    pub(super) fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix = text.into();
        self
    }
}

/// All findings. The text explains the worst ones first.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let healthy = findings.iter().all(|f| f.severity != Severity::Fail);
        Self { healthy, findings }
    }

    pub(super) fn healthy(&self) -> bool {
        self.healthy
    }

    pub(super) fn text(&self) -> String {
        let rows = self.findings.iter().map(|f| {
            let severity = match f.severity {
                Severity::Ok => "ok",
                Severity::Warn => "warn",
                Severity::Fail => "FAIL",
            };
            vec![severity.to_owned(), f.check.to_owned(), f.what.clone()]
        });
        let mut text = table(&["", "CHECK", "FINDING"], rows);
        let mut bad: Vec<_> = self.findings.iter().filter(|f| f.severity != Severity::Ok).collect();
        bad.sort_by_key(|f| std::cmp::Reverse(f.severity));
        for f in bad {
            text.push_str(&format!("\n{}: {}\n", f.check, f.what));
            text.push_str(&format!("  breaks: {}\n  fix:    {}\n", f.breaks, f.fix));
        }
        let count = |s| self.findings.iter().filter(|f| f.severity == s).count();
        let (fails, warns) = (count(Severity::Fail), count(Severity::Warn));
        text.push_str(&format!(
            "\n{fails} failed, {warns} to look at, {} ok\n",
            count(Severity::Ok)
        ));
        // Findings quote files and firewall rules, which could hold escape sequences.
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
    }
}
