//! What outlives a process: each kill once, though the reader is killed in between; what is found is adopted or replaced,
//! never doubled; what is removed is gone.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use detector_kernel_tests::{
    keeper::{Place, stay_on_this_cpu},
    provoke,
};
use detector_provoke::{Cgroup, Hierarchy, Limits, scenario};
use serde_json::Value;

const LIMIT: Limits = Limits::mib(8);

/// Kills in a cgroup, caused by a process of their own, so that they go on while a reader is away.
struct Burst(Child);

impl Burst {
    fn start(name: &str, kills: usize) -> Result<Self> {
        let words = ["oom", "--cgroup", name, "--limit-mib", "8", "--parallel", "2", "--kills", &kills.to_string()];
        let provoke = Command::new(provoke()?).args(words).stdout(Stdio::piped()).spawn();
        provoke.map(Self).context("starting provoke")
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Waits for its end and gives the id that its cgroup had.
    fn end(self) -> Result<u64> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "provoke ended with {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = text.split_whitespace().find_map(|word| word.strip_prefix("id=")?.parse().ok());
        id.with_context(|| format!("provoke said {text}"))
    }
}

/// Processes killed in the cgroup that were told, and whether each was told once.
fn told(ended: &Value, cgroup: u64) -> (usize, bool) {
    let told = ended["told"][cgroup.to_string()].as_object();
    told.map_or((0, true), |told| (told.len(), told.values().all(|times| *times == 1)))
}

/// What the kernel side counted in the cgroup.
fn counted(ended: &Value, cgroup: u64) -> Option<u64> {
    let counts = ended["counts"].as_array()?;
    counts.iter().find(|count| count[0][1] == cgroup).and_then(|count| count[1].as_u64())
}

#[test]
fn a_reader_that_is_killed_again_and_again_tells_each_kill_once() -> Result<()> {
    const KILLS: usize = 600;
    let place = Place::make("killed")?;
    let first = place.start(&[])?;
    ensure!(first.all_are("kept"), "{}", first.started);
    let programs = first.programs();
    first.kill()?;
    let mut burst = Burst::start("detector-test-killed", KILLS)?;
    // Each takes some, at another distance from the last saved state, and is killed; meanwhile kills go on.
    for (round, count) in [1, 13, 20, 5, 30, 22].into_iter().enumerate() {
        if burst.has_ended()? {
            ensure!(round > 2, "the burst ended after {round} rounds: the machine is too slow for this test");
            break;
        }
        let reader = place.start(&[])?;
        ensure!(reader.all_are("adopted"), "{}", reader.started);
        assert_eq!(reader.programs(), programs, "other programs are attached");
        reader.kills(None, count)?;
        reader.kill()?;
    }
    let id = burst.end()?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(told(&ended, id), (KILLS, true), "{ended}");
    assert_eq!(counted(&ended, id), Some(KILLS as u64), "{ended}");
    assert_eq!(ended["dropped"], 0);
    Ok(())
}

#[test]
fn kills_that_fit_into_no_ring_are_still_counted() -> Result<()> {
    const KILLS: usize = 1500;
    let place = Place::make("overflow")?;
    place.start(&[])?.kill()?;
    let id = Burst::start("detector-test-overflow", KILLS)?.end()?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(counted(&ended, id), Some(KILLS as u64), "{}", ended["counts"]);
    let (seen, once) = told(&ended, id);
    ensure!(once && seen < KILLS, "{seen} told");
    ensure!(ended["dropped"].as_u64() >= Some((KILLS - seen) as u64), "{seen} told, {} dropped", ended["dropped"]);
    Ok(())
}

#[test]
fn another_build_takes_over_without_a_gap_and_without_telling_twice() -> Result<()> {
    const KILLS: usize = 600;
    let place = Place::make("upgrade")?;
    place.start(&[])?.kill()?;
    let mut before = place.generation()?;
    let burst = Burst::start("detector-test-upgrade", KILLS)?;
    for build in 1000..1004 {
        let reader = place.start(&[&format!("hierarchy={build}")])?;
        ensure!(reader.all_are("kept") && reader.started["adopted_maps"] == true, "{}", reader.started);
        let now = place.generation()?;
        assert_ne!(now, before);
        before = now;
        reader.kills(None, 10)?;
        reader.stop()?;
    }
    let id = burst.end()?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(told(&ended, id), (KILLS, true), "{ended}");
    assert_eq!(counted(&ended, id), Some(KILLS as u64), "{ended}");
    Ok(())
}

