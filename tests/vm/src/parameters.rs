//! What the host asks for on the kernel's command line: `detector.methods=fentry,raw_tracepoint detector.burst=1000
//! detector.cases=single-child,burst`.

use anyhow::{Context, Result};

/// Kills of the burst unless the host asks otherwise.
const BURST: usize = 1000;

/// Methods of the OOM detector unless the host asks otherwise.
const METHODS: &str = "fentry,kprobe,raw_tracepoint";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Methods to attach side by side.
    pub(crate) methods: Vec<String>,
    /// Kills of the burst.
    pub(crate) burst: usize,
    /// Cases to run; empty: all.
    pub(crate) cases: Vec<String>,
}

impl Parameters {
    /// Reads `/proc/cmdline`.
    pub(crate) fn read() -> Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
        Self::parse(&line)
    }

    fn parse(line: &str) -> Result<Self> {
        let value = |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        let list = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let burst = value("detector.burst=").map(str::parse).transpose().context("detector.burst is no number")?;
        Ok(Self {
            methods: list(value("detector.methods=").unwrap_or(METHODS)),
            burst: burst.unwrap_or(BURST),
            cases: list(value("detector.cases=").unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_parameters_all_methods_and_cases_run() {
        let read = Parameters::parse("console=ttyS0 quiet").expect("parsed");
        assert_eq!(read.methods, ["fentry", "kprobe", "raw_tracepoint"]);
        assert_eq!((read.burst, read.cases.len()), (BURST, 0));
    }

    #[test]
    fn an_empty_list_of_methods_leaves_the_kernel_alone_to_be_judged() {
        let read = Parameters::parse("detector.methods= detector.burst=20 detector.cases=a,b").expect("parsed");
        assert!(read.methods.is_empty());
        assert_eq!((read.burst, read.cases), (20, vec!["a".to_owned(), "b".to_owned()]));
    }
}
