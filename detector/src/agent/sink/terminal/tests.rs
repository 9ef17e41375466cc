//! The table as it looks, at several widths.

use std::time::Duration;

use insta::assert_snapshot;

use super::*;
use crate::agent::{
    decode::event::{Holder, Lock, LockKind},
    problem::{Frame, Incident, Limit},
    sink::fixture,
};

const NARROW: Screen = Screen { width: || Some(80), colour: false };
const WIDE: Screen = Screen { width: || Some(200), colour: false };
const PIPE: Screen = Screen { width: || None, colour: false };
const COLOUR: Screen = Screen { width: || Some(80), colour: true };

/// Table and what stands beside it.
fn written(screen: Screen, write: impl FnOnce(&mut Terminal<Vec<u8>, Vec<u8>>) -> io::Result<()>) -> (String, String) {
    let mut sink = Terminal::new(Vec::new(), Vec::new(), screen, fixture::UNITS);
    write(&mut sink).expect("a Vec takes all");
    let text = |bytes| String::from_utf8(bytes).expect("the table is UTF-8");
    (text(sink.table), text(sink.beside))
}

fn rows(screen: Screen, kills: impl IntoIterator<Item = OomKill>) -> String {
    written(screen, |sink| {
        sink.started(&fixture::started())?;
        kills.into_iter().try_for_each(|kill| sink.transition(&Transition::OomKilled(Box::new(kill))))
    })
    .0
}

/// One kill of each sort of place.
fn kills() -> Vec<OomKill> {
    let mut nameless = fixture::container();
    nameless.name = None;
    nameless.pod = nameless.pod.map(|pod| Pod { name: None, namespace: None, ..pod });
    let mut lost = fixture::unknown_kill();
    lost.mark.victim.cgroup = fixture::container_kill().mark.victim.cgroup;
    let mut node = fixture::kill_at("/system.slice/java.service", Owner::Unit("java.service".to_owned()));
    (node.domain, node.limit) = (Domain::Node, Limit::Node);
    vec![
        fixture::container_kill(),
        OomKill { process: Process::Init, limit: Limit::Pod, ..fixture::container_kill() },
        OomKill {
            process: Process::Child,
            limit: Limit::Container,
            ..fixture::kill_at("/x", Owner::Container(nameless.clone()))
        },
        fixture::kill_at("/docker/8d", Owner::Container(Container { pod: None, ..nameless })),
        node,
        fixture::cgroup_kill("/tests/deep/below/the/root/of/the/tree"),
        lost,
        fixture::unknown_kill(),
    ]
}

/// Victims `1..=victims` of incident `number`, a group kill.
fn group(number: u64, victims: u32) -> impl Iterator<Item = OomKill> {
    (1..=victims).map(move |victim| OomKill {
        incident: Incident { number, victim },
        group_kill: Some(true),
        ..fixture::cgroup_kill("/batch")
    })
}

#[test]
fn a_table_of_80_columns() {
    let table = rows(NARROW, kills());
    assert!(table.lines().all(|line| columns(line) <= 80), "{table}");
    assert_snapshot!(table, @r"
    TIME UTC PROCESS           MEMORY LIMIT             KIND  WHERE
    22:15:00 app[4242]        256 MiB container 256 MiB child …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]        256 MiB pod 256 MiB       init  …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]        256 MiB container 256 MiB child …1a2b3c4d/8d1f6c2e9a7b
    22:15:00 app[4242]        256 MiB cgroup 256 MiB    -     container 8d1f6c2e9a7b
    22:15:00 app[4242]        256 MiB node 256 MiB      -     java.service
    22:15:00 app[4242]        256 MiB cgroup 256 MiB    -     …/the/root/of/the/tree
    22:15:00 ?                      ? unknown           -     unresolved cgroup 900
    22:15:00 ?                      ? unknown           -     ?
    ");
}