#[test]
fn what_is_damaged_is_replaced_and_nothing_is_told_twice() -> Result<()> {
    let (place, hierarchy) = (Place::make("damaged")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-damaged", LIMIT)?;
    place.start(&[])?.kill()?;
    let (maps, generation) = (place.pins().join("abi-1/maps"), place.generation()?);
    // A hash in place of a ring, a program in place of a link, nothing in place of another, a directory in place of a map.
    fs::rename(maps.join("SIGNALS"), maps.join("PRECIOUS"))?;
    fs::remove_file(maps.join("COUNTERS"))?;
    fs::create_dir(maps.join("COUNTERS"))?;
    fs::create_dir(maps.join("UNHEARD_OF"))?;
    let links = generation.join("links");
    fs::rename(generation.join("programs/signal_generate"), links.join("oom-signal_generate-signal_generate"))?;
    fs::remove_file(links.join("oom-mark_victim_task-mark_victim"))
        .or_else(|_| fs::remove_file(links.join("oom-mark_victim_pid-mark_victim")))?;
    let reader = place.start(&[])?;
    assert_eq!(reader.started["replaced_maps"], serde_json::json!(["COUNTERS", "PRECIOUS"]), "{}", reader.started);
    ensure!(reader.all_are("kept"), "{}", reader.started);
    ensure!(!generation.exists() && !maps.join("UNHEARD_OF").exists());
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    let ended = reader.stop()?;
    assert_eq!((told(&ended, leaf.id()?), counted(&ended, leaf.id()?)), ((1, true), Some(1)), "{ended}");
    Ok(())
}

#[test]
fn a_missing_or_foreign_link_is_attached_anew_beside_those_that_hold() -> Result<()> {
    let (place, hierarchy) = (Place::make("link")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-link", LIMIT)?;
    place.start(&[])?.kill()?;
    let links = place.generation()?.join("links");
    // The link of another program under the name of this one, and none for the other.
    fs::rename(links.join("cgroup_life-cgroup_mkdir-cgroup_mkdir"), links.join("oom-signal_generate-signal_generate"))?;
    let reader = place.start(&[])?;
    let lasting = |program: &str| {
        let links = reader.started["attachments"].as_array().cloned().unwrap_or_default();
        links.into_iter().find(|link| link["program"] == program).map(|link| link["lasting"].clone())
    };
    assert_eq!(lasting("signal_generate"), Some("kept".into()), "{}", reader.started);
    assert_eq!(lasting("cgroup_mkdir"), Some("kept".into()), "{}", reader.started);
    assert_eq!(lasting("cgroup_rmdir"), Some("adopted".into()), "{}", reader.started);
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    let ended = reader.stop()?;
    assert_eq!((told(&ended, leaf.id()?), counted(&ended, leaf.id()?)), ((1, true), Some(1)), "{ended}");
    Ok(())
}

#[test]
fn what_another_version_left_is_counted_and_removed() -> Result<()> {
    let (place, hierarchy) = (Place::make("abi")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-abi", LIMIT)?;
    place.start(&[])?.kill()?;
    scenario::single_child(&leaf)?;
    fs::rename(place.pins().join("abi-1"), place.pins().join("abi-9"))?;
    let reader = place.start(&[])?;
    let abandoned = reader.started["abandoned"].as_array().cloned().unwrap_or_default();
    let [abandoned] = abandoned.as_slice() else { anyhow::bail!("{}", reader.started) };
    assert_eq!(abandoned["name"], "abi-9");
    ensure!(abandoned["count"].as_u64() >= Some(1), "{abandoned}");
    ensure!(!place.pins().join("abi-9").exists() && reader.all_are("kept"));
    // The other version writes no more, and ours does.
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    let ended = reader.stop()?;
    assert_eq!((told(&ended, leaf.id()?), counted(&ended, leaf.id()?)), ((1, true), Some(1)), "{ended}");
    Ok(())
}

#[test]
fn another_version_takes_over_while_kills_go_on_and_each_is_told_or_counted_as_lost() -> Result<()> {
    const KILLS: usize = 500;
    let place = Place::make("versions")?;
    place.start(&[])?.kill()?;
    let mut burst = Burst::start("detector-test-versions", KILLS)?;
    let mut abandoned = Vec::new();
    for round in 0..4 {
        ensure!(
            !burst.has_ended()? || round > 1,
            "the burst ended after {round} rounds: a machine too slow for this test"
        );
        fs::rename(place.pins().join("abi-1"), place.pins().join("abi-9"))?;
        let reader = place.start(&[])?;
        abandoned.push(reader.started["abandoned"][0].clone());
        reader.kills(None, 10)?;
        reader.stop()?;
    }
    let id = burst.end()?;
    let ended = place.start(&[])?.stop()?;
    // One of the versions counted each, and none was counted by two.
    let sum: u64 = abandoned.iter().chain([&ended]).filter_map(|counts| counted(counts, id)).sum();
    assert_eq!(sum, KILLS as u64, "{abandoned:?} {ended}");
    let (seen, once) = told(&ended, id);
    // Others on this machine may have lost some, too.
    let lost: u64 = abandoned.iter().filter_map(|one| one["count"].as_u64()).sum();
    ensure!(once && seen as u64 + lost >= KILLS as u64, "{seen} told and {lost} lost: {ended}");
    Ok(())
}

#[test]
fn a_ring_that_was_set_aside_is_read_to_its_end_by_whoever_comes_next() -> Result<()> {
    let (place, hierarchy) = (Place::make("aside")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-aside", LIMIT)?;
    place.start(&[])?.kill()?;
    scenario::single_child(&leaf)?;
    let maps = place.pins().join("abi-1/maps");
    let aside = maps.join("PRECIOUS-0000000001");
    fs::rename(maps.join("PRECIOUS"), &aside)?;
    let reader = place.start(&[])?;
    reader.kills(Some(leaf.id()?), 1)?;
    Place::gone(&aside)?;
    // Told and not saved: it is in the spool.
    reader.kill()?;
    scenario::single_child(&leaf)?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(told(&ended, leaf.id()?), (2, true), "{ended}");
    Ok(())
}

#[test]
fn counts_that_were_forgotten_make_room_and_begin_anew() -> Result<()> {
    let (place, hierarchy) = (Place::make("forget")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-forget", LIMIT)?;
    place.start(&[])?.kill()?;
    scenario::single_child(&leaf)?;
    let ended = place.start(&["forget"])?.stop()?;
    assert_eq!((counted(&ended, leaf.id()?), &ended["left"]), (Some(1), &0.into()), "{ended}");
    scenario::single_child(&leaf)?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(counted(&ended, leaf.id()?), Some(1), "{ended}");
    Ok(())
}

#[test]
fn what_is_replaced_or_off_is_kept_no_more() -> Result<()> {
    let place = Place::make("off")?;
    let of_hangs = || -> Result<Vec<String>> {
        let links = fs::read_dir(place.generation()?.join("links"))?.collect::<Result<Vec<_>, _>>()?;
        let names = links.iter().map(|link| link.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with("hung_task-")).collect())
    };
    place.start(&["hung_task=btf_tracepoint"])?.kill()?;
    assert_eq!(of_hangs()?, ["hung_task-hung_task_btf-sched_process_hang"]);
    place.start(&["hung_task=raw_tracepoint"])?.kill()?;
    assert_eq!(of_hangs()?, ["hung_task-hung_task_raw-sched_process_hang"]);
    place.start(&["hung_task=off"])?.stop()?;
    assert_eq!(of_hangs()?, [""; 0]);
    Ok(())
}

#[test]
fn there_is_one_at_a_time_and_cleaning_up_leaves_nothing() -> Result<()> {
    let place = Place::make("clean")?;
    let reader = place.start(&[])?;
    ensure!(place.start(&[]).is_err(), "a second one was let in");
    let refused = place.clean()?;
    ensure!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("another detector uses it"));
    let links = reader.programs().len();
    reader.stop()?;
    let cleaned: Value = serde_json::from_slice(&place.clean()?.stdout)?;
    assert_eq!(cleaned["links"], links, "{cleaned}");
    ensure!(!place.pins().exists());
    let again: Value = serde_json::from_slice(&place.clean()?.stdout)?;
    assert_eq!(again, serde_json::json!({ "links": 0, "paths": [] }));
    Ok(())
}

#[test]
fn without_a_bpf_file_system_it_works_and_says_that_nothing_is_kept() -> Result<()> {
    let (place, hierarchy) = (Place::make("none")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-none", LIMIT)?;
    let elsewhere = std::env::temp_dir().join("detector-test-no-bpf");
    let reader = place.start_at(&elsewhere, &[])?;
    let reason = reader.started["not_kept"].as_str().unwrap_or_default();
    ensure!(reason.contains("is not on a BPF file system") && reader.all_are("process"), "{}", reader.started);
    ensure!(!elsewhere.exists());
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    Ok(())
}

#[test]
fn on_a_read_only_file_system_it_works_and_says_why_nothing_is_kept() -> Result<()> {
    let (place, hierarchy) = (Place::make("readonly")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-readonly", LIMIT)?;
    place.set_read_only(true)?;
    let reader = place.start(&[])?;
    let reason = reader.started["not_kept"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("making the directory") && reader.all_are("process"), "{}", reader.started);
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    Ok(())
}

#[test]
fn without_pins_a_restart_in_the_same_boot_hides_no_kill() -> Result<()> {
    stay_on_this_cpu()?;
    let (place, hierarchy) = (Place::make("unpinned")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-unpinned", LIMIT)?;
    let elsewhere = std::env::temp_dir().join("detector-test-no-bpf");
    for _ in 0..3 {
        let reader = place.start_at(&elsewhere, &[])?;
        ensure!(reader.all_are("process"), "{}", reader.started);
        scenario::single_child(&leaf)?;
        reader.kills(Some(leaf.id()?), 1)?;
        reader.stop()?;
    }
    let ended = place.start_at(&elsewhere, &[])?.stop()?;
    assert_eq!(told(&ended, leaf.id()?), (3, true), "{ended}");
    Ok(())
}

#[test]
fn a_file_system_that_is_read_only_for_a_while_hides_no_kill_and_has_none_told_twice() -> Result<()> {
    stay_on_this_cpu()?;
    let (place, hierarchy) = (Place::make("meanwhile")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-meanwhile", LIMIT)?;
    for is_read_only in [false, true, false, true, false] {
        place.set_read_only(is_read_only)?;
        let reader = place.start(&[])?;
        ensure!(reader.all_are("process") == is_read_only, "{}", reader.started);
        for _ in 0..2 {
            scenario::single_child(&leaf)?;
        }
        reader.kills(Some(leaf.id()?), 2)?;
        reader.stop()?;
    }
    // While nobody runs, those that are pinned watch.
    scenario::single_child(&leaf)?;
    let ended = place.start(&[])?.stop()?;
    assert_eq!(told(&ended, leaf.id()?), (11, true), "{ended}");
    Ok(())
}

#[test]
fn a_file_system_that_was_taken_away_hides_no_kill() -> Result<()> {
    stay_on_this_cpu()?;
    let (place, hierarchy) = (Place::make("away")?, Hierarchy::find()?);
    let leaf = Cgroup::make(&hierarchy, "detector-test-away", LIMIT)?;
    let reader = place.start(&[])?;
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    reader.stop()?;
    place.unmount()?;
    let reader = place.start(&[])?;
    ensure!(reader.all_are("process"), "{}", reader.started);
    scenario::single_child(&leaf)?;
    reader.kills(Some(leaf.id()?), 1)?;
    let ended = reader.stop()?;
    assert_eq!(told(&ended, leaf.id()?), (2, true), "{ended}");
    Ok(())
}
