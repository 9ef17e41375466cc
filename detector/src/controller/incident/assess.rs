//! All evidence → cause, how sure it is, whom it points at, and what remains possible while the cause is not known.

use super::weigh::Weight;
use crate::contract::incident::{Cause, Confidence, EvidenceEntry, Possible, Suspect};

/// What the evidence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// What ended the kernel.
    pub cause: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// What remains possible; empty once the cause is one.
    pub possible: Vec<Possible>,
    /// Whom it points at.
    pub suspect: Option<Suspect>,
    /// In one sentence for people, without the node's name.
    pub message: String,
}

/// Assesses `evidence`. `heard`: the node had netconsole set up, so that a panic would have been heard.
#[must_use]
pub fn assess(evidence: &[EvidenceEntry], heard: bool) -> Assessment {
    let weight = Weight::of(evidence);
    let suspect = suspect(evidence);
    let (cause, confidence) = cause(evidence, &weight);
    let possible = possible(cause, &weight, heard);
    let message = message(cause, confidence, suspect.as_ref(), &possible);
    Assessment { cause, confidence, possible, suspect, message }
}

fn cause(evidence: &[EvidenceEntry], weight: &Weight) -> (Cause, Confidence) {
    if weight.refuted() {
        return (Cause::FalseAlarm, Confidence::High);
    }
    if weight.panicked() {
        return (named(evidence), certainty(weight));
    }
    if weight.other_boot {
        return match (weight.found_clean, weight.found_unclean) {
            (true, false) => (Cause::Shutdown, Confidence::High),
            (false, true) => (Cause::Reset, Confidence::High),
            // Nobody looked, or they contradict each other.
            _ => (Cause::Reset, Confidence::Medium),
        };
    }
    if weight.same_boot && weight.is_back() {
        return (Cause::Stall, Confidence::High);
    }
    (Cause::Silent, Confidence::Unknown)
}

/// The most telling cause that a witness names: any is better than the general one, and of two the better author's counts,
/// then the later in the list of causes, so that the order of the evidence does not matter.
fn named(evidence: &[EvidenceEntry]) -> Cause {
    let named = evidence.iter().filter_map(|entry| Some((entry.cause?, entry.confidence)));
    named
        .filter(|(cause, _)| *cause != Cause::KernelPanic)
        .max_by_key(|(cause, confidence)| (*confidence, *cause))
        .map_or(Cause::KernelPanic, |(cause, _)| cause)
}

fn certainty(weight: &Weight) -> Confidence {
    let author =
        weight.told.unwrap_or_default().max(if weight.found_panic { Confidence::Medium } else { Confidence::Unknown });
    let second =
        weight.stale.is_some() || weight.given_up || weight.other_boot || (weight.found_panic && weight.told.is_some());
    match (author, second) {
        (Confidence::Unknown, _) => Confidence::Unknown,
        (Confidence::Low, false) => Confidence::Low,
        (Confidence::Low, true) | (Confidence::Medium, false) => Confidence::Medium,
        (Confidence::Medium, true) | (Confidence::High, _) => Confidence::High,
    }
}

/// The suspect of the best witness; of equally good ones the one who names a pod, then the first by name.
fn suspect(evidence: &[EvidenceEntry]) -> Option<Suspect> {
    let suspects = evidence.iter().filter_map(|entry| entry.suspect.as_ref());
    suspects.min_by_key(|one| (std::cmp::Reverse(one.confidence), one.pod.is_none(), one.name.clone())).cloned()
}

/// What a node may have stalled of, if nothing is known of its clock.
const STALL: [Possible; 4] = [Possible::Hang, Possible::Network, Possible::Hypervisor, Possible::Kubelet];

