//! Lines of real kernels, and what may not be believed. Where a text was not recorded for these tests its origin is noted.

use rstest::rstest;

use super::*;
pub(super) fn name(text: &str) -> Comm {
    comm(text.as_bytes()).expect("a short name")
}

pub(super) fn event(text: &str) -> Option<LogEvent> {
    let record = format!("6,1,2,-;{text}\n");
    parse(record.as_bytes()).expect("a record").event()
}

pub(super) fn header(text: &str) -> Option<OomHeader> {
    match event(text) {
        Some(LogEvent::OomHeader(header)) => Some(header),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn killed(text: &str) -> OomKilled {
    match event(text) {
        Some(LogEvent::OomKilled(killed)) => killed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_is_taken_apart() {
    let record =
        b"11,339,5140900,-,caller=T1;back\\x5cslash \\xe4\\x0a \\x\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n";
    let line = parse(record).expect("a record");
    assert_eq!((line.facility, line.level, line.sequence, line.time_us), (1, 3, 339, 5_140_900));
    assert_eq!((&*line.text, line.fragment), (&b"back\\slash \xe4\n \\x"[..], false));
    assert!(parse(b"4,2,1,c;rest of a line\n").expect("a record").fragment);
}

#[rstest]
#[case::nothing(b"", LogError::Prefix)]
#[case::no_text(b"6,1,2,-", LogError::Prefix)]
#[case::three_fields(b"6,1,2;text", LogError::Prefix)]
#[case::a_sign(b"6,+1,2,-;text", LogError::Number("sequence"))]
#[case::no_number(b"six,1,2,-;text", LogError::Number("level"))]
#[case::too_large(b"6,1,99999999999999999999,-;text", LogError::Number("time"))]
#[case::empty(b"6,,2,-;text", LogError::Number("sequence"))]
fn a_damaged_record_is_refused(#[case] record: &[u8], #[case] expected: LogError) {
    assert_eq!(parse(record), Err(expected));
}

#[test]
fn only_the_kernels_own_whole_lines_are_believed() {
    // Written to /dev/kmsg by root, with the level `<3>` in front, and read back on Linux 6.18.
    let text = "Memory cgroup out of memory: Killed process 1 (forged) total-vm:1kB, anon-rss:1kB, file-rss:1kB, \
        shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0";
    let told = |prefix: &str| parse(format!("{prefix};{text}\n").as_bytes()).expect("a record").event().is_some();
    assert!(told("3,193658,13367390925,-"));
    assert!(!told("11,193658,13367390925,-"));
    assert!(!told("3,193658,13367390925,c"));
}

// Linux 7.3 (recorded); 5.10 and 6.12 write the same.
const AT_LIMIT: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/family,\
    task_memcg=/family/second,task=oom-eater,pid=117,uid=0";
const GLOBAL: &str = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
    task_memcg=/unlimited,task=oom-eater,pid=127,uid=0";

#[rstest]
#[case::of_a_cgroup(AT_LIMIT, Some("/family"), "/family/second", "oom-eater", 117, 0)]
#[case::of_the_machine(GLOBAL, None, "/unlimited", "oom-eater", 127, 0)]
// Linux 7.3, made for it, recorded: names with separators of the line, of a line, and bytes that are no text.
#[case::a_comma_and_a_space(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/comma, and space,\
     task_memcg=/comma, and space,task=) total-vm:1kB,pid=100,uid=0",
    Some("/comma, and space"),
    "/comma, and space",
    ") total-vm:1kB",
    100,
    0
)]
#[case::a_name_like_numbers(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/n,task_memcg=/n,\
     task=x,pid=1,uid=2,pid=101,uid=0",
    Some("/n"),
    "/n",
    "x,pid=1,uid=2",
    101,
    0
)]
#[case::a_name_like_a_key(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/n,task_memcg=/n,\
     task=a,task=b,pid=102,uid=0",
    Some("/n"),
    "/n",
    "a,task=b",
    102,
    0
)]
#[case::a_name_of_two_lines(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/n,task_memcg=/n,\
     task=new\\x0aline\\x5c,pid=103,uid=0",
    Some("/n"),
    "/n",
    "new\nline\\",
    103,
    0
)]
// A node of several (form of `nodemask=%*pbl`), a cpuset named like keys, a user id printed with a sign: built.
#[case::a_cpuset_named_like_keys(
    "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0-1,3,cpuset=a,mems_allowed=0,global_oom,task_memcg=,\
     mems_allowed=0-1,3,global_oom,task_memcg=/,task=,pid=7,uid=-2",
    None, "/", "", 7, u32::MAX - 1
)]
// The domain is the root, as with cgroup v1 and `memory.use_hierarchy`: built.
#[case::of_the_root(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/,task_memcg=/a/b,task=c,\
     pid=7,uid=1",
    Some("/"),
    "/a/b",
    "c",
    7,
    1
)]
fn a_report_names_domain_and_cgroup(
    #[case] text: &str,
    #[case] domain: Option<&str>,
    #[case] cgroup: &str,
    #[case] comm: &str,
    #[case] pid: u32,
    #[case] uid: u32,
) {
    let domain = domain.map(str::to_owned);
    let expected = OomHeader { domain, cgroup: cgroup.to_owned(), comm: name(comm), pid, uid };
    assert_eq!(header(text), Some(expected));
}

