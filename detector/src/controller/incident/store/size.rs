//! Keeps an incident within [`OBJECT_BYTES`], whoever writes to it.
//!
//! Each writer sees only what it writes, so that each has a share: [`TESTIMONY_BYTES`] for each of
//! [`MAX_LOGS`] replicas, the rest for the leader. A testimony that is too large loses the oldest lines of its log; the
//! leader's part loses pods, the last by name first; their number stays.

use serde::Serialize;

use crate::{
    contract::incident::{AffectedPod, KernelIncidentStatus, MAX_EVIDENCE, MAX_LOGS, MAX_PODS, MAX_STEPS},
    controller::incident::Testimony,
};

/// Bytes of an incident in JSON at most. etcd takes 1.5 MB, and every watcher gets each change whole.
pub const OBJECT_BYTES: usize = 256 * 1024;

/// Bytes of one replica's part in JSON.
pub const TESTIMONY_BYTES: usize = 36 * 1024;

/// Bytes of the leader's part in JSON, with what the server notes about it.
pub const LEADER_BYTES: usize = OBJECT_BYTES - MAX_LOGS * TESTIMONY_BYTES;

/// Bytes that the server notes in `managedFields` for an entry of a list besides its key.
const NOTED: usize = 130;

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

/// Cuts what does not fit.
pub fn fit_testimony(testimony: &mut Testimony) {
    testimony.evidence.truncate(MAX_EVIDENCE);
    let evidence = json_bytes(&testimony.evidence) + NOTED * testimony.evidence.len();
    let room = TESTIMONY_BYTES.saturating_sub(evidence + NOTED);
    while let Some(excerpt) = &mut testimony.log {
        let bytes = json_bytes(excerpt);
        if bytes <= room {
            return;
        }
        // Text grows by up to six times in JSON; what goes beyond is cut in plain text until it fits.
        let cut = (bytes - room).div_ceil(2).max(1);
        let start = excerpt.text.ceil_char_boundary(cut);
        let Some((lost, rest)) = excerpt.text.get(start..).and_then(|tail| tail.split_once('\n')) else {
            testimony.log = None;
            return;
        };
        let end = excerpt.text.len() - rest.len();
        let lines = excerpt.text.get(..end).unwrap_or(lost).matches('\n').count();
        excerpt.lines_missing = excerpt.lines_missing.saturating_add(i64::try_from(lines).unwrap_or(i64::MAX));
        excerpt.text = rest.to_owned();
    }
}

/// Cuts what does not fit.
pub fn fit_leader(status: &mut KernelIncidentStatus) {
    status.evidence.truncate(MAX_EVIDENCE);
    status.steps.truncate(MAX_STEPS);
    status.holds.truncate(MAX_STEPS);
    let pods = std::mem::take(&mut status.pods);
    let entries = status.evidence.len() + status.steps.len() + status.holds.len();
    let mut left = LEADER_BYTES.saturating_sub(json_bytes(&*status) + NOTED * entries);
    let fits = |pod: &AffectedPod| {
        let bytes = json_bytes(pod) + pod.uid.len() + NOTED;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    status.pods = pods.into_iter().take(MAX_PODS).take_while(fits).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::incident::{LogExcerpt, Origin};

    fn testimony(text: String) -> Testimony {
        let log = LogExcerpt { id: "a".to_owned(), origin: Origin::Netconsole, text, lines_missing: 1 };
        Testimony { evidence: Vec::new(), log: Some(log) }
    }

    #[test]
    fn a_log_that_fits_is_left_as_it_is() {
        let mut short = testimony("one\ntwo\n".to_owned());
        let before = short.clone();
        fit_testimony(&mut short);
        assert_eq!(short, before);
    }

    #[test]
    fn the_newest_lines_are_kept_and_the_lost_ones_counted() {
        let lines: Vec<String> = (0..4000).map(|number| format!("line {number} \"\"\"\"")).collect();
        let mut long = testimony(format!("{}\n", lines.join("\n")));
        fit_testimony(&mut long);
        assert!(json_bytes(&long.log) <= TESTIMONY_BYTES);
        let log = long.log.expect("a log");
        let kept: Vec<&str> = log.text.lines().collect();
        assert!(kept.len() > 500, "{}", kept.len());
        assert_eq!(*kept.last().expect("a line"), lines[3999]);
        assert_eq!(log.lines_missing, 1 + 4000 - i64::try_from(kept.len()).expect("a number"));
    }

    #[test]
    fn one_endless_line_is_no_log() {
        let mut endless = testimony("\u{1}".repeat(100_000));
        fit_testimony(&mut endless);
        assert_eq!(endless.log, None);
    }

    #[test]
    fn pods_that_do_not_fit_are_not_named() {
        let pod = |number: usize| AffectedPod {
            namespace: "n".repeat(63),
            name: format!("{number:0253}"),
            uid: format!("{number:036}"),
            controller: Some("ReplicaSet".to_owned()),
            left: None,
        };
        let mut status =
            KernelIncidentStatus { pod_count: Some(300), pods: (0..300).map(pod).collect(), ..Default::default() };
        fit_leader(&mut status);
        assert!(json_bytes(&status) <= LEADER_BYTES && status.pods.len() > 150, "{}", status.pods.len());
        assert_eq!((status.pod_count, status.pods[0].name.ends_with("00")), (Some(300), true));
    }
}
