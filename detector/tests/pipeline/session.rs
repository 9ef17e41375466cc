//! One run of the flow over a fake machine, and the lines that came out.

use std::{cell::Cell, path::Path, time::Duration};

use detector::{
    agent::{
        AgentError, Detector, Method, Sink,
        locate::{InPlace, LocatorSnapshot, NameReader},
        pipeline::{Pipeline, Progress},
        sink::{Started, Status, Units, json::Json},
    },
    clock::WallClock,
};
use serde_json::Value;

use crate::{machine::Machine, recording::Recording};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Pages and clock of the machine of the recordings; its boot is moved to a round time.
pub(crate) const UNITS: Units = Units { page_size: 4096, wall: WallClock::with_offset(1_700_000_000_000_000_000) };

/// A run: the machine, the time, and the number of kills after which it ends.
pub(crate) struct Session<'a> {
    machine: &'a Machine,
    now: Cell<u64>,
    /// What passes with each look at the clock.
    pace: Cell<u64>,
    count: Option<u64>,
    reader: fn(&Path) -> Box<dyn NameReader>,
}

impl<'a> Session<'a> {
    /// Starts after boot and before any recorded kill.
    pub(crate) fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            now: Cell::new(SECOND),
            pace: Cell::new(0),
            count: None,
            reader: |root| Box::new(InPlace::new(root)),
        }
    }

    pub(crate) fn with_count(machine: &'a Machine, count: u64) -> Self {
        Self { count: Some(count), ..Self::new(machine) }
    }

    /// Names are read so, and not at once.
    pub(crate) fn with_reader(self, reader: fn(&Path) -> Box<dyn NameReader>) -> Self {
        Self { reader, ..self }
    }

    /// Time passes.
    pub(crate) fn pass(&self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
    }

    /// From now on each look at the clock finds it later by this.
    pub(crate) fn set_pace(&self, nanoseconds: u64) {
        self.pace.set(nanoseconds);
    }

    pub(crate) fn set_time(&self, boot_ns: u64) {
        self.now.set(boot_ns);
    }

    /// Runs the flow from its first line to its last, with `script` in between.
    pub(crate) fn run(&self, records: &mut Recording, script: impl FnOnce(&mut Pipeline<'_>, &mut Recording)) -> Lines {
        let mut out = Vec::new();
        let mut sink = Json::new(&mut out, UNITS);
        self.run_into(&mut sink, records, |pipeline, records| {
            script(pipeline, records);
            Ok(())
        })
        .expect("a Vec takes all");
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        Lines(text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect())
    }

    /// The same with any sink and a script that may fail.
    pub(crate) fn run_into(
        &self,
        sink: &mut dyn Sink,
        records: &mut Recording,
        script: impl FnOnce(&mut Pipeline<'_>, &mut Recording) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        self.resume_into(sink, records, &LocatorSnapshot::default(), script)
    }

    /// The same after an earlier run that wrote down `snapshot`.
    pub(crate) fn resume_into(
        &self,
        sink: &mut dyn Sink,
        records: &mut Recording,
        snapshot: &LocatorSnapshot,
        script: impl FnOnce(&mut Pipeline<'_>, &mut Recording) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        let now = || {
            self.pass(self.pace.get());
            self.now.get()
        };
        let (root, reader) = (self.machine.root(), (self.reader)(self.machine.root()));
        let mut pipeline = Pipeline::resume(sink, root, self.count, &now, reader, snapshot)?;
        let started = Started {
            boot_ns: now(),
            kernel: "6.18.44".into(),
            boot_id: "6a1f2f0e-6f0b-4c55-9d35-3b1c52a0a111".into(),
            detectors: vec![Status {
                detector: Detector::Oom,
                method: Some(Method::RawTracepoint),
                refused: vec![(Method::Fentry, "attaching program".to_owned())],
            }],
            cgroups: pipeline.cgroups(),
            attached_after: Duration::from_millis(50),
        };
        pipeline.set_method(Detector::Oom, Some(Method::RawTracepoint));
        pipeline.set_method(Detector::HungTask, Some(Method::BtfTracepoint));
        pipeline.begin(&started)?;
        script(&mut pipeline, records)?;
        pipeline.finish(records).map(|_| ())
    }
}

/// Reads all records that are ready.
pub(crate) fn drain(pipeline: &mut Pipeline<'_>, records: &mut Recording) -> Progress {
    pipeline.drain(records).expect("a Vec takes all")
}

/// What the flow says of `records`, all read in one batch, on a machine with nothing else on it.
pub(crate) fn told(mut records: Recording) -> Lines {
    let machine = Machine::version_1();
    Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    })
}

/// All lines of a run.
pub(crate) struct Lines(pub(crate) Vec<Value>);

impl Lines {
    pub(crate) fn of_type(&self, name: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["type"] == name).collect()
    }

    pub(crate) fn kills(&self) -> Vec<&Value> {
        self.of_type("oom_kill")
    }

    /// The only kill.
    pub(crate) fn kill(&self) -> &Value {
        match self.kills().as_slice() {
            [kill] => kill,
            kills => panic!("{} kills, not one: {kills:?}", kills.len()),
        }
    }

    /// Stage, kind and count of each notice.
    pub(crate) fn notices(&self) -> Vec<(&str, &str, u64)> {
        let told = |notice: &'_ Value| notice["count"].as_u64().expect("a number");
        let notices = self.of_type("notice").into_iter();
        notices.map(|notice| (text(&notice["stage"]), text(&notice["kind"]), told(notice))).collect()
    }

    /// The last line.
    pub(crate) fn summary(&self) -> &Value {
        let last = self.0.last().expect("some lines");
        assert_eq!(last["type"], "summary");
        last
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
