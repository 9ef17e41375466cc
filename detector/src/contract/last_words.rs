//! The line that the probe on panic puts into the dying kernel's own log: what it holds, and how it is read again.
//!
//! ```text
//! detector: last words v1 role=oom-domain confidence=high pid=4711 cgroup=6569 pod=shop/cart-0/php uid=<pod uid> comm=php-fpm
//! ```
//!
//! Words are `KEY=VALUE`, separated by one blank; no value but that of `comm` holds one, and `comm` comes last and goes to
//! the end of the line. `pod` is `NAMESPACE/POD/CONTAINER`; a key whose value is not known is missing. Unknown keys are left
//! out of account, so that a newer probe can say more. The kernel puts text of its own before the line (task, CPU, time,
//! `bpf_trace_printk:`), which differs between versions.
//!
//! A program can put the same words into a line of the kernel's, as the name of a cgroup or file. So the line counts only
//! where the trace buffer would put it: at the begin, or after that text ([`read_in_log`]).

/// What the line begins with, version included.
pub const MARK: &str = detector_common::last_words::MARK;

/// Bytes of the line at most, `MARK` included. `bpf_trace_printk` takes 1,024 (`kernel/trace/bpf_trace.c`).
pub const MAX_BYTES: usize = 512;

/// Bytes that the kernel puts before it at most: task, CPU, flags, time, `bpf_trace_printk:`.
pub const MAX_BEFORE: usize = 96;

/// Why a task is suspected; the table of `docs/last-words.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The task that ran on the dying CPU when the kernel faulted, in its own context.
    Current,
    /// The task that was last reported hung (`hung_task_panic`).
    HungTask,
    /// The biggest consumer of the domain whose limit was hit (`panic_on_oom`).
    OomDomain,
    /// The task that asked for the panic (`sysrq-c`).
    SysRq,
    /// Process 1 of the machine ended.
    Init,
    /// An interrupt or NMI: nobody can be suspected; pid and comm are those of whom it interrupted.
    Interrupt,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Current, Self::HungTask, Self::OomDomain, Self::SysRq, Self::Init, Self::Interrupt];

    /// Its word in the line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::HungTask => "hung-task",
            Self::OomDomain => "oom-domain",
            Self::SysRq => "sysrq",
            Self::Init => "init",
            Self::Interrupt => "interrupt",
        }
    }

    /// The one of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// How sure the probe is of its suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sureness {
    /// Nobody can be suspected; what the line names is only who was there.
    Unknown,
    /// May be a bystander.
    Low,
    /// Very likely.
    Medium,
    /// The kernel's own choice.
    High,
}

impl Sureness {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Low, Self::Medium, Self::High];

    /// Its word in the line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The one of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sureness| sureness.word() == word)
    }
}

/// A line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// Why it is suspected.
    pub role: Role,
    /// How sure that is.
    pub confidence: Sureness,
    /// Process id on the node, if told.
    pub pid: Option<u32>,
    /// Id of its memory cgroup, if told.
    pub cgroup: Option<u64>,
    /// `(namespace, pod, container)`, if the agent knew them.
    pub pod: Option<(String, String, String)>,
    /// `metadata.uid` of the pod.
    pub pod_uid: Option<String>,
    /// Name of the task, with what is not printable replaced by `?`.
    pub comm: Option<String>,
}

/// Names of a container as the agent prepares them for the probe: `pod=NAMESPACE/POD/CONTAINER uid=UID `, or only the part
/// that is known. Blanks and control characters cannot stand in Kubernetes names; what is no such name is left out.
#[must_use]
pub fn names(pod: Option<(&str, &str, &str)>, uid: Option<&str>) -> String {
    let clean =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/%".contains(&byte));
    let mut text = String::new();
    // The line is a format for the kernel, in which `%` means something.
    if let Some((namespace, pod, container)) = pod.filter(|(a, b, c)| [a, b, c].into_iter().all(clean)) {
        text.push_str(&format!("pod={namespace}/{pod}/{container} "));
    }
    if let Some(uid) = uid.filter(clean) {
        text.push_str(&format!("uid={uid} "));
    }
    text
}

/// Reads `line` of a kernel's log, without what a console puts before it, if it is ours. `None`: it is another, or breaks
/// the rules above.
#[must_use]
pub fn read_in_log(line: &str) -> Option<LastWords> {
    let at = line.find(MARK)?;
    (at == 0 || is_traced(line)).then(|| read(line)).flatten()
}

/// Whether what stands before [`MARK`] in `line` is what the kernel prints before a line of the trace buffer.
#[must_use]
pub fn is_traced(line: &str) -> bool {
    let before = line.split_once(MARK).map(|(before, _)| before);
    before.is_some_and(|before| before.len() <= MAX_BEFORE && is_trace(before))
}

