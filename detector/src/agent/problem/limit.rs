//! Whose limit was hit: the container's, the pod's, an ancestor's or the machine's; and init or child.

use super::{
    domain::at_limit,
    transition::{Domain, Limit, Process},
};
use crate::agent::{
    decode::event::{Level, OomMark},
    locate::{Container, Owner, Place},
};

/// Whose limit the domain is, from the victim's point of view.
#[must_use]
pub fn whose(domain: &Domain, mark: &OomMark, place: Option<&Place>) -> Limit {
    let hit = match domain {
        Domain::Node => return Limit::Node,
        Domain::Unknown => return Limit::Unknown,
        Domain::Cgroup { level, .. } => *level,
    };
    let Some(place) = place else { return Limit::Unknown };
    match &place.owner {
        Owner::Container(container) => of_container(container, hit, mark),
        Owner::Pod(pod) if hit >= pod.level => Limit::Pod,
        Owner::Pod(_) => Limit::Ancestor,
        Owner::Unit(_) | Owner::Cgroup => {
            let own = mark.levels.first().map(|level| level.level).or(mark.victim.cgroup_level).unwrap_or(hit);
            if hit >= own { Limit::Cgroup } else { above(own, hit, mark, (Limit::Cgroup, Limit::Ancestor)) }
        }
    }
}

fn of_container(container: &Container, hit: u32, mark: &OomMark) -> Limit {
    if hit > container.level {
        return Limit::Nested;
    }
    if hit == container.level {
        return Limit::Container;
    }
    match &container.pod {
        // kubelet gives a pod of one container the same limit as the container, and a container without a limit that of its
        // pod, if that has one of its own (KEP-2837); the kernel then names the pod.
        Some(pod) if hit >= pod.level => above(container.level, hit, mark, (Limit::Container, Limit::Pod)),
        Some(_) => Limit::Ancestor,
        None => above(container.level, hit, mark, (Limit::Container, Limit::Ancestor)),
    }
}

/// Whose limit was hit at depth `hit` above the victim's own depth: the first of both if its own is as good, else the
/// second. Where limits were not told neither can be.
fn above(own: u32, hit: u32, mark: &OomMark, (owns, others): (Limit, Limit)) -> Limit {
    match mark.levels.is_empty() {
        true => Limit::Unknown,
        false if as_good_as(own, hit, mark) => owns,
        false => others,
    }
}

/// Whether the limit at depth `own` is as good as the one at depth `hit` above it: equal, or lower and reached as well.
/// A charge goes from the leaf upwards (`page_counter_try_charge`), so that a lower limit with room left was not hit.
fn as_good_as(own: u32, hit: u32, mark: &OomMark) -> bool {
    let at = |depth: u32| mark.levels.iter().find(|level| level.level == depth);
    let limit = |level: Option<&Level>| level.and_then(|level| level.limit_pages.flatten());
    match (limit(at(own)), limit(at(hit))) {
        (Some(own_limit), Some(hit_limit)) => {
            own_limit == hit_limit || (own_limit < hit_limit && at(own).is_some_and(at_limit))
        }
        _ => false,
    }
}

/// Whether the victim was the first process of its container.
#[must_use]
pub fn process(mark: &OomMark, place: Option<&Place>) -> Process {
    let Some(Place { owner: Owner::Container(container), .. }) = place else { return Process::Unknown };
    if let (Some(init), Some(tgid)) = (container.init_pid, mark.victim.tgid) {
        return if init == tgid { Process::Init } else { Process::Child };
    }
    match mark.victim.namespace {
        // In the machine's own pid namespace the number says nothing.
        None => Process::Unknown,
        Some(namespace) if namespace.level == 0 => Process::Unknown,
        Some(namespace) if namespace.pid == 1 => Process::Init,
        Some(_) => Process::Child,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::agent::{
        decode::event::{CgroupKey, NamespacePid},
        locate::{Pod, Qos, Runtime},
        problem::oom::fixture::{level, mark},
    };

    fn place(init_pid: Option<u32>) -> Place {
        let pod = Pod { uid: "u".into(), qos: Qos::Burstable, level: 3, namespace: None, name: None };
        Place {
            path: Arc::from(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu.slice/cri-containerd-c.scope",
            ),
            owner: Owner::Container(Container {
                runtime: Runtime::Containerd,
                id: "c".into(),
                level: 4,
                name: None,
                init_pid,
                pod: Some(pod),
            }),
        }
    }

    fn domain(level: u32) -> Domain {
        Domain::Cgroup { key: Some(CgroupKey { hierarchy: 0, id: 1 }), level, path: None, limit_pages: None }
    }

    fn limits(container: Option<u64>, container_usage: u64, pod: Option<u64>) -> OomMark {
        let with = |depth: u32, limit, usage| Level {
            limit_pages: Some(limit),
            usage_pages: Some(usage),
            ..level(u64::from(depth), depth, 0)
        };
        mark(1).levels([with(4, container, container_usage), with(3, pod, 0), with(2, None, 0)])
    }

    #[rstest]
    #[case::the_containers_own(4, Some(100), 100, Some(200), Limit::Container)]
    #[case::inside_the_container(5, Some(100), 50, Some(200), Limit::Nested)]
    #[case::the_pods_with_room_in_the_container(3, Some(100_000), 10, Some(200_000), Limit::Pod)]
    #[case::the_pods_equal_to_the_containers(3, Some(100), 99, Some(100), Limit::Container)]
    #[case::the_pods_and_the_containers_reached_too(3, Some(100), 100, Some(150), Limit::Container)]
    #[case::the_pods_of_an_unlimited_container(3, None, 10, Some(100), Limit::Pod)]
    #[case::above_the_pod(2, Some(100), 10, Some(100), Limit::Ancestor)]
    fn limit_of_a_container(
        #[case] hit: u32,
        #[case] container: Option<u64>,
        #[case] usage: u64,
        #[case] pod: Option<u64>,
        #[case] expected: Limit,
    ) {
        assert_eq!(whose(&domain(hit), &limits(container, usage, pod), Some(&place(None))), expected);
    }

    #[test]
    fn the_machine_and_the_unknown_stay_what_they_are() {
        assert_eq!(whose(&Domain::Node, &mark(1), Some(&place(None))), Limit::Node);
        assert_eq!(whose(&Domain::Unknown, &mark(1), Some(&place(None))), Limit::Unknown);
        assert_eq!(whose(&domain(4), &mark(1), None), Limit::Unknown);
    }

    #[rstest]
    #[case::first_of_its_namespace(Some((1, 1)), None, Process::Init)]
    #[case::another_of_its_namespace(Some((7, 1)), None, Process::Child)]
    #[case::in_the_machines_namespace(Some((700, 0)), None, Process::Unknown)]
    #[case::the_runtime_knows_better(Some((7, 1)), Some(10), Process::Init)]
    #[case::not_the_one_the_runtime_knows(Some((1, 2)), Some(99), Process::Child)]
    #[case::not_told(None, None, Process::Unknown)]
    fn init_or_child(#[case] namespace: Option<(u32, u32)>, #[case] init: Option<u32>, #[case] expected: Process) {
        let mut mark = mark(1);
        mark.victim.tgid = Some(10);
        mark.victim.namespace = namespace.map(|(pid, level)| NamespacePid { pid, level });
        assert_eq!(process(&mark, Some(&place(init))), expected);
    }

    #[test]
    fn outside_a_container_nobody_is_init_or_child() {
        let place = Place { path: Arc::from("/x"), owner: Owner::Cgroup };
        assert_eq!(process(&mark(1), Some(&place)), Process::Unknown);
    }
}
