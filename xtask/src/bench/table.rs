//! The table that a benchmark prints: one line a figure, each beside what it is to be compared with.

use std::fmt::Write as _;

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    what: String,
    figure: String,
    beside: String,
    holds: Option<bool>,
}

impl Row {
    /// A figure beside its limit.
    pub(super) fn limit(what: impl Into<String>, figure: impl Into<String>, limit: &str, holds: bool) -> Self {
        Self { what: what.into(), figure: figure.into(), beside: format!("limit {limit}"), holds: Some(holds) }
    }

    /// A figure beside those of peers.
    pub(super) fn peers(
        what: impl Into<String>,
        figure: impl Into<String>,
        peers: String,
        holds: Option<bool>,
    ) -> Self {
        Self { what: what.into(), figure: figure.into(), beside: peers, holds }
    }

    fn verdict(&self) -> &'static str {
        match self.holds {
            Some(true) => "holds",
            Some(false) => "DOES NOT HOLD",
            None => "",
        }
    }
}

/// All figures of a run.
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// As Markdown, so that it can go into a document as it is.
    pub(super) fn render(&self) -> String {
        let head = ["what", "figure", "beside", ""].map(str::to_owned);
        let cells = |row: &Row| [row.what.clone(), row.figure.clone(), row.beside.clone(), row.verdict().to_owned()];
        let lines: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 4] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            // Writing to a string cannot fail.
            let [a, b, c, d] = line;
            let [wa, wb, wc, wd] = widths;
            writeln!(text, "| {a:wa$} | {b:wb$} | {c:wc$} | {d:wd$} |").ok();
            if number == 0 {
                let rules = widths.map(|width| "-".repeat(width + 2));
                writeln!(text, "|{}|", rules.join("|")).ok();
            }
        }
        text
    }
}

/// The value below which `share` (0 to 1) of `values` lie: the nearest rank.
pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_stands_beside_its_limit() {
        let mut table = Table::new();
        table.add(Row::limit("size", "9 MB", "8 MB", false));
        table.add(Row::peers("start", "46 ms", "oomkill 50 ms".to_owned(), None));
        let text = table.render();
        assert!(text.contains("| size  | 9 MB   | limit 8 MB    | DOES NOT HOLD |"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<_> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 0.5) - 100.0).abs() < 1e-9);
        assert!((percentile(&mut values, 0.99) - 198.0).abs() < 1e-9);
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
