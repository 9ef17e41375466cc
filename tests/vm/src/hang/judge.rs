//! Compares what must be seen of hung tasks with what was seen. Pure: lines in, complaints out.

use std::collections::BTreeSet;

use detector_provoke::{Ending, HungTask};

use super::acceptance::Acceptance;
use crate::{
    complaint::Complaints,
    kmsg::{TIMEOUT, WARNINGS, Warned},
    kube,
    line::{self, HangState, Line, Owner},
};

/// Innermost functions that a told stack must have; further out a record may end.
const INNERMOST: usize = 3;

/// What must be seen.
pub(super) struct Expected<'a> {
    /// Who hung.
    pub(super) tasks: &'a [HungTask],
    /// Functions that each waited in, by `/proc`, innermost first.
    pub(super) stacks: &'a [Vec<String>],
    /// What the kernel's log said.
    pub(super) warned: &'a Warned,
}

/// Complaints about the kernel's own word: the provocation went wrong.
pub(super) fn kernel(tasks: &[HungTask], warned: &Warned) -> Vec<String> {
    let mut wrong = Complaints::default();
    wrong.differs("tasks that the kernel warned of", &tasks.len().min(WARNINGS), &warned.tasks.len());
    for (pid, name) in &warned.tasks {
        let comm = tasks.iter().find(|task| task.pid == *pid).map(|task| task.comm);
        wrong.differs(&format!("name of task {pid}"), &comm, &Some(name.as_str()));
    }
    for (waiter, holder) in &warned.holders {
        let waits_for = tasks.iter().find(|task| task.pid == *waiter).and_then(|task| task.waits_for);
        wrong.differs(&format!("holder of the mutex that {waiter} waits for"), &waits_for, &Some(*holder));
    }
    wrong.shortened()
}

/// Complaints about one watcher.
pub(super) fn seen(expected: &Expected<'_>, lines: &[Line], method: &str) -> Vec<String> {
    let acceptance = Acceptance::of(method);
    let mut wrong = Complaints::new(acceptance.lenient);
    let mut hangs = Vec::new();
    for line in lines {
        match line {
            Line::HungTask(hang) => hangs.push(&**hang),
            // Newer kernels say that their ten warnings are used up, and so does who lives by them.
            Line::Notice(notice) if method == "kmsg" && notice.kind == "log_silent_on_hangs" => {}
            other => wrong.unless(false, || other.unexpected()),
        }
    }
    let mut numbers = BTreeSet::new();
    for (task, stack) in expected.tasks.iter().zip(expected.stacks) {
        let told: Vec<_> = hangs.iter().copied().filter(|hang| hang.task.tid == Some(task.pid)).collect();
        if told.is_empty() && !acceptance.beyond_warnings && !expected.warned.tasks.contains_key(&task.pid) {
            continue;
        }
        numbers.extend(told.first().map(|hang| hang.hang));
        let mut about = life(task, &told, acceptance);
        for hang in &told {
            one(&mut about, task, hang);
            about.differs("method", &method, &hang.method.as_str());
        }
        if let Some(raised) = told.first() {
            waits_in(&mut about, stack, raised, acceptance);
            lock(&mut about, expected, task, raised, acceptance);
        }
        wrong.of(task.pid, about);
    }
    for hang in &hangs {
        let of_one = expected.tasks.iter().any(|task| hang.task.tid == Some(task.pid));
        wrong.unless(of_one, || format!("hangs nobody: {:?}", hang.task));
    }
    let tasks: BTreeSet<_> = hangs.iter().map(|hang| hang.task.tid).collect();
    wrong.differs("numbers of hangs", &tasks.len(), &numbers.len());
    wrong.shortened()
}

