//! Keeps the kernel side as the agent does, for the tests of what outlives a process: attaches with pins, takes kills
//! through a spool, and saves what it took in a file, all of it so that it may be killed at any moment.
//!
//! `keeper run PINS STATE [METHOD]…` prints one JSON line when it is attached and one for each kill; ends with SIGTERM.
//! METHOD is `oom=METHOD`, `hung_task=METHOD`, `hung_task=off`, or `hierarchy=NUMBER`, which makes other programs of the
//! kernel side: as another build of it would; or `forget`, which forgets all counts at the end. `keeper clean PINS` removes
//! all that is kept.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use detector::agent::{
    locate::Hierarchy,
    options::{Detector, Method},
    source::{
        Records,
        bpf::{attach::AttachError, offsets::Offsets, probe::Probe},
        machine::Machine,
        pin::{self, Lasting, Pins},
        spool::{Moment, Seen, Spool},
    },
};
use detector_common::{
    counter::Ring,
    oom::{OomMark, flags},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use zerocopy::FromBytes;

/// Kills after which the state is saved: often enough to be met by a SIGKILL on both sides of it.
const SAVE_EVERY: usize = 7;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", pins, state, methods @ ..] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&Pins::below(pins), Path::new(state), methods))
        }
        ["clean", pins] => {
            let removed = pin::remove_all(&Pins::below(pins))?;
            println!("{}", json!({ "links": removed.links, "paths": removed.paths }));
            Ok(())
        }
        _ => bail!("there is no such command: {words:?}"),
    }
}

/// What survives this process beside the pins.
#[derive(Default, Serialize, Deserialize)]
struct State {
    boot_id: String,
    seen: Vec<(u32, Moment)>,
    /// Id of a cgroup → process → how often its kill was told.
    told: BTreeMap<u64, BTreeMap<u32, u32>>,
}

struct Keeper {
    probe: Probe,
    state: State,
    seen: Seen,
    file: PathBuf,
    unsaved: usize,
}

async fn run(pins: &Pins, directory: &Path, methods: &[&str]) -> Result<()> {
    // Before it says that it runs: whoever reads that may end it at once.
    let mut end = signal(SignalKind::terminate())?;
    let root = Path::new("/");
    let boot_id = Machine::read(root)?.boot_id;
    let file = directory.join("state.json");
    let saved = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let state = saved.filter(|state: &State| state.boot_id == boot_id);
    let state = state.unwrap_or_else(|| State { boot_id: boot_id.clone(), ..State::default() });
    let mut spool = Spool::open(&directory.join("spool"), &boot_id)?;
    let left: Vec<_> = std::iter::from_fn(|| spool.take_left()).collect();
    let offsets = Offsets::read(root).unwrap_or_else(|_| Offsets::unknown());
    let hierarchy = match methods.iter().find_map(|word| word.strip_prefix("hierarchy=")) {
        Some(number) => number.parse()?,
        None => Hierarchy::find(root)?.number,
    };
    let mut probe = Probe::start(offsets, hierarchy, Some(pins))?;
    probe.set_spool(spool);
    let attached = attach(&mut probe, methods)?;
    probe.settle();
    println!("{}", started(&probe, &attached, left.len()));
    let seen = Seen::restore(state.seen.iter().copied());
    let mut keeper = Keeper { probe, state, seen, file, unsaved: 0 };
    for record in &left {
        keeper.take(record)?;
    }
    loop {
        keeper.drain()?;
        tokio::select! {
            ready = keeper.probe.precious.wait() => ready?,
            ready = keeper.probe.bulk.wait() => ready?,
            _ = end.recv() => break,
        }
    }
    keeper.drain()?;
    keeper.save()?;
    let counted = keeper.probe.kills.all()?.kills;
    if methods.contains(&"forget") {
        counted.iter().filter_map(|one| one.cgroup).try_for_each(|cgroup| keeper.probe.kills.forget(cgroup))?;
    }
    let left = keeper.probe.kills.all()?.kills.len();
    let counts: Vec<_> = counted.iter().map(|one| json!([one.cgroup, one.kills])).collect();
    let dropped = keeper.probe.dropped()?.iter().map(|dropped| dropped.count).sum::<u64>();
    let told = &keeper.state.told;
    println!("{}", json!({ "type": "ended", "counts": counts, "left": left, "dropped": dropped, "told": told }));
    Ok(())
}

