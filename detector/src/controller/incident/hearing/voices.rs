//! All voices: which one a record belongs to, when each is due, and which go when there are too many.

use core::net::IpAddr;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Around, voice::Voice};
use crate::{
    contract::metric::controller::{LineKind, Telling, VoiceEnd},
    controller::{
        decode::{Line, Userdata, frame::Frame, reassemble::Heard},
        incident::sender::Sender,
    },
};

/// Boots of Nodes whose lines are held, at most.
pub const MAX_VOICES: usize = 8192;

/// Bytes of these lines, at most and roughly. A panic has 10,000 to 20,000.
pub const MAX_BYTES: usize = 24 * 1024 * 1024;

/// Boots of one Node that are held, at most.
pub const MAX_BOOTS: usize = 3;

/// As long as a Node's signed lines are no older, what comes from its address unsigned is not believed to be its.
pub const SIGNED_STAYS: Duration = Duration::from_secs(60);

/// When there are too many, so many of this many stay, so that not each new one has to look for room.
const ROOM: (usize, usize) = (7, 8);

/// What a voice is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Name of the Node and id of the boot: from wherever it is heard.
    Signed(Arc<str>, Option<String>),
    /// An address.
    Address(IpAddr),
}

type Id = u64;

/// Voices.
#[derive(Debug)]
pub(super) struct Voices {
    by_id: HashMap<Id, Voice>,
    ids: HashMap<Key, Id>,
    /// Where signed records came from: fragments from there are of the same kernel. May lead to who is gone.
    signed_at: HashMap<IpAddr, Id>,
    /// When each is due: one entry for each, never later than it is.
    agenda: BTreeSet<(Duration, Id)>,
    next_id: Id,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// Empty between calls.
    scratch: Vec<Heard>,
}

impl Voices {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            ids: HashMap::new(),
            signed_at: HashMap::new(),
            agenda: BTreeSet::new(),
            next_id: 0,
            bytes: 0,
            most,
            most_bytes,
            scratch: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// Takes a record of `sender` that says `claim` of itself.
    pub(super) fn hear(
        &mut self,
        sender: &Sender,
        claim: Userdata,
        frame: Frame<'_>,
        from: From,
        around: &mut Around<'_>,
    ) {
        if let Some(id) = self.place(sender, claim, from, around) {
            self.listen(id, frame, from, around);
        }
    }

    /// Takes a fragment, which does not tell whose it is. Tells whether anybody's signed records came from there.
    pub(super) fn hear_fragment(&mut self, frame: Frame<'_>, from: From, around: &mut Around<'_>) -> bool {
        let signed = self.signed_at.get(&from.address).copied().filter(|id| self.by_id.contains_key(id));
        if let Some(id) = signed {
            self.listen(id, frame, from, around);
        }
        signed.is_some()
    }

    /// Does what is due at `now`.
    pub(super) fn tick(&mut self, now: Duration, around: &mut Around<'_>) {
        while let Some((due, id)) = self.agenda.first().copied().filter(|(due, _)| *due <= now) {
            self.agenda.remove(&(due, id));
            let Some(voice) = self.by_id.get_mut(&id) else { continue };
            voice.scheduled = None;
            if voice.ends() <= now {
                self.end(id, VoiceEnd::Silent, now, around);
                continue;
            }
            let mut heard = std::mem::take(&mut self.scratch);
            let before = voice.stream.counts();
            voice.stream.flush(now, &mut heard);
            around.counts.stream(before, voice.stream.counts());
            self.take(id, &mut heard, now, around);
            self.scratch = heard;
        }
    }

