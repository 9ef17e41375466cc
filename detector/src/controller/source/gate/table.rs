//! Sources by address, so many and no more: the one that was not heard for longest makes room.
//!
//! All memory is taken at the start. Entries are linked from the newest to the oldest, so that each access is one look into
//! a hash table whose order no sender can foresee.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use super::pace::Pace;

/// No neighbour.
const NONE: usize = usize::MAX;

/// A source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    address: IpAddr,
    /// When it was last heard.
    pub(super) heard: Duration,
    /// What it may send.
    pub(super) pace: Pace,
    newer: usize,
    older: usize,
}

/// Sources.
#[derive(Debug)]
pub(super) struct Table {
    places: HashMap<IpAddr, usize>,
    sources: Vec<Source>,
    newest: usize,
    oldest: usize,
    most: usize,
}

impl Table {
    /// An empty one for `most` sources, at least one.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            // Twice the room: a full table that loses one key for each that it gains would otherwise be built anew.
            places: HashMap::with_capacity(2 * most),
            sources: Vec::with_capacity(most),
            newest: NONE,
            oldest: NONE,
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// When the source that would make room was last heard; `None`: nobody has to.
    pub(super) fn crowded_since(&self) -> Option<Duration> {
        let oldest = self.sources.get(self.oldest).filter(|_| self.sources.len() >= self.most);
        oldest.map(|source| source.heard)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.places.contains_key(&address)
    }

    /// The source, heard now; a new one takes the place of the oldest if there is no other. Tells whether one had to go.
    pub(super) fn hear(&mut self, address: IpAddr, now: Duration) -> (&mut Source, bool) {
        let (place, pushed) = match self.places.get(&address) {
            Some(place) => (*place, false),
            None => self.settle(address),
        };
        self.unlink(place);
        self.link_newest(place);
        let source = &mut self.sources[place];
        source.heard = now;
        (source, pushed)
    }

    #[cfg(test)]
    pub(super) fn capacities(&self) -> (usize, usize) {
        (self.places.capacity(), self.sources.capacity())
    }

    fn settle(&mut self, address: IpAddr) -> (usize, bool) {
        let source = Source { address, heard: Duration::ZERO, pace: Pace::default(), newer: NONE, older: NONE };
        let pushed = self.sources.len() >= self.most;
        let place = if pushed { self.oldest } else { self.sources.len() };
        if pushed {
            self.unlink(place);
            self.places.remove(&self.sources[place].address);
            self.sources[place] = source;
        } else {
            self.sources.push(source);
        }
        self.link_newest(place);
        self.places.insert(address, place);
        (place, pushed)
    }

    fn unlink(&mut self, place: usize) {
        let Source { newer, older, .. } = self.sources[place];
        match self.sources.get_mut(newer) {
            Some(source) => source.older = older,
            None => self.newest = older,
        }
        match self.sources.get_mut(older) {
            Some(source) => source.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        let before = std::mem::replace(&mut self.newest, place);
        let source = &mut self.sources[place];
        (source.newer, source.older) = (NONE, before);
        match self.sources.get_mut(before) {
            Some(source) => source.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_source_that_was_not_heard_for_longest_makes_room(heard in prop::collection::vec(0_u32..12, 1..200)) {
            let (mut table, mut expected) = (Table::new(5), Vec::<IpAddr>::new());
            for (second, number) in (1_u64..).zip(heard) {
                let address = IpAddr::V4(Ipv4Addr::from_bits(number));
                let known = expected.iter().position(|other| *other == address);
                known.map(|place| expected.remove(place));
                let pushes = known.is_none() && expected.len() == 5;
                if pushes {
                    expected.remove(0);
                }
                expected.push(address);
                let (source, pushed) = table.hear(address, Duration::from_secs(second));
                prop_assert_eq!((source.address, pushed), (address, pushes));
                prop_assert_eq!(table.len(), expected.len());
                prop_assert_eq!(table.places.len(), expected.len());
                prop_assert!(expected.iter().all(|address| table.contains(*address)));
            }
        }
    }
}
