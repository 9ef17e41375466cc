//! What was heard and what was not, in numbers: the metrics of [`crate::contract::metric::controller`].

use crate::{
    contract::metric::{
        Metric,
        controller::{
            self as metric, DatagramResult, FrameFault, Irregularity, LineKind, SenderResult, SourceKind, Telling,
            VoiceEnd,
        },
    },
    controller::decode::{frame::FrameError, reassemble},
};

/// Counters of one metric, in the order of its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally<const N: usize>([u64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Tally<N> {
    /// The counter at the place of a word.
    #[must_use]
    pub fn at(&self, place: usize) -> u64 {
        self.0.get(place).copied().unwrap_or(0)
    }

    fn add(&mut self, place: usize, more: u64) {
        if let Some(count) = self.0.get_mut(place) {
            *count += more;
        }
    }
}

/// All of them. They only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By [`DatagramResult`].
    pub datagrams: Tally<{ DatagramResult::ALL.len() }>,
    /// By [`FrameFault`].
    pub frames_refused: Tally<{ FrameFault::ALL.len() }>,
    /// By [`SenderResult`].
    pub records: Tally<{ SenderResult::ALL.len() }>,
    /// By [`LineKind`].
    pub lines: Tally<{ LineKind::ALL.len() }>,
    /// By [`Irregularity`].
    pub irregular: Tally<{ Irregularity::ALL.len() }>,
    /// By [`Telling`].
    pub evidence: Tally<{ Telling::ALL.len() }>,
    /// By [`VoiceEnd`].
    pub voices_ended: Tally<{ VoiceEnd::ALL.len() }>,
}

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Known and unknown sources that are remembered.
    pub sources: (usize, usize),
    /// Boots of Nodes whose lines are held.
    pub voices: usize,
    /// Bytes of these, roughly.
    pub voice_bytes: usize,
}

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric.
    pub metric: &'static Metric,
    /// Value of its only label, if it has one.
    pub word: Option<&'static str>,
    /// The value.
    pub value: u64,
}

impl Counts {
    pub(super) fn datagram(&mut self, result: DatagramResult) {
        self.datagrams.add(result as usize, 1);
    }

    pub(super) fn kernel_dropped(&mut self, all: u64) {
        let place = DatagramResult::KernelDropped as usize;
        self.datagrams.add(place, all.saturating_sub(self.datagrams.at(place)));
    }

    pub(super) fn frame_refused(&mut self, error: FrameError) {
        let fault = match error {
            FrameError::Empty => FrameFault::Empty,
            FrameError::Number => FrameFault::Number,
            FrameError::Endless => FrameFault::Endless,
            FrameError::Fragment => FrameFault::Fragment,
            FrameError::Excessive => FrameFault::Excessive,
        };
        self.frames_refused.add(fault as usize, 1);
    }

    pub(super) fn record(&mut self, sender: SenderResult) {
        self.records.add(sender as usize, 1);
    }

    pub(super) fn line(&mut self, kind: LineKind) {
        self.lines.add(kind as usize, 1);
    }

    pub(super) fn evidence(&mut self, why: Telling) {
        self.evidence.add(why as usize, 1);
    }

    pub(super) fn voice_ended(&mut self, why: VoiceEnd) {
        self.voices_ended.add(why as usize, 1);
    }

    /// What a stream went through since `before`.
    pub(super) fn stream(&mut self, before: reassemble::Counts, after: reassemble::Counts) {
        let mut add = |kind: Irregularity, count: fn(&reassemble::Counts) -> u64| {
            self.irregular.add(kind as usize, count(&after).saturating_sub(count(&before)));
        };
        add(Irregularity::Torn, |counts| counts.torn);
        add(Irregularity::Duplicate, |counts| counts.duplicates);
        add(Irregularity::Late, |counts| counts.late);
        add(Irregularity::Refused, |counts| counts.refused);
        add(Irregularity::Reboot, |counts| counts.reboots);
    }

    /// All metrics that these and `levels` tell, in the order in which they are served.
    #[must_use]
    pub fn samples(&self, levels: Levels) -> Vec<Sample> {
        let mut samples = Vec::new();
        samples.extend(family(&metric::DATAGRAMS, DatagramResult::WORDS, &self.datagrams));
        samples.extend(family(&metric::FRAMES_REFUSED, FrameFault::WORDS, &self.frames_refused));
        samples.extend(family(&metric::RECORDS, SenderResult::WORDS, &self.records));
        samples.extend(family(&metric::LINES, LineKind::WORDS, &self.lines));
        samples.extend(family(&metric::IRREGULAR, Irregularity::WORDS, &self.irregular));
        samples.extend(family(&metric::EVIDENCE, Telling::WORDS, &self.evidence));
        let gauge = |metric, word, value: usize| Sample { metric, word, value: value as u64 };
        let (known, unknown) = levels.sources;
        samples.push(gauge(&metric::SOURCES, Some(SourceKind::Known.word()), known));
        samples.push(gauge(&metric::SOURCES, Some(SourceKind::Unknown.word()), unknown));
        samples.push(gauge(&metric::VOICES, None, levels.voices));
        samples.push(gauge(&metric::VOICE_BYTES, None, levels.voice_bytes));
        samples.extend(family(&metric::VOICES_ENDED, VoiceEnd::WORDS, &self.voices_ended));
        samples
    }
}

fn family<const N: usize>(
    metric: &'static Metric,
    words: &'static [&'static str],
    tally: &Tally<N>,
) -> impl Iterator<Item = Sample> {
    words.iter().zip(tally.0).map(move |(word, value)| Sample { metric, word: Some(word), value })
}