/// `      sh-123       1d..1. 8123456us : bpf_trace_printk: ` or `      sh-123     [001] d..1.    8.123456: bpf_trace_printk: `
/// (`trace_print_lat_context` and `trace_print_context`, `kernel/trace/trace_output.c`).
fn is_trace(before: &str) -> bool {
    let Some(rest) = before.strip_suffix("bpf_trace_printk: ").and_then(|rest| rest.trim_end().strip_suffix(':'))
    else {
        return false;
    };
    let pid = rest.match_indices('-').find_map(|(at, _)| {
        let (task, rest) = (rest.get(..at)?.trim(), rest.get(at + 1..)?);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let after = rest.get(digits..)?;
        (digits > 0 && !task.is_empty() && task.len() <= 16 && after.starts_with(' ')).then_some(after)
    });
    // CPU and flags in one word or two, and the time.
    let words: Vec<&str> = pid.unwrap_or_default().split_whitespace().take(5).collect();
    let time = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    (2..=4).contains(&words.len()) && words.iter().skip(1).any(time)
}

/// Reads the line in `text`, whatever stands before it.
fn read(text: &str) -> Option<LastWords> {
    let (_, line) = text.split_once(MARK)?;
    let line = line.get(..line.floor_char_boundary(MAX_BYTES))?.lines().next()?;
    let (words, comm) = match line.split_once("comm=") {
        Some((words, comm)) => (words, Some(comm)),
        None => (line, None),
    };
    let value = |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let printable = |text: &str| text.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Some(LastWords {
        role: Role::of_word(value("role")?)?,
        confidence: Sureness::of_word(value("confidence")?)?,
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        cgroup: value("cgroup").and_then(|cgroup| cgroup.parse().ok()),
        pod: value("pod").and_then(|pod| {
            let mut parts = pod.splitn(3, '/').map(str::to_owned);
            Some((parts.next()?, parts.next()?, parts.next()?))
        }),
        pod_uid: value("uid").map(str::to_owned),
        comm: comm.map(printable).filter(|comm: &String| !comm.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_line_is_read_where_the_kernel_puts_it() {
        let names = names(Some(("shop", "cart-0", "php")), Some("u-1"));
        let text = format!(
            "     php-4711    [001] d..1.   12.5: bpf_trace_printk: {MARK}role=oom-domain confidence=high pid=4711 \
             cgroup=6569 {names}later=1 comm=php fpm: pool"
        );
        let words = read_in_log(&text).expect("our line");
        assert_eq!((words.role, words.confidence), (Role::OomDomain, Sureness::High));
        assert_eq!((words.pid, words.cgroup), (Some(4711), Some(6569)));
        assert_eq!(words.pod, Some(("shop".to_owned(), "cart-0".to_owned(), "php".to_owned())));
        assert_eq!(words.pod_uid.as_deref(), Some("u-1"));
        assert_eq!(words.comm.as_deref(), Some("php fpm: pool"));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::another_version("detector: last words v2 role=current confidence=low")]
    #[case::no_role("detector: last words v1 confidence=low")]
    #[case::a_foreign_role("detector: last words v1 role=me confidence=low")]
    #[case::no_confidence("detector: last words v1 role=current pid=1")]
    fn what_breaks_the_rules_is_no_line(#[case] text: &str) {
        assert_eq!(read_in_log(text), None);
    }

    #[rstest]
    #[case::name_of_a_cgroup("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/")]
    #[case::name_of_a_file("x-1 a[4711]: segfault at 0 ip 0 sp 0 error 4 in ")]
    #[case::that_knows_more("x-1 a[4711]: segfault at 0 ip 0 sp 0 error 4 in 1.0: bpf_trace_printk: ")]
    #[case::no_task("[001] d..1.    12.500000: bpf_trace_printk: ")]
    #[case::far_behind(
        "     php-4711      1d..1. 8123456us :                                                    bpf_trace_printk: "
    )]
    fn our_words_in_another_line_are_not_ours(#[case] before: &str) {
        assert_eq!(read_in_log(&format!("{before}{MARK}role=sysrq confidence=high pid=4711 comm=sh")), None);
    }

    #[test]
    fn what_is_not_known_is_missing() {
        let words =
            read_in_log("detector: last words v1 role=interrupt confidence=unknown pid=x pod=a/b").expect("a line");
        assert_eq!((words.pid, words.pod, words.comm), (None, None, None));
    }

    #[test]
    fn a_name_that_could_break_the_line_is_left_out() {
        assert_eq!(names(Some(("a b", "p", "c")), Some("u\n")), "");
        assert_eq!(names(Some(("a", "p%s", "c")), Some("%n")), "");
        assert_eq!(names(Some(("a", "p", "c")), None), "pod=a/p/c ");
    }
}
