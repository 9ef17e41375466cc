//! The catalogue of problems as the pages `docs/problems.md` and `docs/conditions.md`.

use std::fmt::{Error, Write};

use super::{CONDITIONS, Condition, PROBLEMS, Problem};

/// The page of all problems in Markdown.
#[must_use]
pub fn problems() -> String {
    let mut page = String::from(PROBLEMS_PREFACE);
    for problem in PROBLEMS {
        // Writing to a `String` cannot fail.
        write_problem(&mut page, problem).ok();
    }
    page
}

/// The page of all Node conditions in Markdown.
#[must_use]
pub fn conditions() -> String {
    let mut page = String::from(CONDITIONS_PREFACE);
    for condition in CONDITIONS {
        write_condition(&mut page, condition).ok();
    }
    page.push_str(LIFE);
    page.push_str(BEFORE);
    page.push_str(WRITING);
    page
}

fn write_problem(page: &mut String, problem: &Problem) -> Result<(), Error> {
    let events: Vec<_> = problem.events.iter().map(|event| format!("{} `{}`", event.on, event.reason)).collect();
    let metrics: Vec<_> = problem.metrics.iter().map(|metric| format!("`{metric}`")).collect();
    let condition = problem.condition.map_or_else(
        || "none".to_owned(),
        |(condition, reason)| format!("[`{}`](conditions.md) with reason `{reason}`", condition.kind),
    );
    writeln!(page, "\n## `{}`\n\n{}\n\n| | |\n|---|---|", problem.name, problem.meaning)?;
    writeln!(page, "| subject | {} |", problem.subject.name())?;
    writeln!(page, "| severity | {} |", problem.severity.name())?;
    writeln!(page, "| condition | {condition} |")?;
    writeln!(page, "| events | {} |", events.join(", "))?;
    writeln!(page, "| metrics | {} |", metrics.join(", "))?;
    writeln!(page, "| ends | {} |", problem.clears)?;
    writeln!(page, "| what to do | {} |", problem.what_to_do)
}

fn write_condition(page: &mut String, condition: &Condition) -> Result<(), Error> {
    writeln!(
        page,
        "\n## `{}`\n\n{}\n\n| status | reason | meaning |\n|---|---|---|",
        condition.kind, condition.meaning
    )?;
    for (reason, meaning) in condition.raised_reasons {
        writeln!(page, "| `True` | `{reason}` | {meaning} |")?;
    }
    writeln!(page, "| `False` | `{}` | {} |", condition.clear_reason, condition.clear_message)?;
    for (reason, meaning) in condition.other_clear_reasons {
        writeln!(page, "| `False` | `{reason}` | {meaning} |")?;
    }
    writeln!(page, "\nDrain because of it? {}", condition.drain)
}

const PROBLEMS_PREFACE: &str = "\
# Problems

What `detector agent` knows to be wrong, whom it is about, how it is told and when it is over. Node conditions have a
page of their own: [conditions.md](conditions.md).
";

const CONDITIONS_PREFACE: &str = "\
# Node conditions

The agent keeps these in `status.conditions` of its Node, and no others. `status` is `True` or `False`. When
the agent or the node is gone the last value stays, and `lastHeartbeatTime` tells how old it is; of a dead node the controller
sets `Unknown`, see below.
";

const LIFE: &str = "
## Life

