//! Words of a condition's message.

use std::fmt::Write;

use jiff::Timestamp;

use super::{super::report::Subject, cause::Cause, cause::Task};
use crate::text::{cut, harmless};

/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 1024;
/// Bytes of a name of something in Kubernetes, and of a cgroup's path, that a message shows at most: a name has no more
/// (RFC 1123 subdomain), a path may.
const NAME: usize = 253;
/// Bytes of a label, such as a namespace or a container's name, that it shows at most.
const LABEL: usize = 63;
/// What stands before a message that was found at the start.
const ADOPTED: &str = "stood before the agent started, is being verified: ";

/// What a condition says because of `cause`, while `others` more tasks hang. `now_ns`: the time, to tell how long; `None`
/// gives the text that stays the same while nothing changes.
pub(super) fn hung(task: &Task, cause: &Cause, others: usize, now_ns: Option<u64>) -> String {
    let mut text = String::from("task ");
    // Writing to a `String` cannot fail.
    write_hung(&mut text, task, cause, others, now_ns).ok();
    bounded(&text)
}

fn write_hung(
    text: &mut String,
    task: &Task,
    cause: &Cause,
    others: usize,
    now_ns: Option<u64>,
) -> Result<(), std::fmt::Error> {
    let comm = cause.comm.as_deref().map_or_else(|| "?".to_owned(), |comm| shown(comm, LABEL));
    write!(text, "{comm} (tid {}", task.tid)?;
    if let Some(pid) = cause.pid {
        write!(text, ", pid {pid}")?;
    }
    text.push(')');
    if let Some(leader) = cause.leader_comm.as_deref().filter(|leader| cause.comm.as_deref() != Some(leader)) {
        write!(text, " of process {}", shown(leader, LABEL))?;
    }
    write_place(text, &cause.subject)?;
    text.push_str(" hangs");
    if let Some(now_ns) = now_ns {
        write!(text, " for {} s", now_ns.saturating_sub(cause.since_ns) / 1_000_000_000)?;
    }
    write!(text, " since {}", time(cause.since_us))?;
    if let Some(lock) = &cause.lock {
        write!(text, ", waits for {}", shown(&lock.replace('_', " "), LABEL))?;
    }
    if let Some((comm, pid)) = &cause.holder {
        let comm = comm.as_deref().map_or_else(|| "?".to_owned(), |comm| shown(comm, LABEL));
        let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        write!(text, " held by {comm} (pid {pid})")?;
    }
    match others {
        0 => Ok(()),
        1 => text.write_str("; 1 more task hangs"),
        _ => write!(text, "; {others} more tasks hang"),
    }
}

fn write_place(text: &mut String, subject: &Subject) -> Result<(), std::fmt::Error> {
    let Subject { namespace, pod, pod_uid, container, container_id, unit, cgroup } = subject;
    match (namespace, pod, pod_uid) {
        (Some(namespace), Some(pod), _) => write!(text, " in pod {}/{}", shown(namespace, LABEL), shown(pod, NAME))?,
        (_, _, Some(uid)) => write!(text, " in the pod of uid {}", shown(uid, LABEL))?,
        _ => {}
    }
    match (container, container_id) {
        (Some(container), _) => return write!(text, " container {}", shown(container, LABEL)),
        (None, Some(id)) => return write!(text, " container {}", shown(id, 2 * LABEL)),
        (None, None) if pod_uid.is_some() => return Ok(()),
        (None, None) => {}
    }
    match (unit, cgroup) {
        (Some(unit), _) => write!(text, " in unit {}", shown(unit, NAME)),
        (None, Some(cgroup)) => write!(text, " in cgroup {}", shown(cgroup, NAME)),
        (None, None) => Ok(()),
    }
}

/// What a condition says that stood True before the agent started, of which nothing else is known yet. Said again after
/// another start it does not grow.
pub(super) fn adopted(message: &str) -> String {
    let message = message.strip_prefix(ADOPTED).unwrap_or(message);
    bounded(&format!("{ADOPTED}{}", harmless(message)))
}