/// What remains possible. A death with one known cause leaves nothing open.
fn possible(cause: Cause, weight: &Weight, heard: bool) -> Vec<Possible> {
    let of = |kinds: &[Possible]| kinds.to_vec();
    match cause {
        Cause::Silent if weight.kernel_spoke => of(&[Possible::Network, Possible::Kubelet]),
        Cause::Silent => {
            let mut all = of(&[Possible::Power, Possible::Hang, Possible::Network, Possible::Hypervisor]);
            if !heard {
                all.push(Possible::Panic);
            }
            all.push(Possible::Kubelet);
            all
        }
        // Two silences, of which each was another.
        Cause::Stall if weight.clock_stood && weight.clock_went_on => of(&STALL),
        Cause::Stall if weight.clock_stood => of(&[Possible::Hang, Possible::Hypervisor]),
        Cause::Stall if weight.clock_went_on => of(&[Possible::Network, Possible::Kubelet]),
        Cause::Stall => of(&STALL),
        Cause::Reset if heard || weight.found_unclean => of(&[Possible::Power, Possible::Hang, Possible::Hypervisor]),
        Cause::Reset => of(&[Possible::Power, Possible::Hang, Possible::Hypervisor, Possible::Panic]),
        _ => Vec::new(),
    }
}

fn message(cause: Cause, confidence: Confidence, suspect: Option<&Suspect>, possible: &[Possible]) -> String {
    let what = sentence(cause);
    let sure = match confidence {
        Confidence::High | Confidence::Unknown => "",
        Confidence::Medium => " (one good witness)",
        Confidence::Low => " (one weak witness)",
    };
    let whom = suspect.filter(|suspect| suspect.confidence > Confidence::Unknown);
    let whom = whom.map(|suspect| format!("; suspect: {}", suspect.name)).unwrap_or_default();
    let open: Vec<&str> = possible.iter().map(|one| words(*one)).collect();
    let open = if open.is_empty() { String::new() } else { format!("; possible: {}", open.join(", ")) };
    format!("{what}{sure}{whom}{open}")
}

/// A cause in words.
#[must_use]
pub const fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::KernelPanic => "the kernel panicked",
        Cause::Oops => "the kernel panicked after a fault of its own",
        Cause::OutOfMemory => "the kernel panicked because memory ran out",
        Cause::HungTask => "the kernel panicked because a task hung",
        Cause::SoftLockup => "the kernel panicked because a CPU was stuck (soft lockup)",
        Cause::HardLockup => "the kernel panicked because a CPU was stuck (hard lockup)",
        Cause::RcuStall => "the kernel panicked because of an RCU stall",
        Cause::MachineCheck => "the kernel panicked because of a machine check",
        Cause::UnknownNmi => "the kernel panicked because of a non-maskable interrupt",
        Cause::Warning => "the kernel panicked because of a warning",
        Cause::StackCorruption => "the kernel panicked because its stack was overwritten",
        Cause::InitKilled => "the kernel panicked because process 1 ended",
        Cause::SysRq => "somebody made the kernel panic (sysrq)",
        Cause::Silent => "the node went silent without last words",
        Cause::Stall => "the node was silent for a while and lives on with the same boot",
        Cause::Reset => "the node was reset without last words",
        Cause::Shutdown => "the node was shut down in order",
        Cause::FalseAlarm => "a panic was told, and the node lived on",
    }
}

