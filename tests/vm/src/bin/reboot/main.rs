//! `reboot`: process 1 of a guest that panics, comes back and looks what it left. The host boots it three times with one
//! ERST store (`detector.round=1`, `2`, `3`) and carries the agent's note from one to the next, as a disk would.
//!
//! | round | agent | then |
//! |---|---|---|
//! | 1 | finds nothing | the kernel panics under it |
//! | 2 | finds the panic: a condition and one event; started again it tells the same condition and no event | it is told to stop, and the machine is turned off |
//! | 3 | finds nothing new, though the record is still there | |
//!
//! The agent is the real one; the API server is a stand-in that writes down what it is asked ([`api`]).
//!
//! What the host reads: `CASE previous-boot <round> ok|FAIL <reason>`, `NOTE <the agent's note>` and `VERDICT passed=<n>
//! failed=<n>`.

mod agent;
mod api;
mod machine;

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{agent::Agent, api::Api};

fn main() {
    if let Err(cause) = machine::prepare().and_then(|()| run()) {
        println!("GUEST {cause:#}");
    }
    machine::power_off();
}

fn run() -> Result<()> {
    let round: u32 = machine::parameter("detector.round=").context("the host says no round")?;
    let api = Api::start().context("standing in for the API server")?;
    let done = match round {
        1 => first(&api),
        2 => second(&api),
        3 => third(&api),
        _ => bail!("there is no round {round}"),
    };
    match &done {
        Ok(_) => println!("CASE previous-boot {round} ok"),
        Err(cause) => println!("CASE previous-boot {round} FAIL {}", format!("{cause:#}").replace('\n', " ")),
    }
    println!("NOTE {}", agent::note_text().unwrap_or_default().trim());
    println!("VERDICT passed={} failed={}", u32::from(done.is_ok()), u32::from(done.is_err()));
    if let (1, Ok(agent)) = (round, done) {
        // It runs until the end.
        std::mem::forget(agent);
        fs::write("/proc/sysrq-trigger", "c").context("asking the kernel to panic")?;
    }
    Ok(())
}

fn first(api: &Api) -> Result<Option<Agent>> {
    let agent = Agent::start()?;
    let condition = api.condition(0)?;
    ensure!(condition["status"] == "False", "a machine that boots for the first time: {condition}");
    Ok(Some(agent))
}

fn second(api: &Api) -> Result<Option<Agent>> {
    let before = agent::note()?;
    let agent = Agent::start()?;
    let condition = api.condition(0)?;
    let event = api.event("KernelPanicFound")?;
    let seen = api.requests();
    agent.stop()?;
    let message = condition["message"].as_str().unwrap_or_default().to_owned();
    ensure!((&condition["status"], &condition["reason"]) == (&"True".into(), &"KernelPanic".into()), "{condition}");
    let boot = before["boot"]["id"].as_str().context("the note names no boot")?;
    ensure!(message.starts_with(&format!("The boot before ({boot}) ended in a kernel panic at ")), "{message}");
    let line = ", by pstore (erst): Kernel panic - not syncing: sysrq triggered crash";
    ensure!(message.contains(line), "the decisive line does not come first: {message}");
    ensure!(event["note"] == condition["message"], "{event}");
    let now = agent::note()?;
    let (earliest, latest) = (second_of(&before["boot"]["alive"])?, second_of(&now["boot"]["began"])?);
    let time = second_of(&event["eventTime"])?;
    ensure!(earliest <= time && time <= latest, "the panic was between {earliest} and {latest}, told as {time}");

    let agent = Agent::start()?;
    let again = api.condition(seen)?;
    agent.stop()?;
    ensure!(again["status"] == "True" && again["message"] == condition["message"], "after a restart: {again}");
    let events = api.events();
    ensure!(events.len() == 1, "{} events: {events:?}", events.len());
    ensure!(machine::records()? > 0, "the record was deleted");
    Ok(None)
}

fn third(api: &Api) -> Result<Option<Agent>> {
    let agent = Agent::start()?;
    let condition = api.condition(0)?;
    agent.stop()?;
    ensure!(
        condition["status"] == "False",
        "the panic is told once more, or the end in order is not known: {condition}"
    );
    let events = api.events();
    ensure!(events.is_empty(), "{events:?}");
    ensure!(machine::records()? > 0, "the record was deleted");
    Ok(None)
}

/// An RFC 3339 time up to its second: such texts sort like times.
fn second_of(time: &Value) -> Result<&str> {
    time.as_str().and_then(|time| time.get(..19)).with_context(|| format!("{time} is no time"))
}
