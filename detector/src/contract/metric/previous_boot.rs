//! What is counted of boots before the present one.

use super::{CrashEnd, Kind, Metric, words};

/// Boots that ended in a crash.
pub const PREVIOUS_BOOT_CRASHES: Metric = Metric {
    name: "detector_previous_boot_crashes_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("end", CrashEnd::WORDS)],
    help: "Boots of this node that ended in a crash, as found after the boot. Goes on over boots where the file of \
           state.boots is kept.",
};