const fn words(possible: Possible) -> &'static str {
    match possible {
        Possible::Power => "power cut or reset",
        Possible::Hang => "hang",
        Possible::Network => "network",
        Possible::Hypervisor => "hypervisor",
        Possible::Panic => "panic that was not heard",
        Possible::Kubelet => "kubelet",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::fixture::entry, *};
    use crate::contract::incident::EvidenceKind;

    fn all(kinds: &[EvidenceKind]) -> Vec<EvidenceEntry> {
        kinds.iter().enumerate().map(|(second, kind)| entry(*kind, second as i64)).collect()
    }

    use EvidenceKind as Kind;
    use Possible::{Hang, Hypervisor, Kubelet, Network, Panic, Power};

    #[rstest]
    #[case::silence(&[Kind::LeaseStale, Kind::ReadyUnknown], true, Cause::Silent, &[Power, Hang, Network, Hypervisor, Kubelet])]
    #[case::silence_of_one_without_netconsole(&[Kind::LeaseStale], false, Cause::Silent, &[Power, Hang, Network, Hypervisor, Panic, Kubelet])]
    #[case::a_living_kernel(&[Kind::LeaseStale, Kind::KernelSpoke], true, Cause::Silent, &[Network, Kubelet])]
    #[case::frozen(&[Kind::LeaseStale, Kind::LeaseFresh, Kind::SameBoot, Kind::ClockStood], true, Cause::Stall, &[Hang, Hypervisor])]
    #[case::frozen_and_cut_off(&[Kind::LeaseStale, Kind::LeaseFresh, Kind::SameBoot, Kind::ClockStood, Kind::ClockWentOn], true, Cause::Stall, &[Hang, Network, Hypervisor, Kubelet])]
    #[case::cut_off(&[Kind::LeaseStale, Kind::LeaseFresh, Kind::SameBoot, Kind::ClockWentOn], true, Cause::Stall, &[Network, Kubelet])]
    #[case::power_cut(&[Kind::LeaseStale, Kind::OtherBoot, Kind::FoundUnclean, Kind::LeaseFresh], true, Cause::Reset, &[Power, Hang, Hypervisor])]
    #[case::reset_of_one_without_witness(&[Kind::LeaseStale, Kind::OtherBoot], false, Cause::Reset, &[Power, Hang, Hypervisor, Panic])]
    #[case::shutdown(&[Kind::LeaseStale, Kind::OtherBoot, Kind::FoundClean], true, Cause::Shutdown, &[])]
    #[case::panic_found_later(&[Kind::LeaseStale, Kind::OtherBoot, Kind::FoundPanic], true, Cause::KernelPanic, &[])]
    #[case::false_alarm(&[Kind::Panic, Kind::LeaseFresh, Kind::SameBoot], true, Cause::FalseAlarm, &[])]
    fn a_death_is_what_its_witnesses_leave_possible(
        #[case] kinds: &[Kind],
        #[case] heard: bool,
        #[case] cause: Cause,
        #[case] possible: &[Possible],
    ) {
        let assessment = assess(&all(kinds), heard);
        assert_eq!(assessment.cause, cause);
        assert_eq!(assessment.possible, possible);
    }

    #[rstest]
    #[case::one_good_witness(&[Kind::Panic], Confidence::Medium)]
    #[case::and_silence(&[Kind::Panic, Kind::LeaseStale], Confidence::High)]
    #[case::a_record_and_another_boot(&[Kind::FoundPanic, Kind::OtherBoot], Confidence::High)]
    #[case::two_records(&[Kind::Panic, Kind::FoundPanic], Confidence::High)]
    fn a_second_witness_makes_it_sure(#[case] kinds: &[Kind], #[case] confidence: Confidence) {
        assert_eq!(assess(&all(kinds), true).confidence, confidence);
    }

    #[test]
    fn a_special_cause_is_worth_more_than_the_general_one() {
        let mut evidence = all(&[Kind::Panic, Kind::Signature]);
        evidence[0].cause = Some(Cause::KernelPanic);
        evidence[1].cause = Some(Cause::Oops);
        assert_eq!(assess(&evidence, true).cause, Cause::Oops);
    }

    #[test]
    fn the_suspect_of_the_best_witness_counts() {
        let mut evidence = all(&[Kind::Panic, Kind::LastWords]);
        let suspect = |name: &str, confidence| Suspect { name: name.to_owned(), confidence, ..Suspect::default() };
        evidence[0].suspect = Some(suspect("kworker", Confidence::Low));
        evidence[1].suspect = Some(suspect("shop/cart-0/php", Confidence::High));
        let assessment = assess(&evidence, true);
        assert_eq!(assessment.message, "the kernel panicked (one good witness); suspect: shop/cart-0/php");
    }
}