/// The best method of each detector that works, or the one that was asked for.
fn attach(probe: &mut Probe, methods: &[&str]) -> Result<BTreeMap<&'static str, &'static str>> {
    let mut attached = BTreeMap::new();
    attached.insert("cgroup_life", probe.attach_cgroup_life()?.name());
    for detector in Detector::ALL.into_iter().filter(|detector| detector.tells()) {
        let asked = methods.iter().find_map(|word| word.strip_prefix(detector.name())?.strip_prefix('='));
        if asked == Some("off") {
            continue;
        }
        let order = match asked {
            Some(name) => vec![detector.method_of_name(name)?],
            None => detector.methods().to_vec(),
        };
        let mut refused: Option<AttachError> = None;
        for method in order.into_iter().filter(|method| *method != Method::Kmsg) {
            match probe.attach(detector, method) {
                Ok(_) => {
                    attached.insert(detector.name(), method.name());
                    break;
                }
                Err(error) => refused = Some(error),
            }
        }
        if let (false, Some(error)) = (attached.contains_key(detector.name()), refused) {
            return Err(error).context(detector.name());
        }
    }
    Ok(attached)
}

fn started(probe: &Probe, methods: &BTreeMap<&str, &str>, replayed: usize) -> serde_json::Value {
    let attachments = probe.attachments().into_iter().map(|link| {
        let lasting = match link.lasting {
            Lasting::Process => "process",
            Lasting::Adopted => "adopted",
            Lasting::Kept => "kept",
            Lasting::NotKeepable => "not_keepable",
        };
        let detector = link.detector.map(Detector::name);
        json!({ "detector": detector, "program": link.program, "hook": link.hook.to_string(), "lasting": lasting, "id": link.program_id })
    });
    let abandoned = probe.abandoned().iter().map(|one| {
        let counts = one.kills.iter().flat_map(|counts| &counts.kills).map(|one| json!([one.cgroup, one.kills]));
        json!({ "name": one.name, "count": one.count(), "counts": counts.collect::<Vec<_>>() })
    });
    json!({
        "type": "started",
        "methods": methods,
        "attachments": attachments.collect::<Vec<_>>(),
        "adopted_maps": probe.adopted_maps(),
        "replaced_maps": probe.replaced_maps(),
        "abandoned": abandoned.collect::<Vec<_>>(),
        "not_kept": probe.not_kept().map(ToString::to_string),
        "replayed": replayed,
    })
}

impl Keeper {
    fn drain(&mut self) -> Result<()> {
        let mut record = Vec::new();
        while self.probe.next(Ring::Bulk, &mut record) {}
        while self.probe.next(Ring::Precious, &mut record) {
            if let Some(trouble) = self.probe.spool().and_then(Spool::take_trouble) {
                bail!(trouble);
            }
            self.take(&record)?;
        }
        Ok(())
    }

    /// One record: told if it is a kill and new, saved now and then.
    fn take(&mut self, record: &[u8]) -> Result<()> {
        let Ok(mark) = OomMark::read_from_bytes(record) else { return Ok(()) };
        if !self.seen.is_new(mark.header.cpu, Moment::of(&mark.header)) {
            return Ok(());
        }
        if mark.flags & flags::REAL_KILL != 0 {
            let pid = if mark.victim.tgid == 0 { mark.victim.pid } else { mark.victim.tgid };
            *self.state.told.entry(mark.victim.cgroup.id).or_default().entry(pid).or_default() += 1;
            println!("{}", json!({ "type": "kill", "pid": pid, "cgroup": mark.victim.cgroup.id }));
        }
        self.unsaved += 1;
        if self.unsaved >= SAVE_EVERY { self.save() } else { Ok(()) }
    }

    /// The state first, whole or not at all; then what led to it.
    fn save(&mut self) -> Result<()> {
        self.state.seen = self.seen.snapshot().collect();
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.state)?)?;
        fs::rename(&new, &self.file)?;
        self.unsaved = 0;
        Ok(self.probe.spool().map_or(Ok(()), Spool::clear)?)
    }
}
