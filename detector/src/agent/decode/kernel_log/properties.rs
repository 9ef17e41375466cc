//! What holds for any line.

use proptest::prelude::*;

use super::{
    tests::{header, name},
    *,
};

/// Pieces of which lines are made, so that random ones come near to real ones.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "oom-kill:constraint=CONSTRAINT_MEMCG",
        ",nodemask=(null)",
        ",cpuset=/",
        ",mems_allowed=0",
        ",oom_memcg=/a",
        ",global_oom",
        ",task_memcg=/a",
        ",task_memcg=/a/b",
        ",task=",
        ",pid=12",
        ",uid=0",
        ",uid=-1",
        "/",
        ":",
        " (",
        ") ",
        "Memory cgroup out of memory: ",
        "Out of memory: ",
        "Killed process ",
        "total-vm:1kB",
        ", UID:0",
        "Tasks in /a",
        " are going to be killed due to memory.oom.group set",
        "INFO: task a:1",
        " blocked for more than ",
        "2 seconds.",
        " is blocked on a mutex likely owned by task ",
        " <reader>",
        "OOM victim 1 (x",
        ", UID 1, ",
        ") is already exiting. Skip killing the task",
        " invoked oom-killer: gfp_mask=",
        "\\x0a",
        "\\",
        "\\xff",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => "[ -~]{0,6}"]
}

/// What an event says, each of which must be found in the text.
fn said(event: &LogEvent) -> Vec<Vec<u8>> {
    let comm = |comm: &Comm| comm.0.iter().copied().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    let number = |number: u32| number.to_string().into_bytes();
    match event {
        LogEvent::OomInvoked | LogEvent::HungTasksSilenced => Vec::new(),
        LogEvent::OomHeader(it) => {
            let mut all = vec![it.cgroup.clone().into_bytes(), comm(&it.comm), number(it.pid)];
            all.extend(it.domain.clone().map(String::into_bytes));
            all
        }
        LogEvent::OomKilled(it) => {
            let values = [it.memory.total_vm_kib, it.memory.anon_kib, it.memory.file_kib];
            let mut all = vec![comm(&it.comm), number(it.pid)];
            all.extend(values.into_iter().flatten().map(|value| value.to_string().into_bytes()));
            all
        }
        LogEvent::OomSkipped { pid, .. } => vec![number(*pid)],
        LogEvent::OomGroup { path } => vec![path.clone().into_bytes()],
        LogEvent::TaskBlocked(it) => vec![comm(&it.comm), number(it.pid), it.seconds.to_string().into_bytes()],
        LogEvent::TaskBlocker(it) => {
            let mut all = vec![comm(&it.comm), number(it.pid)];
            all.extend(it.holder.into_iter().flat_map(|(name, pid)| [comm(&name), number(pid)]));
            all
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn what_is_told_stands_in_the_text(pieces in prop::collection::vec(piece(), 0..14)) {
        let record = format!("6,1,2,-;{}\n", pieces.concat());
        let line = parse(record.as_bytes()).expect("a record");
        for said in line.event().iter().flat_map(said) {
            prop_assert!(said.is_empty() || line.text.windows(said.len()).any(|window| window == said));
        }
    }

    #[test]
    fn any_bytes_have_an_answer(record in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(line) = parse(&record) {
            prop_assert!(line.text.len() <= record.len());
            std::hint::black_box(line.event());
        }
    }

    #[test]
    fn a_report_with_harmless_names_is_read_as_it_was_written(
        domain in "/[a-z0-9.:, =_-]{0,20}",
        below in "(/[a-z0-9.:=_-]{1,20}){0,3}",
        task in "[ -+.-~]{0,15}",
        pid: u32,
        uid in 0..=i32::MAX as u32,
    ) {
        let cgroup = format!("{domain}{below}");
        let text = format!("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0-1,3,\
            oom_memcg={domain},task_memcg={cgroup},task={},pid={pid},uid={uid}", task.replace('\\', "\\x5c"));
        let expected = OomHeader { domain: Some(domain), cgroup, comm: name(&task), pid, uid };
        prop_assert_eq!(header(&text), Some(expected));
    }
}
