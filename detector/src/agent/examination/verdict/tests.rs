//! Tables of cases: a refusal and a machine in, reason and remedy out.

use rstest::rstest;

use super::*;
use crate::agent::source::surroundings::mounts::Mounts;

const ALL: &str = "000001ffffffffff";
const NONE: &str = "0000000000000000";
/// CAP_BPF and CAP_PERFMON.
const FINE: &str = "000000c000000000";
const BPF_ALONE: &str = "0000008000000000";
const WHOLE_MACHINE: &str = "0 0 4294967295";

fn rights(effective: &str, uid_map: &str) -> Option<Rights> {
    let status = format!("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t{effective}\n");
    Some(Rights::parse(&status, "40", Some(uid_map)).expect("a status"))
}

fn with(effective: &str) -> Seen {
    Seen { rights: rights(effective, WHOLE_MACHINE), ..Seen::default() }
}

fn locked(effective: &str, lockdown: Lockdown) -> Seen {
    Seen { surroundings: Surroundings { lockdown, ..Surroundings::default() }, ..with(effective) }
}

fn on_tracefs(effective: &str, tracefs: Option<&str>, tracefs_readable: bool) -> Seen {
    let mounts = Mounts { tracefs: tracefs.map(str::to_owned), tracefs_readable, bpffs: None };
    Seen { surroundings: Surroundings { mounts, ..Surroundings::default() }, ..with(effective) }
}

fn setting(name: &'static str, value: Option<&str>, effective: &str) -> Seen {
    let settings = vec![(name, value.map(str::to_owned))];
    Seen { surroundings: Surroundings { settings, ..Surroundings::default() }, ..with(effective) }
}

fn remedy(verdict: &Verdict) -> &str {
    verdict.remedy.as_deref().unwrap_or_default()
}

#[rstest]
#[case::both(NONE, "give CAP_BPF and CAP_PERFMON, or run it as root")]
#[case::one(BPF_ALONE, "give CAP_PERFMON, or run it as root")]
fn a_missing_capability_is_named_before_the_kernel_is_blamed(#[case] effective: &str, #[case] wanted: &str) {
    for method in [Method::Fentry, Method::Kprobe, Method::RawTracepoint] {
        let verdict = locked(effective, Lockdown::Confidentiality).refused(method, Refusal::NotPermitted);
        assert_eq!((verdict.reason, remedy(&verdict)), (Reason::MissingCapability, wanted));
    }
}

#[test]
fn a_refused_trampoline_is_told_from_a_missing_capability() {
    let refused = |seen: Seen, method| seen.refused(method, Refusal::NotPermitted).reason;
    assert_eq!(refused(with(FINE), Method::Fentry), Reason::TrampolineRefused);
    assert_eq!(refused(with(ALL), Method::Fentry), Reason::TrampolineRefused);
    assert_eq!(refused(with(BPF_ALONE), Method::Fentry), Reason::MissingCapability);
    assert_eq!(refused(with(ALL), Method::Kprobe), Reason::NotPermitted);
}

#[test]
fn lockdown_is_blamed_only_where_it_keeps_kernel_memory() {
    for refusal in [Refusal::NotPermitted, Refusal::Verifier] {
        let reason = |lockdown| locked(ALL, lockdown).refused(Method::RawTracepoint, refusal).reason;
        assert_eq!(reason(Lockdown::Confidentiality), Reason::Lockdown);
        assert_ne!(reason(Lockdown::Integrity), Reason::Lockdown);
        assert_ne!(reason(Lockdown::Unknown), Reason::Lockdown);
    }
}

#[test]
fn rights_in_a_user_namespace_are_none() {
    let seen = Seen { rights: rights(ALL, "0 100000 65536"), ..Seen::default() };
    assert_eq!(seen.refused(Method::Fentry, Refusal::NotPermitted).reason, Reason::UserNamespace);
    assert_eq!(seen.no_kernel_log(&io::ErrorKind::PermissionDenied.into()).reason, Reason::UserNamespace);
}

#[rstest]
#[case::not_mounted(ALL, None, false, Reason::NoTracefs, "mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing")]
#[case::elsewhere(
    ALL,
    Some("/mnt/trace"),
    true,
    Reason::NoTracefs,
    "mount tracefs where it is looked for, too: mount -t tracefs tracefs /sys/kernel/tracing"
)]
#[case::closed(
    FINE,
    Some("/sys/kernel/tracing"),
    false,
    Reason::MissingCapability,
    "give CAP_DAC_READ_SEARCH, or run it as root: tracefs is root's"
)]
#[case::no_such_event(
    ALL,
    Some("/sys/kernel/tracing"),
    true,
    Reason::NoHook,
    "boot another kernel: this one has no such tracepoint"
)]
fn tracefs_may_be_missing_misplaced_or_closed(
    #[case] effective: &str,
    #[case] mounted: Option<&str>,
    #[case] readable: bool,
    #[case] reason: Reason,
    #[case] wanted: &str,
) {
    let verdict = on_tracefs(effective, mounted, readable).refused(Method::Tracepoint, Refusal::NoTracefs);
    assert_eq!((verdict.reason, remedy(&verdict)), (reason, wanted));
}

#[test]
fn a_closed_tracefs_is_told_from_a_forbidden_tracepoint() {
    let reason = |seen: Seen| seen.refused(Method::Tracepoint, Refusal::NotPermitted).reason;
    assert_eq!(reason(on_tracefs(FINE, Some("/sys/kernel/tracing"), false)), Reason::MissingCapability);
    assert_eq!(reason(on_tracefs(FINE, Some("/sys/kernel/tracing"), true)), Reason::NotPermitted);
}