#[test]
fn a_table_of_200_columns() {
    let table = rows(WIDE, kills());
    assert!(table.lines().all(|line| columns(line) <= 200), "{table}");
    assert_snapshot!(table, @r"
    TIME UTC  PROCESS                      MEMORY  LIMIT              KIND   WHERE
    22:15:00  app[4242]                   256 MiB  container 256 MiB  child  shop/cart-7d9c6b5f4-x2v8k/app
    22:15:00  app[4242]                   256 MiB  pod 256 MiB        init   shop/cart-7d9c6b5f4-x2v8k/app
    22:15:00  app[4242]                   256 MiB  container 256 MiB  child  pod 0f3b2c1d-4e5f-4a6b-8c7d-9e0f1a2b3c4d/8d1f6c2e9a7b
    22:15:00  app[4242]                   256 MiB  cgroup 256 MiB     -      container 8d1f6c2e9a7b
    22:15:00  app[4242]                   256 MiB  node 256 MiB       -      java.service
    22:15:00  app[4242]                   256 MiB  cgroup 256 MiB     -      /tests/deep/below/the/root/of/the/tree
    22:15:00  ?                                 ?  unknown            -      unresolved cgroup 900
    22:15:00  ?                                 ?  unknown            -      ?
    ");
}

#[test]
fn a_pipe_has_no_width() {
    let path = format!("/{}", "deep/".repeat(100));
    let table = rows(PIPE, [fixture::cgroup_kill(&path)]);
    assert!(table.trim_end().ends_with(&path), "{table}");
}

#[test]
fn a_terminal_that_tells_no_width_gets_80_columns() {
    assert_eq!(Layout::for_width(Some(0)), Layout::for_width(Some(80)));
}

#[test]
fn victims_of_one_group_kill_are_tied_together() {
    let alone = OomKill { incident: Incident { number: 3, victim: 1 }, ..fixture::cgroup_kill("/alone") };
    assert_snapshot!(rows(NARROW, group(1, 3).chain(group(2, 2)).chain([alone])), @r"
    TIME UTC PROCESS           MEMORY LIMIT             KIND  WHERE
    22:15:00 ┌ app[4242]      256 MiB cgroup 256 MiB    -     /batch
    22:15:00 ├ app[4242]      256 MiB cgroup 256 MiB    -     /batch
    22:15:00 ├ app[4242]      256 MiB cgroup 256 MiB    -     /batch
    22:15:00 ┌ app[4242]      256 MiB cgroup 256 MiB    -     /batch
    22:15:00 ├ app[4242]      256 MiB cgroup 256 MiB    -     /batch
    22:15:00 app[4242]        256 MiB cgroup 256 MiB    -     /alone
    ");
}

#[test]
fn later_victims_of_an_interrupted_group_begin_a_bracket_of_their_own() {
    let between = OomKill { incident: Incident { number: 2, victim: 1 }, ..fixture::cgroup_kill("/alone") };
    let mut victims = group(1, 3);
    let first = victims.next();
    let table = rows(NARROW, first.into_iter().chain([between]).chain(victims));
    let marks: Vec<char> = table.lines().skip(1).filter_map(|row| row.chars().nth(9)).collect();
    assert_eq!(marks, ['┌', 'a', '┌', '├']);
}

#[test]
fn names_of_several_bytes_a_letter_keep_the_columns_in_line() {
    let mut kill = fixture::cgroup_kill("/データ/処理");
    kill.mark.victim.leader_comm = Some(fixture::comm("日本語日本"));
    kill.mark.victim.tgid = Some(4_194_304);
    assert_snapshot!(rows(NARROW, [kill]), @r"
    TIME UTC PROCESS           MEMORY LIMIT             KIND  WHERE
    22:15:00 日本語…[4194304] 256 MiB cgroup 256 MiB    -     /データ/処理
    ");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let mut kill = fixture::kill_at("/x", Owner::Unit("\x1b]0;owned\x07.service".to_owned()));
    kill.mark.victim.leader_comm = Some(fixture::comm("\x1b[2Jx"));
    let table = rows(WIDE, [kill, fixture::cgroup_kill("/a\nb")]);
    assert!(!table.contains('\x1b') && !table.contains('\x07'), "{table:?}");
    assert_eq!(table.lines().count(), 3, "{table:?}");
}

#[test]
fn an_init_is_red_where_colours_are_allowed() {
    let init = || OomKill { process: Process::Init, ..fixture::container_kill() };
    assert!(rows(COLOUR, [init()]).contains("\x1b[31minit \x1b[0m"));
    assert!(rows(COLOUR, []).starts_with("\x1b[1mTIME UTC"));
    assert!(!rows(NARROW, [init()]).contains('\x1b'));
}

#[test]
fn a_resized_window_counts_from_the_next_batch() {
    let (table, _) = written(NARROW, |sink| {
        let long = Transition::OomKilled(Box::new(fixture::cgroup_kill(&"/deep".repeat(50))));
        sink.transition(&long)?;
        sink.screen = WIDE;
        sink.flush()?;
        sink.transition(&long)
    });
    let widths: Vec<usize> = table.lines().map(columns).collect();
    assert_eq!(widths, [80, 200]);
}

/// The life of a hang, and hangs of which less is known.
fn hangs() -> Vec<Hang> {
    let hang = fixture::hang();
    let mut likely = hang.clone();
    if let Some(Some(lock)) = &mut likely.event.lock {
        lock.kind = LockKind::RwsemWriter;
        lock.holder = lock.holder.map(|holder| Holder { likely: true, ..holder });
    }
    let mut free = hang.clone();
    (free.event.lock, free.event.task.pid) = (Some(None), free.event.task.tgid);
    let mut nobody = hang.clone();
    nobody.event.lock = nobody.event.lock.map(|lock| lock.map(|lock| Lock { holder: None, ..lock }));
    vec![
        hang.clone(),
        Hang { state: HangState::Sustained, hung: Duration::from_secs(135), ..hang.clone() },
        Hang { state: HangState::Ran, hung: Duration::from_secs(150), ..hang.clone() },
        Hang { state: HangState::Exited, hung: Duration::from_secs(9000), ..hang },
        likely,
        free,
        nobody,
        fixture::unknown_hang(),
    ]
}

fn hang_rows(screen: Screen, stacks: bool) -> String {
    let mut sink = Terminal::new(Vec::new(), Vec::new(), screen, fixture::UNITS).with_stacks(stacks);
    sink.started(&fixture::started()).expect("a Vec takes all");
    for hang in hangs() {
        sink.transition(&Transition::HungTask(Box::new(hang))).expect("a Vec takes all");
    }
    String::from_utf8(sink.table).expect("the table is UTF-8")
}

#[test]
fn hangs_in_80_columns() {
    let table = hang_rows(NARROW, false);
    assert!(table.lines().all(|line| columns(line) <= 80), "{table}");
    assert_snapshot!(table, @r"
    TIME UTC PROCESS           MEMORY LIMIT             KIND  WHERE
    22:15:00 app[4242]           12 s mutex side…[4300] hangs …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]         2m 15s mutex side…[4300] still …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]         2m 30s mutex side…[4300] ran   …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]         2h 30m mutex side…[4300] gone  …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]           12 s rwsem side…[4300] hangs …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]           12 s in __mutex_lock   hangs …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]           12 s mutex             hangs …t-7d9c6b5f4-x2v8k/app
    22:15:00 ?                   12 s ?                 hangs ?
    ");
}

