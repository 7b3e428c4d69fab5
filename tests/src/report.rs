//! What a demonstration shows: a line for each thing that was checked just then.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::bed::{Bed, case};

/// Counts what was shown.
#[derive(Debug)]
pub struct Report {
    /// Of the column that says what was checked.
    width: usize,
    passed: usize,
    failed: usize,
}

impl Report {
    /// Shows one line.
    pub fn line(&mut self, what: &str, outcome: Result<String>) {
        let (word, detail) = match outcome {
            Ok(detail) => {
                self.passed += 1;
                ("PASS", detail)
            }
            Err(error) => {
                self.failed += 1;
                ("FAIL", format!("{error:#}"))
            }
        };
        println!("  {word}  {what:<width$} {detail}", width = self.width);
    }

    /// Makes a demonstration on a bed of its own; how its program ends.
    pub fn of(width: usize, demonstrate: impl FnOnce(&mut Self, &Bed) -> Result<()>) -> ExitCode {
        let start = Instant::now();
        let mut report = Self { width, passed: 0, failed: 0 };
        if let Err(error) = case(|bed| demonstrate(&mut report, bed)) {
            report.failed += 1;
            println!("  FAIL  {error:#}");
        }
        let (passed, failed, took) = (report.passed, report.failed, start.elapsed());
        println!(
            "\n{passed} passed, {failed} failed, in {took:.1?}; everything is taken away again"
        );
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
