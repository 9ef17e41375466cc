//! With the rights that the agent has in a pod, and no others.

use anyhow::{Context as _, Result, ensure};
use detector_kernel_tests::keeper::Place;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// Those of `deploy/detector.yaml`.
const RIGHTS: CapabilitySet =
    CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::SYSLOG).union(CapabilitySet::DAC_READ_SEARCH);

/// Alone in its program: the bounding set is a thread's own, cannot be widened again, and bounds what root has after
/// execve(2).
#[test]
fn what_is_attached_outlives_a_reader_with_few_rights_and_is_adopted_by_the_next() -> Result<()> {
    let place = Place::make("rights")?;
    for (name, capability) in CapabilitySet::all().difference(RIGHTS).iter_names() {
        remove_capability_from_bounding_set(capability).with_context(|| format!("dropping {name}"))?;
    }
    let first = place.start(&[])?;
    ensure!(first.all_are("kept"), "{}", first.started);
    let programs = first.programs();
    first.kill()?;
    let second = place.start(&[])?;
    ensure!(second.all_are("adopted"), "{}", second.started);
    assert_eq!(second.programs(), programs);
    second.kill()
}