#[test]
fn stacks_stand_below_hangs_that_begin_and_are_cut_at_the_width() {
    let table = hang_rows(NARROW, true);
    assert!(table.lines().all(|line| columns(line) <= 80), "{table}");
    assert_snapshot!(table, @r"
    TIME UTC PROCESS           MEMORY LIMIT             KIND  WHERE
    22:15:00 app[4242]           12 s mutex side…[4300] hangs …t-7d9c6b5f4-x2v8k/app
             thread worker[4243]
             waits for a mutex, held by flush[4301] in shop/cart-7d9c6b5f4-x2v8k/si…
             __mutex_lock.constprop.0+0x2f4
             ext4_map_blocks+0x12 [ext4]
             ?
    22:15:00 app[4242]         2m 15s mutex side…[4300] still …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]         2m 30s mutex side…[4300] ran   …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]         2h 30m mutex side…[4300] gone  …t-7d9c6b5f4-x2v8k/app
    22:15:00 app[4242]           12 s rwsem side…[4300] hangs …t-7d9c6b5f4-x2v8k/app
             thread worker[4243]
             waits for a rwsem, last seen held by flush[4301] in shop/cart-7d9c6b5f…
             __mutex_lock.constprop.0+0x2f4
             ext4_map_blocks+0x12 [ext4]
             ?
    22:15:00 app[4242]           12 s in __mutex_lock   hangs …t-7d9c6b5f4-x2v8k/app
             __mutex_lock.constprop.0+0x2f4
             ext4_map_blocks+0x12 [ext4]
             ?
    22:15:00 app[4242]           12 s mutex             hangs …t-7d9c6b5f4-x2v8k/app
             thread worker[4243]
             waits for a mutex
             __mutex_lock.constprop.0+0x2f4
             ext4_map_blocks+0x12 [ext4]
             ?
    22:15:00 ?                   12 s ?                 hangs ?
    ");
}

