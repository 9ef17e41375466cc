//! What goes to the serial console, and the sum of it.

/// Counts verdicts while printing them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Prints the verdict on one case and method: good, or all that is wrong.
    pub(crate) fn case(&mut self, name: &str, method: &str, wrong: &[String]) {
        if wrong.is_empty() {
            self.passed += 1;
            println!("CASE {name} {method} ok");
        } else {
            self.failed += 1;
            println!("CASE {name} {method} FAIL {}", wrong.join("; ").replace('\n', " "));
        }
    }

    /// Prints the last line.
    pub(crate) fn verdict(&self) {
        println!("VERDICT passed={} failed={}", self.passed, self.failed);
    }
}
