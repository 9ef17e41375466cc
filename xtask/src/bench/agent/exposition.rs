//! Metrics as an agent serves them, in the text format of Prometheus.

/// Samples with their labels as text.
pub(super) struct Exposition {
    samples: Vec<(String, String, f64)>,
}

impl Exposition {
    /// Lines that are no samples are left out.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        };
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect() }
    }

    /// Sum over the series of that name that have all of these labels, written as `key="value"`.
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.of(name, labels).sum()
    }

    /// Number of these series.
    pub(super) fn count(&self, name: &str) -> usize {
        self.of(name, &[]).count()
    }

    fn of(&self, name: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
        let is_wanted = move |sample: &&(String, String, f64)| {
            sample.0 == name && labels.iter().all(|label| sample.1.split(',').any(|has| has == *label))
        };
        self.samples.iter().filter(is_wanted).map(|sample| sample.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_name_and_labels() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 8\nc 5\n";
        let exposition = Exposition::parse(text);
        assert!((exposition.sum("a", &["x=\"1\""]) - 7.0).abs() < 1e-9);
        assert!((exposition.sum("a", &["x=\"1\"", "y=\"3\""]) - 4.0).abs() < 1e-9);
        assert!((exposition.sum("c", &[]) - 5.0).abs() < 1e-9);
        assert_eq!((exposition.count("a"), exposition.count("d")), (2, 0));
    }
}