What follows is that of `KernelDeadlock` and `TaskHung`; that of `PreviousBootCrash` is told [below](#the-boot-before). A
condition has causes: each hung task is one, named by thread id and time of its start.

```text
            first task hangs
  ┌───────┐                      ┌────────┐ ╮ a further task hangs, one of several runs or exits,
  │ False │ ───────────────────▶ │  True  │ │ more is known of one
  └───────┘ ◀─────────────────── └────────┘ ╯ reason and message may change
          last task runs or exits
```

| condition | what happens | after it |
|---|---|---|
| False | a task hangs | True, from the time at which the kernel found it |
| True | a further task hangs | True; the message counts it |
| True | one of several tasks runs or exits | True; if it was the one named, the next oldest is |
| True | the last task runs or exits | False |
| True | the agent restarts and remembers the tasks | True; they are looked at, and end it as above: a task that was switched away from since ran |
| True | the agent restarts and has lost its state, or another program set it | True with a message that says so, until a task is reported or two scans of the kernel's watch have found none; never False in between |
| True | the machine restarts | False with the agent's first write |

The message names the task that has hung for longest, its process, its pod and container or unit, since when it hangs, the
holder of the lock it waits for where the kernel tells it, and the number of further tasks. It is cut to 1,024 bytes.

That the machine has restarted is known by the boot id in the agent's state. Where no state tells, a condition that was
asserted before the boot is of another one, if the agent starts within 15 minutes of the boot; of an agent that starts later
it is believed as above, because a clock that was set forward makes an assertion of this boot look as old.

A process is one of the node's runtime if its name, or that of its leading thread, is in the setting
`conditions.runtimeProcesses`, and its cgroup is known, and lies neither in a pod, nor in a container, nor in a session of
a user: a container that calls its process `kubelet` does not make a deadlock of the node. What is not known to be of the
runtime raises `TaskHung`.
";

const BEFORE: &str = "
## The boot before

After each boot the agent looks once, without deleting anything, for what the boot before left, and tells it by
`PreviousBootCrash`: [previous-boot.md](previous-boot.md) has where it looks and what it concludes. The condition is about the
last boot before this one: with the next boot it goes.
";

const WRITING: &str = "
## Writing

- By server-side apply to `nodes/NAME/status` with field manager `detector-agent` and `force`. Each write holds all types
  of the list above; a type that a newer version has dropped goes with its first write, which its admission policy allows.
- When something changed: the status at once (at most one write a second), reason and message at most every 10 seconds. One
  write is under way at a time; what changed meanwhile goes with the next.
- After a failed write: after 1, 2, 4 … 60 seconds and up to half of it more; `Retry-After` is honoured. So it is after a
  403, because rights can be given and a server that has just started forbids for a while. A refusal for good, such as a
  Node that is not there, is tried again after 5 minutes.
- As heartbeat, if nothing changed: every `conditions.heartbeat` (30 minutes) and up to a tenth more, by a hash of the node's
  name, so that the nodes of a cluster do not write together. Where something was built for node-problem-detector, which
  writes every 5 minutes, and takes an older `lastHeartbeatTime` for a dead agent, set `conditions.heartbeat: 5m`.
- `lastTransitionTime` changes with the status only and is the time of the kernel's finding; `lastHeartbeatTime` is the time
  of the write.
- When the clock of the machine is set, times that were written stay as they are, and later ones are told by the new clock,
  so that one may lie before another that was told earlier. Nothing is written for it before the next heartbeat, no status
  changes, and how long a task hangs is not measured by that clock.
- At the start the agent reads what stands by an empty merge patch as dry run: its right to patch suffices for that, it
  need not get nodes. Should that be refused (an admission webhook that allows no dry run), it goes on without.
- The API server does not check conditions of Nodes. The agent does: types by the list above, reasons by `[A-Z][A-Za-z0-9]*`,
  messages by length.

Another writer of the same type, such as node-problem-detector beside it, is overwritten without a conflict: `force` takes
the fields over, and the other does the same at its next heartbeat. Run only one of them, or the condition will alternate.

Of a node that is dead or cannot be heard the controller sets `KernelDeadlock` and `TaskHung` to `Unknown` with the reason
`NodeLost`: nobody there could say that they are no longer so. What a condition said before stands in its message, and is put
back when the node is back with the same boot; after a reboot the agent writes its own. `PreviousBootCrash` stays as it is: it
tells of an earlier boot, and remains true.

`detector cleanup` removes all of them: by an apply without conditions, and, where another writer had owned a part of one, so
that it or an empty shell of it stayed, by a patch that deletes it. A writer that still runs writes its own anew.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_and_condition_has_its_section() {
        let (problems, conditions) = (problems(), conditions());
        for problem in PROBLEMS {
            assert!(problems.contains(&format!("\n## `{}`\n", problem.name)), "{}", problem.name);
        }
        for condition in CONDITIONS {
            assert!(conditions.contains(&format!("\n## `{}`\n", condition.kind)), "{}", condition.kind);
        }
    }

    #[test]
    fn no_text_breaks_a_table() {
        for line in problems().lines().chain(conditions().lines()).filter(|line| line.starts_with('|')) {
            assert!(line.ends_with('|'), "{line}");
        }
        for problem in PROBLEMS {
            let texts = [problem.meaning, problem.clears, problem.what_to_do];
            assert!(texts.iter().all(|text| !text.contains('|') && !text.contains("  ")), "{}", problem.name);
        }
    }
}