#[rstest]
#[case::restricted(FINE, Some("1"), io::ErrorKind::PermissionDenied, Reason::MissingCapability)]
#[case::unknown_setting(FINE, None, io::ErrorKind::PermissionDenied, Reason::MissingCapability)]
#[case::open_to_all(FINE, Some("0"), io::ErrorKind::PermissionDenied, Reason::NotPermitted)]
#[case::device_rule(ALL, Some("1"), io::ErrorKind::PermissionDenied, Reason::NotPermitted)]
#[case::no_device(ALL, Some("1"), io::ErrorKind::NotFound, Reason::NoKernelLog)]
#[case::broken(ALL, Some("1"), io::ErrorKind::InvalidInput, Reason::Other)]
fn the_kernels_log_may_be_restricted_forbidden_or_missing(
    #[case] effective: &str,
    #[case] restrict: Option<&str>,
    #[case] error: io::ErrorKind,
    #[case] reason: Reason,
) {
    let seen = setting("kernel.dmesg_restrict", restrict, effective);
    assert_eq!(seen.no_kernel_log(&error.into()).reason, reason);
}

#[test]
fn locked_memory_is_blamed_only_if_the_rights_are_there() {
    assert_eq!(with(NONE).not_loaded(true).reason, Reason::MissingCapability);
    assert_eq!(with(FINE).not_loaded(true).reason, Reason::MemoryLockLimit);
    assert_eq!(with(ALL).not_loaded(true).reason, Reason::NotPermitted);
    assert_eq!(with(FINE).not_loaded(false).reason, Reason::Other);
}

#[rstest]
#[case::off(Some("0"), true)]
#[case::no_watch(None, true)]
#[case::on(Some("120"), false)]
fn a_kernel_without_its_watch_is_warned_of_whatever_the_method(#[case] timeout: Option<&str>, #[case] warned: bool) {
    let seen = setting("kernel.hung_task_timeout_secs", timeout, ALL);
    for method in [Some(Method::BtfTracepoint), Some(Method::Kmsg), None] {
        assert_eq!(!seen.warnings(Detector::HungTask, method).is_empty(), warned);
    }
    assert!(seen.warnings(Detector::Oom, None).is_empty());
}

#[test]
fn used_up_warnings_matter_to_the_log_alone() {
    let mut seen = setting("kernel.hung_task_warnings", Some("0"), ALL);
    seen.surroundings.settings.push(("kernel.hung_task_timeout_secs", Some("120".to_owned())));
    assert_eq!(seen.warnings(Detector::HungTask, Some(Method::Kmsg)).len(), 1);
    assert!(seen.warnings(Detector::HungTask, Some(Method::BtfTracepoint)).is_empty());
}

#[rstest]
#[case("kernel.unprivileged_bpf_disabled", "2", NONE, true)]
#[case("kernel.unprivileged_bpf_disabled", "2", FINE, false)]
#[case("kernel.unprivileged_bpf_disabled", "0", NONE, false)]
#[case("kernel.perf_event_paranoid", "3", FINE, true)]
#[case("kernel.perf_event_paranoid", "2", FINE, false)]
#[case("kernel.perf_event_paranoid", "-1", FINE, false)]
#[case("kernel.perf_event_paranoid", "4", ALL, false)]
#[case("kernel.dmesg_restrict", "1", FINE, true)]
#[case("kernel.dmesg_restrict", "1", ALL, false)]
#[case("kernel.kptr_restrict", "2", ALL, true)]
#[case("kernel.kptr_restrict", "1", ALL, false)]
#[case("kernel.kptr_restrict", "1", FINE, true)]
#[case("kernel.ftrace_enabled", "0", ALL, true)]
#[case("kernel.ftrace_enabled", "1", ALL, false)]
fn only_values_that_matter_to_this_process_have_an_effect(
    #[case] name: &'static str,
    #[case] value: &str,
    #[case] effective: &str,
    #[case] has_effect: bool,
) {
    assert_eq!(setting(name, Some(value), effective).effect(name, Some(value)).is_some(), has_effect);
}

#[test]
fn a_distributions_level_of_paranoia_is_blamed_for_kprobes_and_classic_tracepoints_alone() {
    let seen = setting("kernel.perf_event_paranoid", Some("3"), FINE);
    let reason = |seen: &Seen, method| seen.refused(method, Refusal::NotPermitted).reason;
    assert_eq!(reason(&seen, Method::Kprobe), Reason::PerfEventParanoid);
    assert_eq!(reason(&seen, Method::Tracepoint), Reason::PerfEventParanoid);
    assert_eq!(reason(&seen, Method::Fentry), Reason::TrampolineRefused);
    let usual = setting("kernel.perf_event_paranoid", Some("2"), FINE);
    assert_eq!(reason(&usual, Method::Kprobe), Reason::NotPermitted);
    let all = setting("kernel.perf_event_paranoid", Some("3"), ALL);
    assert_eq!(reason(&all, Method::Kprobe), Reason::NotPermitted);
}

#[test]
fn addresses_are_open_where_tracing_is_open_to_all() {
    let seen = setting("kernel.perf_event_paranoid", Some("1"), FINE);
    assert_eq!(seen.effect("kernel.kptr_restrict", Some("0")), None);
    assert!(with(FINE).effect("kernel.kptr_restrict", Some("0")).is_some());
}