    /// Tells what is pending of all of them, and forgets them.
    pub(super) fn finish(&mut self, now: Duration, around: &mut Around<'_>) {
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, VoiceEnd::Silent, now, around);
        }
    }

    /// The voice of a record, made if it is new.
    fn place(&mut self, sender: &Sender, claim: Userdata, from: From, around: &mut Around<'_>) -> Option<Id> {
        let (key, node, signature) = match sender {
            Sender::Signed(node) => (Key::Signed(Arc::clone(node), claim.boot_id.clone()), node, Some(claim)),
            Sender::Address(node) => (Key::Address(from.address), node, None),
            Sender::Nobody(_) => return None,
        };
        let known = self.ids.get(&key).copied();
        let moved = |voice: &Voice| voice.node != *node || voice.signature != signature;
        let id = match known {
            Some(id) if self.by_id.get(&id).is_some_and(moved) => {
                self.end(id, VoiceEnd::Moved, from.at, around);
                self.begin(key, node, signature, from, around)
            }
            Some(id) => id,
            None => self.begin(key, node, signature, from, around),
        };
        if matches!(sender, Sender::Signed(_)) && self.signed_at.insert(from.address, id).is_none() {
            self.tidy_addresses();
        }
        Some(id)
    }

    fn begin(
        &mut self,
        key: Key,
        node: &Arc<str>,
        signature: Option<Userdata>,
        from: From,
        around: &mut Around<'_>,
    ) -> Id {
        if signature.is_some() {
            let boots = self.by_id.iter().filter(|(_, voice)| voice.signature.is_some() && voice.node == *node);
            let mut boots: Vec<_> = boots.map(|(id, voice)| (voice.heard, *id)).collect();
            boots.sort_unstable();
            for (_, id) in boots.iter().take((boots.len() + 1).saturating_sub(MAX_BOOTS)) {
                self.end(*id, VoiceEnd::Room, from.at, around);
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(key, id);
        self.by_id.insert(id, Voice::new(Arc::clone(node), signature, from.address, from.at));
        id
    }

    /// Takes a frame of a voice.
    fn listen(&mut self, id: Id, frame: Frame<'_>, from: From, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        voice.heard = from.at;
        voice.address = from.address;
        let mut heard = std::mem::take(&mut self.scratch);
        let before = voice.stream.counts();
        voice.stream.push(frame, from.at, &mut heard);
        around.counts.stream(before, voice.stream.counts());
        self.take(id, &mut heard, from.at, around);
        self.scratch = heard;
        if self.bytes > self.most_bytes || self.by_id.len() > self.most {
            self.make_room(from.at, around);
        }
    }

    /// Takes what the stream of a voice gave, and tells what there is to tell.
    fn take(&mut self, id: Id, heard: &mut Vec<Heard>, now: Duration, around: &mut Around<'_>) {
        for heard in heard.drain(..) {
            match heard {
                Heard::Line(line) => self.line(id, &line, now, around),
                Heard::Reboot => self.restart(id, now, around),
            }
        }
        self.settle(id, now, around);
    }

    /// A line that says of itself what the voice's records say is the voice's. One that was joined from fragments may say
    /// something else.
    fn line(&mut self, id: Id, line: &Line, now: Duration, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        let is_own = match &voice.signature {
            Some(signature) => *signature == line.userdata,
            None => line.userdata.node.is_none(),
        };
        if is_own {
            voice.take(line, now, around);
            return;
        }
        let sender = around.senders.sender(voice.address, &line.userdata);
        match &sender {
            Sender::Address(node) if voice.signature.is_none() && *node == voice.node => voice.take(line, now, around),
            Sender::Signed(_) => {
                let from = From { address: voice.address, at: now };
                let Some(other) = self.place(&sender, line.userdata.clone(), from, around) else { return };
                if let Some(voice) = self.by_id.get_mut(&other) {
                    voice.heard = now;
                    voice.take(line, now, around);
                }
                self.settle(other, now, around);
            }
            Sender::Address(_) | Sender::Nobody(_) => around.counts.line(LineKind::Unsigned),
        }
    }

    /// Another boot begins. Of a voice that is one boot by its signature this is not true, whatever the numbers say.
    fn restart(&mut self, id: Id, now: Duration, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get(&id).filter(|voice| voice.boot_is_signed().is_none()) else { return };
        if let Some(why) = voice.last_telling().filter(|_| voice.is_paused(now)) {
            self.tell(id, why, now, around);
        }
        if let Some(voice) = self.by_id.get_mut(&id) {
            voice.restart();
        }
    }

    /// Tells what there is to tell, and puts the voice on the agenda and into the account.
    fn settle(&mut self, id: Id, now: Duration, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        if let Some(why) = voice.telling(now, |node| around.open.contains(node)) {
            self.tell(id, why, now, around);
        }
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        voice.spend(now);
        let bytes = voice.bytes();
        self.bytes = self.bytes + bytes - std::mem::replace(&mut voice.charged, bytes);
        let due = voice.due();
        if voice.scheduled.is_none_or(|scheduled| due < scheduled) {
            if let Some(scheduled) = voice.scheduled.replace(due) {
                self.agenda.remove(&(scheduled, id));
            }
            self.agenda.insert((due, id));
        }
    }

    fn tell(&mut self, id: Id, why: Telling, now: Duration, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get(&id) else { return };
        let doubted = voice.signature.is_none() && self.speaks_signed(&voice.node, now);
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        if doubted {
            voice.pass_over();
            return;
        }
        around.counts.evidence(why);
        around.told.push(voice.tell(now, around.wall));
    }

    fn speaks_signed(&self, node: &Arc<str>, now: Duration) -> bool {
        let recent = |voice: &Voice| voice.signature.is_some() && now <= voice.heard + SIGNED_STAYS;
        self.by_id.values().any(|voice| recent(voice) && voice.node == *node)
    }

    /// Tells what is pending of a voice, and forgets it.
    fn end(&mut self, id: Id, why: VoiceEnd, now: Duration, around: &mut Around<'_>) {
        let Some(voice) = self.by_id.get_mut(&id) else { return };
        // Not the scratch: this happens amid the lines of another voice.
        let mut heard = Vec::new();
        let before = voice.stream.counts();
        voice.stream.end(&mut heard);
        around.counts.stream(before, voice.stream.counts());
        for heard in heard {
            match heard {
                // Where it belongs elsewhere it is too late to begin there.
                Heard::Line(line) => voice.take(&line, now, around),
                Heard::Reboot => voice.restart(),
            }
        }
        if let Some(why) = voice.last_telling() {
            self.tell(id, why, now, around);
        }
        let Some(voice) = self.by_id.remove(&id) else { return };
        self.ids.remove(&voice.key());
        self.bytes -= voice.charged;
        if let Some(scheduled) = voice.scheduled {
            self.agenda.remove(&(scheduled, id));
        }
        around.counts.voice_ended(why);
    }

    /// Those go first that did not panic, then those that are not signed, then those that were not heard for longest.
    fn make_room(&mut self, now: Duration, around: &mut Around<'_>) {
        let rank = |voice: &Voice| (voice.has_panicked(), voice.signature.is_some(), voice.heard);
        let mut ranked: Vec<_> = self.by_id.iter().map(|(id, voice)| (rank(voice), *id)).collect();
        ranked.sort_unstable();
        let (keep, of) = ROOM;
        for (_, id) in ranked {
            if self.bytes <= self.most_bytes / of * keep && self.by_id.len() <= self.most / of * keep {
                return;
            }
            self.end(id, VoiceEnd::Room, now, around);
        }
    }

    fn tidy_addresses(&mut self) {
        if self.signed_at.len() > 2 * self.most {
            self.signed_at.retain(|_, id| self.by_id.contains_key(id));
        }
        if self.signed_at.len() > 2 * self.most {
            self.signed_at.clear();
        }
    }
}

/// Where a datagram came from, and when it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    pub(super) address: IpAddr,
    pub(super) at: Duration,
}

impl Voice {
    fn key(&self) -> Key {
        match &self.signature {
            Some(claim) => Key::Signed(Arc::clone(&self.node), claim.boot_id.clone()),
            None => Key::Address(self.address),
        }
    }
}
