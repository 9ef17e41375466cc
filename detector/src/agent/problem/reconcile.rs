//! Our count of kills against the kernel's: for the machine, and for the cgroups that still tell theirs.

use std::{collections::BTreeMap, sync::Arc};

/// Cgroups named at most, if counts differ.
pub const NAMED_CGROUPS: usize = 16;

/// Kills seen in one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Path of the victims' cgroup.
    pub path: Arc<str>,
    /// Kills told.
    pub kills: u64,
    /// Group kills among them whose chosen victim lived here.
    pub group_incidents: u64,
}

/// Differences by cgroup: path → kills that the kernel counted there and we did not see, deepest cgroups only.
///
/// `kernel` is what the kernel counted per living cgroup. On cgroup v2 (`memory.events`) a cgroup counts for all below
/// it, also for those that are gone (`hierarchical`); on v1 (`memory.oom_control`) for itself alone.
#[must_use]
pub fn by_cgroup(kernel: &[(String, u64)], seen: &[Seen], hierarchical: bool) -> BTreeMap<String, i64> {
    let mut differing: BTreeMap<String, i64> = BTreeMap::new();
    for (path, count) in kernel {
        let ours = |seen: &&Seen| *seen.path == **path || (hierarchical && is_below(&seen.path, path));
        let (mut kills, mut groups) = (0, 0);
        for seen in seen.iter().filter(ours) {
            kills += seen.kills;
            groups += seen.group_incidents;
        }
        let difference = unaccounted(*count, kills, groups);
        // Fewer than we saw: the path belongs to a new cgroup, whose count began anew.
        if difference > 0 {
            differing.insert(path.clone(), difference);
        }
    }
    let deepest = |path: &String| !hierarchical || !differing.keys().any(|other| is_below(other, path));
    differing.iter().filter(|(path, _)| deepest(path)).take(NAMED_CGROUPS).map(|(path, n)| (path.clone(), *n)).collect()
}

fn is_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// Kills that the kernel counted and we did not see; negative if we saw more than it counted.
///
/// The kernel counts the chosen victim of a group kill a second time when it goes through the members of the group
/// (`oom_kill_process`, `mm/oom_kill.c`), unless the victim has given up its memory by then. So a group kill explains one
/// count more, or none.
#[must_use]
pub fn unaccounted(kernel: u64, kills: u64, group_incidents: u64) -> i64 {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if kernel < kills {
        return -signed(kills - kernel);
    }
    signed((kernel - kills).saturating_sub(group_incidents))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn seen(path: &str, kills: u64) -> Seen {
        Seen { path: Arc::from(path), kills, group_incidents: 0 }
    }

    #[test]
    fn a_living_ancestor_counts_for_those_that_are_gone() {
        let kernel = [("/a".to_owned(), 3)];
        assert_eq!(by_cgroup(&kernel, &[seen("/a/gone", 2), seen("/a/b", 1)], true), BTreeMap::new());
    }

    #[test]
    fn a_path_used_again_by_a_new_cgroup_hides_nothing() {
        let kernel = [("/s".to_owned(), 4), ("/s/foo.service".to_owned(), 1)];
        assert_eq!(by_cgroup(&kernel, &[seen("/s/foo.service", 3)], true), BTreeMap::from([("/s".to_owned(), 1)]));
    }

    #[test]
    fn only_the_deepest_cgroup_that_differs_is_named() {
        let kernel = [("/a".to_owned(), 3), ("/a/b".to_owned(), 2), ("/c".to_owned(), 1)];
        let expected = BTreeMap::from([("/a/b".to_owned(), 1)]);
        assert_eq!(by_cgroup(&kernel, &[seen("/a/b", 1), seen("/a", 1), seen("/c", 1)], true), expected);
    }

    #[test]
    fn on_cgroup_v1_each_cgroup_counts_for_itself() {
        let kernel = [("/a".to_owned(), 1), ("/a/b".to_owned(), 1)];
        let expected = BTreeMap::from([("/a".to_owned(), 1)]);
        assert_eq!(by_cgroup(&kernel, &[seen("/a/b", 1)], false), expected);
    }

    #[test]
    fn a_name_that_merely_begins_alike_is_not_below() {
        assert!(!is_below("/ab", "/a"));
        assert!(is_below("/a/b", "/a"));
        assert!(is_below("/a", "/"));
        assert!(!is_below("/", "/"));
    }

    #[rstest]
    #[case::equal(5, 5, 0, 0)]
    #[case::the_chosen_of_a_group_counts_twice(5, 4, 1, 0)]
    #[case::unless_it_was_gone_by_then(4, 4, 1, 0)]
    #[case::one_missed(6, 5, 0, 1)]
    #[case::one_missed_beside_a_group(7, 5, 1, 1)]
    #[case::more_than_the_kernel(4, 5, 1, -1)]
    fn difference_to_the_kernel(#[case] kernel: u64, #[case] kills: u64, #[case] groups: u64, #[case] expected: i64) {
        assert_eq!(unaccounted(kernel, kills, groups), expected);
    }
}