#[rstest]
// Linux 7.3, recorded: cgroup `/x,task_memcg=/y,task=z`, task `plain`. As well it could be the cgroup `/x,task_memcg=/y`
// and the task `z,task=plain`.
#[case::more_than_one_reading(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x,task_memcg=,\
     task_memcg=/x,task_memcg=/y,task=z,task=plain,pid=99,uid=0"
)]
#[case::a_cgroup_outside_of_the_domain(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/ab,task=c,\
     pid=7,uid=1"
)]
#[case::cut(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b"
)]
#[case::cut_in_a_number(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=c,pid=7,uid="
)]
#[case::a_name_too_long(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,\
     task=0123456789abcdef,pid=7,uid=1"
)]
#[case::a_path_that_is_no_text(
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/\\xff,task_memcg=/\\xff,\
     task=c,pid=7,uid=1"
)]
fn a_report_that_is_not_clear_is_not_believed(#[case] text: &str) {
    assert_eq!(header(text), None);
}

/// Total, anonymous, file, shared memory, page tables in KiB; user id; oom_score_adj.
type Values = (Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u32>, Option<i32>);

#[rstest]
// Linux 6.12, recorded.
#[case::of_a_cgroup(
    "Memory cgroup out of memory: Killed process 165 (oom-thread) total-vm:274368kB, anon-rss:30592kB, file-rss:0kB, \
     shmem-rss:908kB, UID:0 pgtables:108kB oom_score_adj:0",
    LogCause::Cgroup, 165, "oom-thread", (Some(274_368), Some(30_592), Some(0), Some(908), Some(108), Some(0), Some(0))
)]
// Linux 5.10, recorded.
#[case::of_the_machine(
    "Out of memory: Killed process 105 (oom-eater) total-vm:16779184kB, anon-rss:598024kB, file-rss:0kB, \
     shmem-rss:448kB, UID:0 pgtables:1208kB oom_score_adj:1000",
    LogCause::Node, 105, "oom-eater",
    (Some(16_779_184), Some(598_024), Some(0), Some(448), Some(1208), Some(0), Some(1000))
)]
// A Kubernetes node with Linux 6.8 or thereabouts, from a public bug report of 2025.
#[case::of_a_spared_container(
    "Memory cgroup out of memory: Killed process 3803554 (sleep) total-vm:1572kB, anon-rss:4kB, file-rss:0kB, \
     shmem-rss:0kB, UID:0 pgtables:32kB oom_score_adj:-997",
    LogCause::Cgroup, 3_803_554, "sleep", (Some(1572), Some(4), Some(0), Some(0), Some(32), Some(0), Some(-997))
)]
// Words of `out_of_memory`, 5.1 and later; values as above: built.
#[case::of_the_allocating_task(
    "Out of memory (oom_kill_allocating_task): Killed process 9 (a b) total-vm:8kB, anon-rss:4kB, file-rss:0kB, \
     shmem-rss:0kB, UID:1000 pgtables:32kB oom_score_adj:0",
    LogCause::NodeAllocating, 9, "a b", (Some(8), Some(4), Some(0), Some(0), Some(32), Some(1000), Some(0))
)]
// Linux 7.3, recorded: a name like what follows it.
#[case::a_name_like_what_follows(
    "Memory cgroup out of memory: Killed process 100 () total-vm:1kB) total-vm:66564kB, anon-rss:8240kB, file-rss:0kB, \
     shmem-rss:324kB, UID:0 pgtables:56kB oom_score_adj:0",
    LogCause::Cgroup, 100, ") total-vm:1kB", (Some(66_564), Some(8240), Some(0), Some(324), Some(56), Some(0), Some(0))
)]
#[case::a_name_of_two_lines(
    "Memory cgroup out of memory: Killed process 103 (new\\x0aline\\x5c) total-vm:66564kB, anon-rss:8240kB, \
     file-rss:0kB, shmem-rss:324kB, UID:0 pgtables:56kB oom_score_adj:0",
    LogCause::Cgroup, 103, "new\nline\\", (Some(66_564), Some(8240), Some(0), Some(324), Some(56), Some(0), Some(0))
)]
// Linux 4.18 with patches, from the mail that proposed `memory.oom.group`.
#[case::before_the_words_in_front(
    "Killed process 1217 (allocate) total-vm:2052344kB, anon-rss:1704036kB, file-rss:0kB, shmem-rss:0kB",
    LogCause::Untold, 1217, "allocate", (Some(2_052_344), Some(1_704_036), Some(0), Some(0), None, None, None)
)]
// Form of 3.10 in RHEL 7: built.
#[case::with_the_user_behind_the_name(
    "Killed process 3333 (java), UID 500, total-vm:20kB, anon-rss:10kB, file-rss:0kB",
    LogCause::Untold, 3333, "java", (Some(20), Some(10), Some(0), None, None, Some(500), None)
)]
fn a_kill_tells_who_and_how_large(
    #[case] text: &str,
    #[case] cause: LogCause,
    #[case] pid: u32,
    #[case] comm: &str,
    #[case] values: Values,
) {
    let (total_vm_kib, anon_kib, file_kib, shmem_kib, page_table_kib, uid, oom_score_adj) = values;
    let memory = LoggedMemory { total_vm_kib, anon_kib, file_kib, shmem_kib, page_table_kib };
    assert_eq!(killed(text), OomKilled { cause, pid, comm: name(comm), uid, oom_score_adj, memory });
}