/// A time of day as `metav1.Time` has it: whole seconds, UTC.
pub(super) fn time(us: i64) -> String {
    let time = Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX });
    // The fraction is cut, not rounded: a time must not lie in the future.
    let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
    format!("{seconds:.0}")
}

/// `text` without what would act where it is shown, and cut to `limit` bytes.
fn shown(text: &str, limit: usize) -> String {
    cut(&harmless(text), limit)
}

fn bounded(text: &str) -> String {
    cut(text, MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause() -> Cause {
        Cause {
            subject: Subject {
                namespace: Some("shop".into()),
                pod: Some("cart-0".into()),
                pod_uid: Some("0d6dfc9d".into()),
                container: Some("php".into()),
                container_id: Some("abc".into()),
                cgroup: Some("/kubepods/pod0d6dfc9d/abc".into()),
                unit: None,
            },
            pid: Some(4700),
            comm: Some("writer".into()),
            leader_comm: Some("php-fpm".into()),
            switches: Some(7),
            since_ns: 100_000_000_000,
            since_us: 1_700_000_000_900_000,
            lock: Some("rwsem_writer".into()),
            holder: Some((Some("kworker/u8:1".into()), Some(12))),
        }
    }

    const TASK: Task = Task { tid: 4711, start_ns: Some(1) };

    #[test]
    fn it_names_task_container_length_holder_and_the_number_of_others() {
        assert_eq!(
            hung(&TASK, &cause(), 3, Some(225_999_999_999)),
            "task writer (tid 4711, pid 4700) of process php-fpm in pod shop/cart-0 container php hangs for 125 s \
             since 2023-11-14T22:13:20Z, waits for rwsem writer held by kworker/u8:1 (pid 12); 3 more tasks hang"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = Cause {
            subject: Subject::default(),
            pid: None,
            comm: None,
            leader_comm: None,
            lock: None,
            holder: None,
            ..cause()
        };
        assert_eq!(
            hung(&TASK, &bare, 1, None),
            "task ? (tid 4711) hangs since 2023-11-14T22:13:20Z; 1 more task hangs"
        );
    }

    #[test]
    fn names_that_are_not_known_yet_give_way_to_ids() {
        let mut cause = cause();
        (cause.subject.pod, cause.subject.container) = (None, None);
        let text = hung(&TASK, &cause, 0, None);
        assert!(text.contains(" in the pod of uid 0d6dfc9d container abc hangs "), "{text}");
    }

    #[test]
    fn the_longest_names_leave_room_for_the_number_of_others() {
        let mut cause = cause();
        let long = || Some("ä".repeat(2000));
        let subject = Subject { namespace: long(), pod: long(), container: long(), ..cause.subject };
        cause = Cause { subject, comm: long(), leader_comm: Some("b".repeat(2000)), lock: long(), ..cause };
        cause.holder = Some((long(), Some(u32::MAX)));
        let text = hung(&TASK, &cause, usize::MAX, Some(u64::MAX));
        assert!(text.len() <= MAX_MESSAGE && text.ends_with(" more tasks hang"), "{} {text}", text.len());
    }

    #[test]
    fn control_characters_do_not_reach_the_cluster() {
        let cause = Cause { comm: Some("a\u{1b}[31m\nb\u{202e}c\u{2066}d".into()), ..cause() };
        let text = hung(&TASK, &cause, 0, None);
        assert!(text.starts_with("task a\u{fffd}[31m\u{fffd}b\u{fffd}c\u{fffd}d (tid"), "{text:?}");
        let text = adopted("task \u{202e}x hangs\r\n");
        assert!(text.ends_with("task \u{fffd}x hangs\u{fffd}\u{fffd}"), "{text:?}");
    }

    #[test]
    fn an_adopted_message_does_not_grow_from_start_to_start() {
        let once = adopted("task x hangs");
        assert_eq!(once, "stood before the agent started, is being verified: task x hangs");
        assert_eq!(adopted(&once), once);
        assert!(adopted(&"ü".repeat(3000)).len() <= MAX_MESSAGE);
    }

    #[test]
    fn a_time_has_whole_seconds_and_never_lies_ahead() {
        assert_eq!(time(1_700_000_000_999_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX).len(), "9999-12-31T23:59:59Z".len());
    }
}
