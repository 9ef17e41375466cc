//! All deaths of a run, arranged so that as much as possible happens at the same time. Each is of another boot, and so an
//! incident of its own.
//!
//! | | the new kernel's node | the old kernel's node |
//! |---|---|---|
//! | 1 | a container has it panic | takes what moves |
//! | 2 | reboots, finds the record of its panic | is without power, and boots |
//! | 3 | stands still | is without network |

use anyhow::{Result, bail};

use crate::{
    mortal::{Mortal, is_open},
    panic,
    silent::Silence,
    stage::Stage,
    times::Times,
    workload::Workload,
};

/// How often the node may panic until netconsole sends all of it: on Linux 6.12 it was seen to stop in the middle once in some
/// forty panics (`docs/last-words.md`).
const PANICS: usize = 3;

#[tokio::test]
async fn a_panic_a_power_cut_a_stall_and_a_cut_network_are_told_apart_and_only_the_panic_moves_pods() -> Result<()> {
    let mut times = Times::since("The whole test, seconds", tokio::time::Instant::now());
    let stage = Stage::set("deaths").await?;
    // Kernels that can tell who they are: the rig's network shows no addresses (userdata, from 6.9 on).
    let (mut new, mut old) = (stage.mortal(false).await?, stage.mortal(true).await?);
    times.now("nodes and controllers are ready");
    let (workload, panic) = panic_that_is_heard(&stage, &mut new, &mut times).await?;
    times.now("1: the panic is told and all has moved");
    let mut power = Silence::begin(&mut old, &workload).await?;
    let (back, lost) = tokio::join!(panic::comes_back(&mut new, &panic), power.of_power());
    back?;
    lost?;
    times.now("2: both nodes have booted, and their incidents know it");
    new.lives_anew().await?;
    old.lives_anew().await?;
    workload.spreads_to(&new.node).await?;
    times.now("pods run on both nodes");
    let mut frozen = Silence::begin(&mut new, &workload).await?;
    let mut cut = Silence::begin(&mut old, &workload).await?;
    let (stood, unheard) = tokio::join!(frozen.of_a_machine_that_stands_still(), cut.of_network());
    stood?;
    unheard?;
    times.now("3: both nodes are back, and their incidents know what it was");
    stage.clear().await?;
    times.print();
    Ok(())
}

/// Has a node panic under a workload; gives that and the incident.
async fn panic_that_is_heard(stage: &Stage, new: &mut Mortal, times: &mut Times) -> Result<(Workload, String)> {
    for _ in 0..PANICS {
        let workload = Workload::start(&stage.rig, "deaths", &new.node).await?;
        times.now("all pods run");
        if let Some(incident) = panic::is_told_and_its_pods_move(new, &workload).await? {
            return Ok((workload, incident));
        }
        println!("{}: netconsole fell silent before the console did; it panics again", new.node.name());
        new.machine.reset().await?;
        new.machine.thaw().await?;
        new.when_booted().await?;
        new.when_node("it takes pods again", is_open).await?;
        new.lives_anew().await?;
    }
    bail!("of {PANICS} panics nobody heard the end")
}