#[test]
fn a_hang_with_its_stack_on_a_wide_screen() {
    let table = hang_rows(WIDE, true);
    assert_snapshot!(table.lines().take(7).collect::<Vec<_>>().join("\n"), @r"
    TIME UTC  PROCESS                      MEMORY  LIMIT              KIND   WHERE
    22:15:00  app[4242]                      12 s  mutex side…[4300]  hangs  shop/cart-7d9c6b5f4-x2v8k/app
              thread worker[4243]
              waits for a mutex, held by flush[4301] in shop/cart-7d9c6b5f4-x2v8k/sidecar
              __mutex_lock.constprop.0+0x2f4
              ext4_map_blocks+0x12 [ext4]
              ?
    ");
}

#[test]
fn a_symbol_cannot_steer_the_terminal() {
    let mut hang = fixture::hang();
    hang.event.lock = None;
    hang.stack = vec![Frame { symbol: Some("\x1b[2Jf".into()), offset: 1, module: Some("\x07".into()) }];
    let mut sink = Terminal::new(Vec::new(), Vec::new(), WIDE, fixture::UNITS).with_stacks(true);
    sink.transition(&Transition::HungTask(Box::new(hang))).expect("a Vec takes all");
    let table = String::from_utf8(sink.table).expect("the table is UTF-8");
    assert!(!table.contains('\x1b') && !table.contains('\x07'), "{table:?}");
}

#[test]
fn banner_notices_and_closing_line_stand_beside_the_table() {
    let summary = Summary {
        kills: 3,
        incidents: 1,
        already_dying: 2,
        duplicates: 1,
        unresolved: 1,
        hangs: 2,
        hangs_open: 1,
        lost: 5,
        lost_ring: BTreeMap::from([("oom_mark", 3), ("cgroup_made", 0)]),
        lost_decode: BTreeMap::from([("short", 2)]),
        kernel_kills: Some(7),
        unaccounted: Some(4),
        differences: BTreeMap::from([("/a/b".to_owned(), 4)]),
    };
    let (table, beside) = written(NARROW, |sink| {
        sink.started(&fixture::started())?;
        sink.notice(&fixture::notice())?;
        sink.notice(&Notice { count: 1, message: "odd\x1bname".to_owned(), ..fixture::notice() })?;
        sink.summary(&summary)?;
        sink.summary(&Summary::default())
    });
    assert_eq!(table.lines().count(), 1, "{table}");
    assert_snapshot!(beside, @r"
    watching Linux 6.12.48: OOM kills by fentry, hung tasks by btf_tracepoint; 131 cgroups known; Ctrl-C ends
    notice: source ring_full, 2 times: the ring of OOM kills was full
    notice: source ring_full: odd�name
    seen 3 kills in 1 incident, 2 already dying, 1 duplicate, 2 hangs (1 open), unresolved 1, lost 5 (ring: oom_mark 3; decode: short 2); the kernel counted 7, difference 4 (/a/b 4)
    seen 0 kills in 0 incidents, 0 already dying, 0 duplicates, 0 hangs (0 open), unresolved 0, lost 0; the kernel's count is unknown
    ");
}
