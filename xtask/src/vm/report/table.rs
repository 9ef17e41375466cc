//! The closing table: kernel × method × case.

use std::fmt::Write;

use super::{Judged, verdict::Line};

/// Renders all results: one line per case and method, one column per kernel, and below it the reasons of all failures.
pub(in crate::vm) fn render(judged: &[Judged]) -> String {
    let rows = rows(judged);
    let width = rows.iter().map(|(case, method)| case.len() + method.len() + 1).max().unwrap_or(0).max(12);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |head: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>9}")).collect();
        writeln!(text, "{head:width$}{cells}").ok();
    };
    line("kernel", judged.iter().map(|one| one.kernel.series.to_owned()).collect());
    line("seconds", judged.iter().map(|one| format!("{:.0}", one.seconds)).collect());
    for (case, method) in &rows {
        let cells = judged.iter().map(|one| cell(one, case, method).to_owned()).collect();
        line(&format!("{case} {method}"), cells);
    }
    for one in judged {
        text.push_str(&reasons(one));
    }
    text
}

/// All pairs of case and method, in the order in which they first come up.
fn rows(judged: &[Judged]) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for line in judged.iter().flat_map(lines) {
        let row = (line.case.clone(), line.method.clone());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows
}

fn lines(judged: &Judged) -> &[Line] {
    judged.verdict.as_ref().map_or(&[], |verdict| verdict.lines.as_slice())
}

fn cell(judged: &Judged, case: &str, method: &str) -> &'static str {
    match lines(judged).iter().find(|line| line.case == case && line.method == method) {
        Some(Line { wrong: None, .. }) => "ok",
        Some(Line { wrong: Some(_), .. }) => "FAIL",
        None => "-",
    }
}

fn reasons(judged: &Judged) -> String {
    let series = judged.kernel.series;
    if let Err(cause) = &judged.verdict {
        return format!("{series} ({}): {cause:#}\n", judged.kernel.package);
    }
    lines(judged)
        .iter()
        .filter_map(|line| Some((line, line.wrong.as_ref()?)))
        .map(|(line, wrong)| format!("{series} {} {}: {wrong}\n", line.case, line.method))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::verdict;
    use super::*;
    use crate::vm::kernels::Kernel;

    #[test]
    fn failures_stand_below_the_table_with_their_reasons() {
        let kernel =
            Kernel { series: "6.1", package: "p".into(), image: "i".into(), loop_module: "m".into(), modules: vec![] };
        let verdict = verdict::parse("CASE a kernel ok\nCASE a fentry FAIL late\nVERDICT passed=1 failed=1\n");
        let silent = Judged { kernel: kernel.clone(), verdict: Err(anyhow::anyhow!("silent")), seconds: 2.0 };
        let text = render(&[Judged { kernel, verdict, seconds: 31.4 }, silent]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "kernel 6.1 6.1",
                "seconds 31 2",
                "a kernel ok -",
                "a fentry FAIL -",
                "6.1 a fentry: late",
                "6.1 (p): silent"
            ]
        );
    }
}
