//! Which datagrams are looked at: rates for each source and in total, in bounded memory. Pure.
//!
//! ```text
//! too long? ─▶ room for the source? ─▶ its own rate ─▶ rate in total ─▶ taken
//! ```
//!
//! Known are the addresses of Nodes; anybody can send from another address. The two share nothing: known sources have a table
//! and a total of their own, so that no flood of unknown ones pushes a known one out or uses up its total. Among the known
//! ones a flood of some cannot drown out another: one that was quiet is heard for the length of a panic, whatever the others
//! send ([`Limits::guaranteed`]).
//!
//! Whoever can forge the address of a Node can use up that Node's own rate: the only remedy is a network that lets nobody do
//! so.

mod pace;
mod table;

use std::{net::IpAddr, time::Duration};

use self::{
    pace::{Pace, Rate},
    table::Table,
};
use super::MAX_DATAGRAM;
use crate::{config::controller::Netconsole, contract::metric::controller::DatagramResult};

/// An unknown source that was heard within this time is not pushed out by another unknown one: with more of them than the
/// table holds, some are heard and not all of them a little.
pub const FRESH: Duration = Duration::from_secs(1);

/// Part of the table, and of the rate in total, that unknown sources can have: one in so many.
pub const UNKNOWN_SHARE: u32 = 4;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sources that are remembered, unknown ones included. More than there are addresses of Nodes, by a third.
    pub sources: usize,
    /// Datagrams a second of one source in the long run.
    pub per_source: u32,
    /// Datagrams of one source at once. A panic is 40 to 150 lines; a dump of all tasks besides is some thousands.
    pub burst: u32,
    /// Datagrams at once that a known source has for itself, whatever the others send.
    pub guaranteed: u32,
    /// Datagrams a second of all sources together in the long run, and at once.
    pub total: u32,
}

impl From<&Netconsole> for Limits {
    fn from(settings: &Netconsole) -> Self {
        let rate = settings.rate;
        Self {
            sources: settings.sources,
            per_source: rate.per_source,
            burst: rate.burst,
            guaranteed: rate.guaranteed,
            total: rate.total,
        }
    }
}

/// Decides about each datagram.
#[derive(Debug)]
pub struct Gatekeeper {
    limits: Limits,
    per_source: Rate,
    known: Side,
    unknown: Side,
}

/// Known or unknown sources.
#[derive(Debug)]
struct Side {
    table: Table,
    rate: Rate,
    total: Pace,
}

impl Gatekeeper {
    /// One that has heard nobody yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let share = limits.sources / UNKNOWN_SHARE as usize;
        let side = |sources: usize, total: u32| Side {
            table: Table::new(sources),
            rate: Rate::new(total, total),
            total: Pace::default(),
        };
        Self {
            limits,
            per_source: Rate::new(limits.per_source, limits.burst),
            known: side(limits.sources - share, limits.total),
            unknown: side(share, limits.total / UNKNOWN_SHARE),
        }
    }

    /// Decides about a datagram of `length` bytes that arrived at `now` from `address`, which is a Node's if it is `known`.
    /// Takes no memory.
    pub fn admit(&mut self, address: IpAddr, known: bool, length: usize, now: Duration) -> DatagramResult {
        if length > MAX_DATAGRAM {
            return DatagramResult::TooLong;
        }
        let side = if known { &mut self.known } else { &mut self.unknown };
        let crowded = side.table.crowded_since().is_some_and(|heard| now < heard + FRESH);
        if !known && crowded && !side.table.contains(address) {
            return DatagramResult::TableFull;
        }
        let (source, pushed) = side.table.hear(address, now);
        if pushed && crowded {
            // More sources at once than the table holds: what one that was pushed out took is forgotten, so nobody is
            // guaranteed anything.
            source.pace = Pace::in_debt(self.per_source.debt_of(self.limits.guaranteed), now);
        }
        if !source.pace.has_room(self.per_source, now) {
            return DatagramResult::RateOfSource;
        }
        let guaranteed = known && source.pace.debt(now) < self.per_source.debt_of(self.limits.guaranteed);
        if !guaranteed && !side.total.take(side.rate, now) {
            return DatagramResult::RateInTotal;
        }
        source.pace.take(self.per_source, now);
        DatagramResult::Taken
    }

    /// Sources that are remembered: known and unknown ones.
    #[must_use]
    pub fn sources(&self) -> (usize, usize) {
        (self.known.table.len(), self.unknown.table.len())
    }
}

#[cfg(test)]
mod tests;
