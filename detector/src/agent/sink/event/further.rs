//! What could not be remembered one by one becomes one event about the node.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    note, object,
    series::{First, Regarding, Series},
};
use crate::contract::event::Reason;

/// Pods that are told apart; beyond it they are not counted.
const PODS: usize = 4096;

/// Happenings of series that had to make room, until they are told together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Further {
    kills: u64,
    hangs: u64,
    /// Digests of their uids.
    pods: BTreeSet<u64>,
    last_us: i64,
    oldest: Option<Series>,
}

impl Further {
    /// Takes over what `series` had not told.
    pub(super) fn add(&mut self, series: Series) {
        let waiting = series.waiting();
        match series.key.reason {
            Reason::TaskHung => self.hangs = self.hangs.saturating_add(waiting),
            Reason::ProcessOOMKilled | Reason::ContainerOOMKilled | Reason::FurtherProblems => {
                self.kills = self.kills.saturating_add(waiting);
            }
            // They never make room.
            Reason::KernelPanicFound | Reason::UncleanShutdownFound => return,
        }
        if series.key.owner.starts_with("pod ") && self.pods.len() < PODS {
            self.pods.insert(object::digest([series.key.owner.as_bytes()]));
        }
        self.last_us = self.last_us.max(series.last_us);
        self.oldest.get_or_insert(series);
    }

    pub(super) fn count(&self) -> u64 {
        self.kills.saturating_add(self.hangs)
    }

    /// All so far as one event about `node`, which stands in `namespace`, if there is something.
    pub(super) fn take(&mut self, node: &str, namespace: &str) -> Option<Series> {
        let Self { kills, hangs, pods, last_us, oldest } = std::mem::take(self);
        let oldest = oldest?;
        let first = First {
            name: object::name(node, object::digest([oldest.first.name.as_bytes(), b"further"])),
            namespace: namespace.to_owned(),
            regarding: Regarding::Node,
            note: note::further(kills, hangs, pods.len() as u64),
            time_us: oldest.first.time_us,
        };
        Some(Series::further(&oldest, first, kills.saturating_add(hangs), last_us))
    }
}
