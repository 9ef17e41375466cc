//! When what was first seen, since a beginning such as the kernel's death.

use std::{fmt::Write as _, time::Duration};

use tokio::time::Instant;

/// Moments since a beginning, for a table in the test's output.
pub(crate) struct Times {
    title: String,
    begun: Instant,
    rows: Vec<(String, Option<Duration>)>,
}

impl Times {
    /// Counts from `begun`.
    pub(crate) fn since(title: &str, begun: Instant) -> Self {
        Self { title: title.to_owned(), begun, rows: Vec::new() }
    }

    /// Notes a moment; `None`: it never came while the test looked.
    pub(crate) fn note(&mut self, what: &str, at: Option<Instant>) {
        self.rows.push((what.to_owned(), at.map(|at| at.duration_since(self.begun))));
    }

    /// Notes this moment.
    pub(crate) fn now(&mut self, what: &str) {
        self.note(what, Some(Instant::now()));
    }

    /// Shows all, earliest first.
    pub(crate) fn print(mut self) {
        self.rows.sort_by_key(|(_, at)| at.unwrap_or(Duration::MAX));
        let mut table = format!("{}:\n", self.title);
        for (what, at) in &self.rows {
            let at = at.map_or_else(|| "not seen".to_owned(), |at| format!("{:.1}", at.as_secs_f64()));
            // Writing to a String cannot fail.
            writeln!(table, "  {at:>8}  {what}").ok();
        }
        println!("{table}");
    }
}
