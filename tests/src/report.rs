//! What a demonstration shows: a line for each thing that was checked just then.

use std::process::ExitCode;

use anyhow::Result;

/// Counts what was shown.
#[derive(Debug)]
pub struct Report {
    width: usize,
    passed: usize,
    failed: usize,
}

impl Report {
    /// So wide is the column that says what was checked.
    pub fn new(width: usize) -> Self {
        Self { width, passed: 0, failed: 0 }
    }

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

    /// The last line, and how the program ends.
    pub fn end(mut self, outcome: &Result<()>, took: std::time::Duration) -> ExitCode {
        if let Err(error) = outcome {
            self.failed += 1;
            println!("  FAIL  {error:#}");
        }
        let (passed, failed) = (self.passed, self.failed);
        println!(
            "\n{passed} passed, {failed} failed, in {took:.1?}; everything is taken away again"
        );
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
