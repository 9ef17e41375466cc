//! What the locator counts, on its way to metrics: what is new since it was told last.

use crate::{
    agent::{locate::LocateCounters, sink::Count},
    contract::metric::{NameRead, Unlocated},
};

/// What was told of the locator's counts.
#[derive(Debug, Default)]
pub(in crate::agent::pipeline) struct Located {
    told: LocateCounters,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::agent::pipeline) struct Rises {
    /// What is neither a happening nor a loss.
    pub(in crate::agent::pipeline) counts: Vec<(Count, u64)>,
    /// News of containers that could not be told.
    pub(in crate::agent::pipeline) untold: u64,
}

impl Located {
    /// Takes over the counts as they are `now`; they never fall.
    pub(in crate::agent::pipeline) fn take(&mut self, now: LocateCounters) -> Rises {
        let before = std::mem::replace(&mut self.told, now);
        let new = counts(&now).into_iter().zip(counts(&before)).map(|((what, now), (_, before))| (what, now - before));
        Rises { counts: new.filter(|(_, more)| *more > 0).collect(), untold: now.untold - before.untold }
    }
}

fn counts(of: &LocateCounters) -> [(Count, u64); NameRead::ALL.len() + Unlocated::ALL.len()] {
    let (tree, names, pods) = (&of.tree, &of.names, &of.pods);
    [
        (Count::NameRead(NameRead::Found), names.found),
        (Count::NameRead(NameRead::Missing), names.missing),
        (Count::NameRead(NameRead::Error), names.errors),
        (Count::NameRead(NameRead::Late), names.late),
        (Count::Unlocated(Unlocated::Cgroup), tree.refused + of.left_out + of.unreadable + of.without_path),
        (Count::Unlocated(Unlocated::Pod), pods.refused),
        (Count::Unlocated(Unlocated::Names), names.not_queued + of.unsought),
        (Count::Unlocated(Unlocated::Forgotten), tree.evicted_early + names.evicted_early + pods.evicted_early),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_is_told_once_under_a_word_of_its_own() {
        let mut located = Located::default();
        let mut now = LocateCounters::default();
        assert_eq!(located.take(now), Rises::default());
        (now.unsought, now.pods.refused, now.untold) = (2, 3, 4);
        let rises = located.take(now);
        let counts = [(Count::Unlocated(Unlocated::Pod), 3), (Count::Unlocated(Unlocated::Names), 2)];
        assert_eq!((rises.counts.as_slice(), rises.untold), (counts.as_slice(), 4));
        now.names.not_queued = 1;
        assert_eq!(located.take(now).counts, [(Count::Unlocated(Unlocated::Names), 1)]);
    }

    #[test]
    fn no_word_is_left_out() {
        let words: Vec<_> = counts(&LocateCounters::default()).into_iter().map(|(what, _)| what).collect();
        let names = NameRead::ALL.iter().map(|word| Count::NameRead(*word));
        let all = names.chain(Unlocated::ALL.iter().map(|word| Count::Unlocated(*word)));
        assert_eq!(words, all.collect::<Vec<_>>());
    }
}
