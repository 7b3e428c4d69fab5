use super::{finding::Severity, *};

#[test]
fn the_defaults_are_a_right_configuration() {
    assert_eq!(default_networks().len(), 1);
}

#[test]
fn a_report_lists_all_and_explains_what_is_wrong() {
    let report = Report::new(vec![
        Finding::ok("a", "fine"),
        Finding::warn("b", "odd\u{1b}[2J").breaks("little").fix("look"),
        Finding::fail("c", "bad").breaks("much").fix("do it"),
    ]);
    let text = report.text();
    assert!(!report.healthy());
    assert!(text.contains("c: bad\n  breaks: much\n  fix:    do it\n"), "{text}");
    assert!(text.find("c: bad") < text.find("b: odd"), "worst first: {text}");
    assert!(text.ends_with("1 failed, 1 to look at, 1 ok\n") && !text.contains('\u{1b}'));
    let json = serde_json::to_value(&report).unwrap_or_default();
    assert_eq!(json["findings"][2]["severity"], "fail");
    assert_eq!(json["healthy"], false);
}

#[test]
fn every_bad_finding_says_what_it_breaks_and_how_to_fix_it() {
    let dir = tempfile::tempdir().map(|d| d.keep()).unwrap_or_default();
    let args = DoctorArgs {
        config: Some(dir.join("absent.toml")),
        socket: None,
        containerd_config: dir.join("absent.toml"),
        containerd: "/nonexistent".to_owned(),
        output: Format::Table,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.map(|r| r.block_on(examine(&args)));
    let json = serde_json::to_value(report.ok()).unwrap_or_default();
    let findings = json["findings"].as_array().cloned().unwrap_or_default();
    assert!(findings.len() >= 8, "{findings:?}");
    assert_eq!(findings[0]["check"], "configuration");
    assert_eq!(findings[0]["severity"], serde_json::json!(Severity::Fail));
    for f in findings.iter().filter(|f| f["severity"] != "ok") {
        assert!(f["breaks"] != "" && f["mend"] != "", "{f}");
    }
    let _ = std::fs::remove_dir_all(dir);
}