/// From raised to its end, with a length that grows.
fn life(task: &HungTask, told: &[&line::HungTask], acceptance: Acceptance) -> Complaints {
    let mut wrong = Complaints::new(acceptance.lenient);
    let ends: &[HangState] = match task.ending {
        Ending::Runs => &[HangState::Ran],
        // It runs a moment before it exits, in which it may be seen.
        Ending::Exits => &[HangState::Exited, HangState::Ran],
    };
    let states: Vec<_> = told.iter().map(|hang| hang.state).collect();
    let right = match states.as_slice() {
        [HangState::Raised, between @ .., last] if ends.contains(last) => {
            between.iter().all(|state| *state == HangState::Sustained) && !(acceptance.every_scan && between.is_empty())
        }
        _ => false,
    };
    wrong.unless(right, || {
        let raised = told.iter().filter(|hang| hang.state == HangState::Raised);
        let stacks: Vec<_> = raised.map(|hang| (hang.hung_ms, hang.stack.join(" "))).collect();
        format!("states: Raised, Sustained and more, {ends:?}, not {states:?}; raised at {stacks:?}")
    });
    let lengths: Vec<_> = told.iter().map(|hang| hang.hung_ms).collect();
    let timeout = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    wrong.unless(lengths.first().is_none_or(|first| *first >= timeout), || {
        format!("hung_ms: at least {timeout}, not {lengths:?}")
    });
    let grows = told.windows(2).all(|two| {
        let grown = two[1].hung_ms > two[0].hung_ms;
        grown || two[1].state != HangState::Sustained && two[1].hung_ms == two[0].hung_ms
    });
    wrong.unless(grows, || format!("hung_ms must grow, not {lengths:?}"));
    let numbers: BTreeSet<_> = told.iter().map(|hang| hang.hang).collect();
    wrong.unless(numbers.len() <= 1, || format!("one hang has the numbers {numbers:?}"));
    wrong
}

/// What each line of a hang must tell.
fn one(wrong: &mut Complaints, task: &HungTask, hang: &line::HungTask) {
    wrong.known("pid", &Some(task.pid), &hang.task.pid, &None);
    wrong.differs("comm", &Some(task.comm), &hang.task.comm.as_deref());
    wrong.known("leader_comm", &Some(task.comm), &hang.task.leader_comm.as_deref(), &None);
    wrong.told("started_boot_ns", hang.task.started_boot_ns.as_ref());
    place(wrong, &task.cgroup, hang.cgroup.as_ref(), &hang.owner);
}

fn place(wrong: &mut Complaints, expected: &str, cgroup: Option<&line::Cgroup>, owner: &Owner) {
    let path = cgroup.and_then(|cgroup| cgroup.path.as_deref());
    wrong.known("cgroup", &Some(expected), &path, &None);
    wrong.known("owner", &kube::owner_of(expected), owner, &Owner::of_kind("unknown"));
}

/// The functions that `/proc` told must be among those on the told stack.
fn waits_in(wrong: &mut Complaints, expected: &[String], hang: &line::HungTask, acceptance: Acceptance) {
    if !acceptance.stack && hang.stack.is_empty() {
        return;
    }
    let names: Vec<_> = hang.stack.iter().map(|frame| frame.split(['+', ' ']).next().unwrap_or_default()).collect();
    for name in expected.iter().take(INNERMOST) {
        wrong.unless(names.contains(&name.as_str()), || format!("stack: {name} is not among {names:?}"));
    }
}

