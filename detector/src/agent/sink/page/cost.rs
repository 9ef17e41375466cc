//! The part of the page that `--live` adds: what watching cost.

use super::{Page, RED, YELLOW};
use crate::{
    agent::sink::cell::{human, pad},
    contract::doctor::{Live, Report},
};

/// Widths of columns: a hook, a number.
const HOOK: usize = 32;
const NUMBER: usize = 11;

impl Page {
    pub(super) fn cost(&mut self, report: &Report) {
        if let Some(problem) = &report.live_problem {
            self.heading("Cost");
            self.line(("! ", RED), "  ", &format!("it could not be measured: {problem}"));
        }
        if let Some(live) = &report.live {
            self.heading(&format!("Cost, in {:.1} s", live.seconds));
            self.programs(live);
            self.records(live);
            self.usage(live);
        }
    }

    fn programs(&mut self, live: &Live) {
        if let Some(problem) = &live.counting_problem {
            self.line(("! ", YELLOW), "  ", &format!("run times are not known: {problem}"));
        }
        if !live.counted {
            return;
        }
        let row = |cells: [&str; 4]| {
            let [name, numbers @ ..] = cells;
            let numbers: String = numbers.iter().map(|number| format!("{number:>NUMBER$}")).collect();
            format!("{}{numbers}", pad(name, HOOK))
        };
        self.line(("", ""), "  ", &row(["hook", "runs", "ns a run", "of a core"]));
        for program in &live.programs {
            let name = program.hook.as_deref().unwrap_or(&program.name);
            let per_run = program.ns_per_run.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
            let share = percent(program.core_share);
            self.line(("", ""), "  ", &row([name, &program.runs.to_string(), &per_run, &share]));
        }
        let sum: f64 = live.programs.iter().map(|program| program.core_share).sum();
        self.line(("", ""), "  ", &row(["together", "", "", &percent(sum)]));
    }

    fn records(&mut self, live: &Live) {
        for records in &live.records {
            let text =
                format!("records of kind {}: {}, {:.1} a second", records.kind, records.written, records.per_second);
            self.line(("", ""), "  ", &text);
            if records.dropped > 0 {
                self.line(("! ", RED), "    ", &format!("{} more were lost to a full ring", records.dropped));
            }
        }
    }

    fn usage(&mut self, live: &Live) {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), human);
        let usage = &live.usage;
        let memory = format!(
            "memory of this process: {}, of which {} anonymous; at most {}",
            size(usage.resident_bytes),
            size(usage.anon_bytes),
            size(usage.peak_bytes)
        );
        self.line(("", ""), "  ", &memory);
        let text = format!(
            "processor time of this process: {:.1} ms, {} of a core",
            usage.cpu_seconds * 1000.0,
            percent(usage.core_share)
        );
        self.line(("", ""), "  ", &text);
    }
}

/// A share as percent. What is above zero never reads as zero.
fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.000_01 { "<0.001 %".to_owned() } else { format!("{:.3} %", share * 100.0) }
}
