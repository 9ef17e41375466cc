//! `cargo xtask gen`: files that are made from the code and committed, so that readers need no build.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{deploy, process, workspace};

/// Regenerate the committed files that are made from code.
#[derive(clap::Args)]
#[command(after_help = "\
Files:
  docs/watch-output.md      lines of `detector watch --output json`
  docs/doctor-output.md     output of `detector doctor --output json`
  docs/metrics.md           metrics of `detector agent`
  docs/metrics-controller.md, docs/metrics-netconsole.md
                            metrics of the other two
  docs/events.md            Kubernetes events of `detector agent`
  docs/problems.md          problems: how each is told, when it is over, what to do
  docs/conditions.md        Node conditions: reasons, life, how they are written
  docs/config.md            keys of the agent's file
  docs/config-default.yaml  that file with all defaults
  docs/config-controller.md, docs/config-controller-default.yaml
                            the same of the controller's file
  docs/config-netconsole.md, docs/config-netconsole-default.yaml
                            the same of the file of `detector netconsole`
  docs/events-controller.md Kubernetes events of `detector controller`
  docs/privileges.md        capabilities, what needs them, what is lost without
  deploy/                   the definition of incidents; the chart's template of what the agent has; from the chart and
                            deploy/monitoring the plain YAML, and the chart's README and copies")]
pub(crate) struct Options {
    /// Write nothing; fail if a file is not what would be written.
    #[arg(long)]
    check: bool,
}

/// A generated file.
struct Generated {
    /// Path in the source tree.
    path: &'static str,
    /// Page that `detector/examples/reference.rs` prints for it.
    ///
    /// An example and not a call from here: this front door must open also when the library does not compile.
    page: &'static str,
}

const GENERATED: &[Generated] = &[
    Generated { path: "docs/watch-output.md", page: "watch-output" },
    Generated { path: "docs/doctor-output.md", page: "doctor-output" },
    Generated { path: "docs/metrics.md", page: "metrics" },
    Generated { path: "docs/metrics-controller.md", page: "metrics-controller" },
    Generated { path: "docs/metrics-netconsole.md", page: "metrics-netconsole" },
    Generated { path: "docs/events.md", page: "events" },
    Generated { path: "docs/privileges.md", page: "privileges" },
    Generated { path: "docs/problems.md", page: "problems" },
    Generated { path: "docs/conditions.md", page: "conditions" },
    Generated { path: "docs/config.md", page: "config" },
    Generated { path: "docs/config-default.yaml", page: "config-default" },
    Generated { path: "deploy/crd/kernelincidents.yaml", page: "incidents" },
    Generated { path: "docs/events-controller.md", page: "events-controller" },
    Generated { path: "docs/config-controller.md", page: "config-controller" },
    Generated { path: "docs/config-controller-default.yaml", page: "config-controller-default" },
    Generated { path: "docs/config-netconsole.md", page: "config-netconsole" },
    Generated { path: "docs/config-netconsole-default.yaml", page: "config-netconsole-default" },
    Generated { path: "deploy/chart/templates/_contract.tpl", page: "chart" },
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.check {
        check()?;
        return Ok(ExitCode::SUCCESS);
    }
    for file in GENERATED {
        let path = workspace::root().join(file.path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("make the directory {}", dir.display()))?;
        }
        fs::write(&path, content(file)?).with_context(|| format!("write {}", path.display()))?;
        process::say(format_args!("wrote {}", file.path));
    }
    // After those and in their order: the chart that is rendered needs its template and its copies.
    for (name, make) in deploy::MADE {
        let path = workspace::root().join(name);
        fs::write(&path, make()?).with_context(|| format!("write {}", path.display()))?;
        process::say(format_args!("wrote {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails and names all files that are not what would be written.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for file in GENERATED {
        let path = workspace::root().join(file.path);
        let committed = fs::read_to_string(&path).ok();
        if let Some(why) = difference(committed.as_deref(), &content(file)?) {
            stale.push(format!("{}: {why}", file.path));
        }
    }
    for (name, make) in deploy::MADE {
        let committed = fs::read_to_string(workspace::root().join(name)).ok();
        stale.extend(difference(committed.as_deref(), &make()?).map(|why| format!("{name}: {why}")));
    }
    if !stale.is_empty() {
        bail!("generated files are not fresh, run `cargo xtask gen`:\n{}", stale.join("\n"));
    }
    Ok(())
}

fn content(file: &Generated) -> Result<String> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "detector", "--example", "reference", "--", file.page]);
    process::capture(&mut command, &format!("generate {}", file.path))
}

fn difference(committed: Option<&str>, wanted: &str) -> Option<String> {
    let Some(committed) = committed else {
        return Some("it is missing".to_owned());
    };
    if committed == wanted {
        return None;
    }
    let same = committed.lines().zip(wanted.lines()).take_while(|(old, new)| old == new).count();
    Some(format!("it differs from line {} on", same + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_told_with_the_line_where_it_differs() {
        assert_eq!(difference(Some("a\nb\n"), "a\nc\n").as_deref(), Some("it differs from line 2 on"));
        assert_eq!(difference(Some("a\n"), "a\nc\n").as_deref(), Some("it differs from line 2 on"));
    }

    #[test]
    fn a_missing_file_is_not_fresh() {
        assert_eq!(difference(None, "a").as_deref(), Some("it is missing"));
        assert_eq!(difference(Some("a"), "a"), None);
    }
}