/// The kernel's log says whether it knows of a lock at all.
fn lock(wrong: &mut Complaints, expected: &Expected<'_>, task: &HungTask, hang: &line::HungTask, a: Acceptance) {
    let holder = expected.warned.holders.get(&task.pid);
    let holder = holder.and_then(|pid| expected.tasks.iter().find(|task| task.pid == *pid));
    let Some(told) = hang.lock.as_ref().filter(|lock| lock.kind != "none") else {
        wrong.unless(holder.is_none() || !a.lock, || "lock: a mutex, not none".to_owned());
        return;
    };
    let Some(holder) = holder else {
        return wrong.unless(false, || format!("lock: none, not {told:?}"));
    };
    wrong.differs("lock.kind", &"mutex", &told.kind.as_str());
    let Some(who) = &told.holder else {
        return wrong.unless(!a.lock, || "lock.holder is unknown".to_owned());
    };
    wrong.known("lock.holder.pid", &Some(holder.pid), &who.pid, &None);
    wrong.known("lock.holder.tid", &Some(holder.pid), &who.tid, &None);
    wrong.known("lock.holder.comm", &Some(holder.comm), &who.comm.as_deref(), &None);
    place(wrong, &holder.cgroup, who.cgroup.as_ref(), &who.owner);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const HANG: &str = r#"{"type":"hung_task","time":"2026-11-22T03:46:02.123456Z","boot_ns":7123456789,"hang":1,
        "state":"raised","hung_ms":2100,"method":"btf_tracepoint","task":{"pid":97,"tid":97,"comm":"hang-waiter",
        "leader_comm":"hang-waiter","started_boot_ns":7100000000},"cgroup":{"hierarchy":0,"id":42,"path":"/hang"},
        "owner":{"kind":"cgroup","runtime":null,"container_id":null,"container":null,"pod_uid":null,"pod":null,
        "namespace":null,"qos":null,"unit":null},"lock":null,
        "stack":["__schedule+0x2ed","__mutex_lock.constprop.0+0x2e","pipe_read+0x52","vfs_read+0x1fa [mod]"]}"#;

    fn line(state: HangState, hung_ms: u64) -> Line {
        let Ok(Line::HungTask(mut hang)) = serde_json::from_str(HANG) else { panic!("no line of a hang") };
        (hang.state, hang.hung_ms) = (state, hung_ms);
        Line::HungTask(hang)
    }

    fn life_of_one() -> Vec<Line> {
        [(HangState::Raised, 2100), (HangState::Sustained, 3100), (HangState::Ran, 3500)]
            .map(|(state, hung_ms)| line(state, hung_ms))
            .into()
    }

    fn complaints(lines: &[Line], holder: Option<u32>) -> String {
        by("btf_tracepoint", lines, holder)
    }

    fn by(method: &str, lines: &[Line], holder: Option<u32>) -> String {
        let task =
            HungTask { pid: 97, comm: "hang-waiter", cgroup: "/hang".into(), ending: Ending::Runs, waits_for: holder };
        let holds = holder.map(|pid| HungTask { pid, comm: "hang-holder", waits_for: None, ..task.clone() });
        let tasks: Vec<_> = [task].into_iter().chain(holds).collect();
        let stacks = vec![vec!["__mutex_lock.constprop.0".to_owned(), "pipe_read".to_owned()]; tasks.len()];
        let names = tasks.iter().map(|task| (task.pid, task.comm.to_owned())).take(1).collect();
        let warned = Warned { tasks: names, holders: holder.map(|holder| (97, holder)).into_iter().collect() };
        seen(&Expected { tasks: &tasks, stacks: &stacks, warned: &warned }, lines, method).join("; ")
    }

    #[test]
    fn a_hang_from_raised_to_its_end_has_no_complaint() {
        assert_eq!(complaints(&life_of_one(), None), "");
    }

    #[test]
    fn a_hang_that_is_never_over_or_does_not_grow_is_noticed() {
        assert!(complaints(&life_of_one()[..2], None).contains("states: "));
        let still = [line(HangState::Raised, 2100), line(HangState::Sustained, 2100), line(HangState::Ran, 2100)];
        assert!(complaints(&still, None).contains("hung_ms must grow"));
        let twice = [life_of_one(), life_of_one()].concat();
        assert!(complaints(&twice, None).contains("states: "));
    }

    #[test]
    fn a_lock_that_the_kernel_told_must_be_told_with_its_holder_by_those_who_can() {
        assert!(complaints(&life_of_one(), Some(96)).contains("97: lock: a mutex, not none"));
        assert!(by("kmsg", &life_of_one(), Some(96)).contains("method: "));
        assert!(!by("kmsg", &life_of_one(), Some(96)).contains("lock"));
    }

    #[test]
    fn the_wrong_stack_place_and_task_are_noticed() {
        let mut wrong = life_of_one();
        for line in &mut wrong {
            let Line::HungTask(hang) = line else { continue };
            hang.stack = vec!["cpuidle_enter+0x1".to_owned()];
            hang.cgroup = None;
            hang.owner = Owner::of_kind("unit");
        }
        let text = complaints(&wrong, None);
        for what in ["stack: pipe_read is not among", "cgroup: Some(\"/hang\")", "owner: "] {
            assert!(text.contains(what), "{what} in {text}");
        }
    }

    #[test]
    fn the_kernels_log_need_not_name_more_than_ten() {
        let task =
            |pid| HungTask { pid, comm: "hang-writer", cgroup: "/x".into(), ending: Ending::Runs, waits_for: None };
        let tasks: Vec<_> = (0..30).map(task).collect();
        let names = |count| (0..count).map(|pid| (pid, "hang-writer".to_owned())).collect();
        let warned = |count| Warned { tasks: names(count), holders: BTreeMap::new() };
        assert_eq!(kernel(&tasks, &warned(10)), Vec::<String>::new());
        assert_eq!(kernel(&tasks, &warned(4)), ["tasks that the kernel warned of: 10, not 4"]);
    }
}