#[test]
fn a_name_that_is_no_text_is_kept_as_it_is() {
    // Linux 7.3, recorded.
    let killed = killed(
        "Memory cgroup out of memory: Killed process 104 (\\xff\\xfe(\\xc3\\xa4)) total-vm:66564kB, anon-rss:8240kB, \
         file-rss:0kB, shmem-rss:324kB, UID:0 pgtables:56kB oom_score_adj:0",
    );
    assert_eq!(&killed.comm.0[..7], b"\xff\xfe(\xc3\xa4)\0");
}

// Linux 6.18 and 7.3, recorded, but where noted.
#[rstest]
#[case::the_report_begins(
    "oom-eater invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    Some(LogEvent::OomInvoked)
)]
#[case::a_group(
    "Tasks in /family are going to be killed due to memory.oom.group set",
    Some(LogEvent::OomGroup { path: "/family".to_owned() })
)]
#[case::a_group_named_like_the_line(
    "Tasks in /a are going to be killed due to memory.oom.group set are going to be killed due to memory.oom.group set",
    Some(LogEvent::OomGroup { path: "/a are going to be killed due to memory.oom.group set".to_owned() })
)]
// A Kubernetes node, from a public bug report of 2025.
#[case::one_already_gone(
    "Memory cgroup out of memory: OOM victim 3804877 (stress) is already exiting. Skip killing the task",
    Some(LogEvent::OomSkipped { pid: 3_804_877, cause: LogCause::Cgroup })
)]
#[case::no_more_hangs(
    "Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings",
    Some(LogEvent::HungTasksSilenced)
)]
#[case::reports_left_out("oom_kill_process: 507 callbacks suppressed", None)]
#[case::the_reaper(
    "oom_reaper: reaped process 3804874 (stress), now anon-rss:0kB, file-rss:264kB, shmem-rss:0kB",
    None
)]
#[case::a_device_named_like_a_line("usb 1-1: Product: Out of memory: Killed process 1 (x) total-vm:1kB", None)]
#[case::a_task_named_like_a_line("Out of memory: [17]: segfault at 0 ip 0 sp 0 error 4 in x[1+1]", None)]
#[case::too_long_to_be_a_task("somebody else says: x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL)", None)]
#[case::before_the_choice("Out of memory: Kill process 1221 (allocate) score 241 or sacrifice child", None)]
#[case::a_kill_without_numbers("Memory cgroup out of memory: Killed process  () total-vm:", None)]
fn other_lines(#[case] text: &str, #[case] expected: Option<LogEvent>) {
    assert_eq!(event(text), expected);
}
