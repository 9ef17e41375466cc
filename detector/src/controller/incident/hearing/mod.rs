//! Datagrams → evidence of what kernels said. Pure: time comes with the datagrams, and nothing is sent anywhere.
//!
//! ```text
//! datagram ─▶ gate ─▶ frame ─▶ sender ─▶ voice: lines in order ─▶ findings and log ─▶ evidence
//!            rates            which Node   one boot of one Node         │
//!                                                                      └▶ self test
//! ```
//!
//! Memory is taken for Nodes alone: what nobody can be named for is counted and gone.

pub mod counts;
pub mod self_test;
mod voice;
mod voices;

use std::{collections::HashSet, time::Duration};

use self::{
    counts::{Counts, Levels, Sample},
    self_test::SelfTests,
    voices::{From, Voices},
};
pub use self::{
    voice::{HELD, HELD_PANIC, LIFE_PAUSE, PAUSE, SILENCE, SPENT},
    voices::{MAX_BOOTS, MAX_BYTES, MAX_VOICES, SIGNED_STAYS},
};
use super::{
    Evidence, NodeFacts,
    sender::{Sender, Senders},
};
use crate::{
    clock::WallClock,
    contract::metric::controller::{DatagramResult, SenderResult},
    controller::{
        decode::{
            Userdata,
            frame::{self, Frame},
        },
        source::{
            Datagram,
            gate::{Gatekeeper, Limits},
        },
    },
};

/// Hears the kernels of all Nodes.
///
/// Times are those of [`Datagram::at`], and never go back.
#[derive(Debug)]
pub struct Hearing {
    gate: Gatekeeper,
    senders: Senders,
    voices: Voices,
    self_tests: SelfTests,
    /// Nodes with an open incident.
    open: HashSet<String>,
    counts: Counts,
    wall: WallClock,
}

/// What voices need besides themselves.
struct Around<'a> {
    senders: &'a Senders,
    open: &'a HashSet<String>,
    self_tests: &'a SelfTests,
    wall: WallClock,
    counts: &'a mut Counts,
    told: &'a mut Vec<Evidence>,
}

impl Around<'_> {
    /// Remembers the self test, if the line is one of that Node.
    fn self_test(&self, node: &str, text: &str, now: Duration) -> bool {
        let test = self_test::read(text).filter(|(named, _)| *named == node);
        if let Some((node, nonce)) = test {
            self.self_tests.remember(node, nonce, now);
        }
        test.is_some()
    }
}

impl Hearing {
    /// Knows no Nodes yet, and so hears nobody. `own_node`: the one that the controller runs on.
    #[must_use]
    pub fn new(limits: Limits, own_node: Option<String>, wall: WallClock) -> Self {
        Self {
            gate: Gatekeeper::new(limits),
            senders: Senders::new(own_node),
            voices: Voices::new(MAX_VOICES, MAX_BYTES),
            self_tests: SelfTests::default(),
            open: HashSet::new(),
            counts: Counts::default(),
            wall,
        }
    }

    /// Takes a datagram; evidence that follows from it is appended to `told`.
    pub fn hear(&mut self, datagram: Datagram<'_>, told: &mut Vec<Evidence>) {
        let from = From { address: datagram.from.ip().to_canonical(), at: datagram.at };
        let known = self.senders.knows(from.address);
        let result = self.gate.admit(from.address, known, datagram.bytes.len(), from.at);
        self.counts.datagram(result);
        if result != DatagramResult::Taken {
            return;
        }
        match frame::parse(datagram.bytes) {
            Ok(frame) => self.frame(frame, from, told),
            Err(error) => self.counts.frame_refused(error),
        }
    }

    /// When [`Self::tick`] has something to do if nothing is heard before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.voices.due()
    }

    /// Does what is due at `now`: lines that waited for others, evidence that waited for more, what is to be forgotten.
    pub fn tick(&mut self, now: Duration, told: &mut Vec<Evidence>) {
        let (voices, mut around) = self.split(told);
        voices.tick(now, &mut around);
    }

    /// Tells all that is pending: the program ends.
    pub fn finish(&mut self, now: Duration, told: &mut Vec<Evidence>) {
        let (voices, mut around) = self.split(told);
        voices.finish(now, &mut around);
    }

    /// A Node is there or changed.
    pub fn upsert_node(&mut self, node: &NodeFacts) {
        self.senders.upsert(node);
    }

    /// A Node is gone. What its kernel had said by then is told to its end.
    pub fn remove_node(&mut self, name: &str) {
        self.senders.remove(name);
        self.self_tests.forget(name);
    }

    /// Whether an incident of the Node is open: only then lines that are no panic are evidence, of life.
    pub fn set_open(&mut self, node: &str, open: bool) {
        if !open {
            self.open.remove(node);
        } else if !self.open.contains(node) {
            self.open.insert(node.to_owned());
        }
    }

    /// The wall clock was measured again.
    pub fn set_wall(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// What the kernel dropped by now ([`crate::controller::source::netconsole::Receiver::kernel_dropped`]).
    pub fn set_kernel_dropped(&mut self, all: u64) {
        self.counts.kernel_dropped(all);
    }

    /// Self tests that were heard: a handle that may be cloned and asked elsewhere.
    #[must_use]
    pub fn self_tests(&self) -> &SelfTests {
        &self.self_tests
    }

    /// What is there now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        Levels { sources: self.gate.sources(), voices: self.voices.len(), voice_bytes: self.voices.bytes() }
    }

    /// All of [`crate::contract::metric::controller`] but the size of the socket's buffer.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.counts.samples(self.levels())
    }

    fn frame(&mut self, frame: Frame<'_>, from: From, told: &mut Vec<Evidence>) {
        let claim = match &frame {
            Frame::Extended(record) => record.userdata(),
            Frame::Basic(_) => Some(Userdata::default()),
        };
        let (voices, mut around) = self.split(told);
        let claim = match claim {
            Some(claim) => claim,
            // Where nobody signs, it is the address that tells, and the whole record may tell more.
            None if voices.hear_fragment(frame, from, &mut around) => {
                around.counts.record(SenderResult::Fragment);
                return;
            }
            None => Userdata::default(),
        };
        let sender = around.senders.sender(from.address, &claim);
        around.counts.record(sender.result());
        if !matches!(sender, Sender::Nobody(_)) {
            voices.hear(&sender, claim, frame, from, &mut around);
        }
    }

    fn split<'a>(&'a mut self, told: &'a mut Vec<Evidence>) -> (&'a mut Voices, Around<'a>) {
        let around = Around {
            senders: &self.senders,
            open: &self.open,
            self_tests: &self.self_tests,
            wall: self.wall,
            counts: &mut self.counts,
            told,
        };
        (&mut self.voices, around)
    }
}

#[cfg(test)]
mod forged;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
