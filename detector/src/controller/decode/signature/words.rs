//! The words of single lines: who ran, where, with which modules.

/// Bytes of a comm at most: 15 of a program (`TASK_COMM_LEN`), up to 63 of a worker of the kernel.
const MAX_COMM_BYTES: usize = 64;

/// Bytes of a symbol at most (`KSYM_NAME_LEN` is 512, C's are short).
const MAX_SYMBOL_BYTES: usize = 128;

/// Bytes of a module's name at most (`MODULE_NAME_LEN`, `include/linux/moduleparam.h`).
const MAX_MODULE_BYTES: usize = 64;

/// Bytes of a release at most (`__NEW_UTS_LEN`).
const MAX_RELEASE_BYTES: usize = 64;

/// Letters of a taint at most: the kernel has 20 (`TAINT_FLAGS_COUNT`).
const MAX_TAINT_LETTERS: usize = 32;

/// `CPU: 1 UID: 0 PID: 4711 Comm: php-fpm Tainted: G W 6.12.0 #1` (`dump_stack_print_info`, `lib/dump_stack.c`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) task: Option<(u32, String)>,
    pub(super) taint: Option<String>,
    pub(super) release: Option<String>,
}

/// Reads who ran on the CPU that reports.
pub(super) fn cpu(text: &str) -> Option<Cpu> {
    let rest = text.strip_prefix("CPU: ")?;
    let (numbers, rest) = rest.split_once("Comm: ")?;
    let pid = numbers.split_once("PID: ")?.1.split(' ').next()?.parse().ok();
    // A program chooses its own name: what follows it is looked for from the end.
    let tainted = rest.rfind(" Tainted: ").map(|at| (at, " Tainted: "));
    let clean = rest.rfind(" Not tainted").map(|at| (at, " Not tainted"));
    let Some((at, mark)) = tainted.max(clean) else {
        return Some(Cpu { task: pid.zip(comm(rest)), ..Cpu::default() });
    };
    let (name, after) = (rest.get(..at)?, rest.get(at + mark.len()..)?);
    let name = name.strip_suffix(" Kdump: loaded").unwrap_or(name);
    let end = if mark == " Tainted: " { letters(after) } else { 0 };
    let taint: String = after.get(..end)?.chars().filter(char::is_ascii_uppercase).take(MAX_TAINT_LETTERS).collect();
    Some(Cpu {
        task: pid.zip(comm(name)),
        taint: Some(taint).filter(|taint| !taint.is_empty()),
        release: after.get(end..)?.split_whitespace().next().and_then(release),
    })
}

/// A release, if it can be one.
pub(super) fn release(word: &str) -> Option<String> {
    let likely = word.starts_with(|first: char| first.is_ascii_digit()) && word.len() <= MAX_RELEASE_BYTES;
    likely.then(|| word.to_owned())
}

fn comm(name: &str) -> Option<String> {
    let name = name.get(..name.floor_char_boundary(MAX_COMM_BYTES))?.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Bytes of the letters that a taint begins with, blanks among them.
fn letters(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_uppercase() || *byte == b' ').count()
}

/// Symbol at the instruction pointer, and the module that it is in: `RIP: 0010:SYMBOL+0x1/0x2 [MODULE]` on x86-64,
/// `pc : SYMBOL+0x1/0x2 [MODULE]` on arm64. Addresses of programs (`RIP: 0033:0x7f..`) have no symbol.
pub(super) fn symbol(text: &str) -> Option<(String, Option<String>)> {
    let place = match text.strip_prefix("RIP: ") {
        Some(rest) => rest.split_once(':')?.1,
        None => text.strip_prefix("pc : ")?,
    };
    let (symbol, rest) = place.split_once("+0x")?;
    let likely = !symbol.is_empty() && symbol.len() <= MAX_SYMBOL_BYTES && symbol.bytes().all(|b| b.is_ascii_graphic());
    let module = rest.split_once(" [").and_then(|(_, rest)| module(rest.split([' ', ']']).next()?));
    likely.then(|| (symbol.to_owned(), module))
}

/// Modules that taint: `Modules linked in: a b(OE) c [last unloaded: d]`. Flags that mean it: `P` proprietary, `O` built
/// outside of the tree, `F` forced, `C` staging (`module_flags_taint`, `kernel/module/main.c`).
pub(super) fn modules(text: &str) -> Option<impl Iterator<Item = String>> {
    let rest = text.strip_prefix("Modules linked in:")?;
    let names = rest.split('[').next().unwrap_or_default().split_whitespace();
    Some(names.filter_map(|word| {
        let (name, flags) = word.split_once('(')?;
        flags.contains(['P', 'O', 'F', 'C']).then(|| module(name)).flatten()
    }))
}

fn module(name: &str) -> Option<String> {
    let likely = !name.is_empty() && name.len() < MAX_MODULE_BYTES;
    let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    (likely && clean).then(|| name.to_owned())
}
