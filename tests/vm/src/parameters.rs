//! What the host asks for on the kernel's command line: `detector.watchers=fentry/btf_tracepoint,kprobe/-
//! detector.burst=1000 detector.cases=single-child,burst`.

use anyhow::{Context, Result};

/// Kills of the burst unless the host asks otherwise.
const BURST: usize = 1000;

/// Watchers unless the host asks otherwise: each method of each detector.
const WATCHERS: &str = "fentry/btf_tracepoint,kprobe/-,raw_tracepoint/raw_tracepoint,tracepoint/tracepoint,kmsg/kmsg";

/// Stands for a detector that a watcher leaves out.
const NONE: &str = "-";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Watchers to start side by side.
    pub(crate) watchers: Vec<Methods>,
    /// Kills of the burst.
    pub(crate) burst: usize,
    /// Cases to run; empty: all.
    pub(crate) cases: Vec<String>,
}

/// What one watcher watches, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Methods {
    /// Method of the OOM detector; `None`: it is off.
    pub(crate) oom: Option<String>,
    /// Method of the detector of hung tasks; `None`: it is off.
    pub(crate) hung_task: Option<String>,
}

impl Methods {
    /// `OOM/HUNG_TASK`; without the slash for kills alone.
    fn parse(text: &str) -> Self {
        let (oom, hung_task) = text.split_once('/').unwrap_or((text, NONE));
        let method = |text: &str| (text != NONE).then(|| text.to_owned());
        Self { oom: method(oom), hung_task: method(hung_task) }
    }

    /// What it is called in the report.
    pub(crate) fn name(&self) -> String {
        let methods: Vec<_> = [&self.oom, &self.hung_task].into_iter().flatten().map(String::as_str).collect();
        methods.join("/")
    }

    /// Each detector that is on, by its name, with its method.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("oom", &self.oom), ("hung_task", &self.hung_task)]
            .into_iter()
            .filter_map(|(detector, method)| Some((detector, method.as_deref()?)))
    }
}

impl Parameters {
    /// Reads `/proc/cmdline`.
    pub(crate) fn read() -> Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
        Self::parse(&line)
    }

    /// Whether the case of this name is to run.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| name == case)
    }

    fn parse(line: &str) -> Result<Self> {
        let value = |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        let list = |text: &str| -> Vec<String> {
            text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let burst = value("detector.burst=").map(str::parse).transpose().context("detector.burst is no number")?;
        let watchers = list(value("detector.watchers=").unwrap_or(WATCHERS));
        Ok(Self {
            watchers: watchers.iter().map(|text| Methods::parse(text)).collect(),
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
        let names: Vec<_> = read.watchers.iter().map(Methods::name).collect();
        assert_eq!(names[..2], ["fentry/btf_tracepoint", "kprobe"]);
        assert_eq!((names.len(), read.burst, read.cases.len()), (5, BURST, 0));
        assert!(read.wants("burst"));
    }

    #[test]
    fn an_empty_list_of_watchers_leaves_the_kernel_alone_to_be_judged() {
        let read = Parameters::parse("detector.watchers= detector.burst=20 detector.cases=a,b").expect("parsed");
        assert!(read.watchers.is_empty());
        assert_eq!((read.burst, read.wants("a"), read.wants("c")), (20, true, false));
    }

    #[test]
    fn a_watcher_may_leave_out_a_detector() {
        let each = |text| Methods::parse(text).each().map(|(d, m)| format!("{d}={m}")).collect::<Vec<_>>();
        assert_eq!(each("fentry/-"), ["oom=fentry"]);
        assert_eq!(each("-/kmsg"), ["hung_task=kmsg"]);
        assert_eq!(each("kmsg"), ["oom=kmsg"]);
    }
}
