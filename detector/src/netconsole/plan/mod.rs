//! Which targets there should be, given what is wanted and what stands: values in, a plan out.
//!
//! ```text
//! 1 clear   targets of ours that are not enabled; surplus ones, if a name is needed
//! 2 label   what stays, but does not tell who we are
//! 3 make    what is wanted and does not stand, under a name that is free
//! 4 retire  what others have taken the place of: only after all of 3 worked
//! ```
//!
//! A receiver that is on the list and has a working target never loses it before another one to it works. Where not all that
//! is wanted can be made, as much of what stands goes on: a target that may lead nowhere is better than none.

pub mod receiver;
pub mod target;

use std::net::SocketAddr;

pub use self::{
    receiver::{Endpoint, Receiver},
    target::{Identity, Mac, NAMES, Name, RECEIVERS, Standing, Target},
};

/// A receiver that should have a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// All its addresses.
    pub addresses: Vec<SocketAddr>,
    /// The target to it; `None` while the way there is not known.
    pub target: Option<Target>,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be removed first.
    pub clear: Vec<Name>,
    /// To be told who we are.
    pub label: Vec<Name>,
    /// To be made and enabled.
    pub make: Vec<(Name, Target)>,
    /// To be removed last, and only if all of `make` worked.
    pub retire: Vec<Name>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { clear, label, make, retire } = self;
        clear.is_empty() && label.is_empty() && make.is_empty() && retire.is_empty()
    }
}

/// What becomes of a target that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is not enabled.
    Dead,
    /// It is what is wanted.
    Kept,
    /// It leads to a receiver that is on the list, while the way there is not known.
    Retained,
    /// Nobody wants it.
    Surplus,
}

/// What is to be done. Of `wanted` the first [`RECEIVERS`] count, of `standing` only what is ours can be named.
#[must_use]
pub fn plan(wanted: &[Wanted], standing: &[Standing], identity: &Identity) -> Plan {
    let wanted = &wanted[..wanted.len().min(RECEIVERS)];
    let mut fates: Vec<Fate> =
        standing.iter().map(|one| if one.enabled { Fate::Surplus } else { Fate::Dead }).collect();
    let missing = match_targets(wanted, standing, &mut fates);
    retain(wanted, standing, &mut fates, missing.len());

    let named = |fate: Fate| {
        let of_fate = standing.iter().zip(&fates).filter(move |(_, other)| **other == fate);
        of_fate.map(|(one, _)| one.name.clone())
    };
    let mut plan =
        Plan { clear: named(Fate::Dead).collect(), retire: surplus(wanted, standing, &fates), ..Plan::default() };
    let free = |plan: &Plan| {
        let taken = |name: &Name| standing.iter().any(|one| one.name == *name) && !plan.clear.contains(name);
        NAMES.iter().filter_map(|name| Name::ours(name)).filter(|name| !taken(name)).collect::<Vec<_>>()
    };
    while free(&plan).len() < missing.len() {
        // Only a name that we give makes room.
        let room = plan.retire.iter().position(|name| NAMES.contains(&name.as_str()));
        let Some(at) = room else { break };
        let name = plan.retire.remove(at);
        plan.clear.push(name);
    }
    plan.make = free(&plan).into_iter().zip(missing).collect();
    let untold = |one: &Standing| one.userdata.as_ref().is_some_and(|told| !identity.stands_in(told));
    let stays = standing.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Kept | Fate::Retained));
    plan.label = stays.filter(|(one, _)| untold(one)).map(|(one, _)| one.name.clone()).collect();
    plan
}

/// Marks what is kept; what is wanted and does not stand, each once.
fn match_targets(wanted: &[Wanted], standing: &[Standing], fates: &mut [Fate]) -> Vec<Target> {
    let mut missing = Vec::new();
    for target in wanted.iter().filter_map(|one| one.target.as_ref()) {
        let fits = |one: &Standing| one.enabled && one.sound && one.target.as_ref() == Some(target);
        match standing.iter().position(fits) {
            Some(at) => fates[at] = Fate::Kept,
            None if missing.contains(target) => {}
            None => missing.push(target.clone()),
        }
    }
    missing
}

/// Marks what stays although it is not what is wanted: one to each receiver whose way is not known; and as many others as
/// fewer stand than there are receivers. Where nothing that is wanted would stand, up to [`RECEIVERS`].
fn retain(wanted: &[Wanted], standing: &[Standing], fates: &mut [Fate], made: usize) {
    for unready in wanted.iter().filter(|one| one.target.is_none()) {
        let leads_there = |one: &Standing| one.target.as_ref().is_some_and(|target| unready.leads(target));
        let at = standing.iter().zip(fates.iter()).position(|(one, fate)| *fate == Fate::Surplus && leads_there(one));
        if let Some(at) = at {
            fates[at] = Fate::Retained;
        }
    }
    let in_place = made + fates.iter().filter(|fate| matches!(fate, Fate::Kept | Fate::Retained)).count();
    let lacking = if in_place == 0 { RECEIVERS } else { wanted.len().saturating_sub(in_place) };
    fates.iter_mut().filter(|fate| **fate == Fate::Surplus).take(lacking).for_each(|fate| *fate = Fate::Retained);
}

/// What nobody wants, those first that lead to no receiver on the list.
fn surplus(wanted: &[Wanted], standing: &[Standing], fates: &[Fate]) -> Vec<Name> {
    let mut surplus: Vec<_> =
        standing.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Surplus).map(|(one, _)| one).collect();
    let listed =
        |one: &Standing| one.target.as_ref().is_some_and(|target| wanted.iter().any(|wanted| wanted.leads(target)));
    surplus.sort_by_key(|one| listed(one));
    surplus.into_iter().map(|one| one.name.clone()).collect()
}

impl Wanted {
    /// Whether `target` leads to this receiver.
    fn leads(&self, target: &Target) -> bool {
        self.addresses.contains(&target.remote)
    }
}

#[cfg(test)]
mod tests;
