//! Addresses of the kernel's symbols that the probe on panic looks at.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use detector_common::last_words::Address;

use crate::agent::source::{bpf::offsets::Offsets, small_file::under};

/// Bytes of the file that are read at most; kernels have 5 to 15 MB.
const MAX_BYTES: u64 = 256 << 20;

/// If not 0, each oops is a panic (`kernel/panic.c`).
const PANIC_ON_OOPS: &str = "panic_on_oops";
/// `include/asm-generic/percpu.h`.
const PER_CPU_OFFSETS: &str = "__per_cpu_offset";
/// The structure that holds the preempt count of x86 from Linux 6.2 to 6.14 (`arch/x86/include/asm/current.h`).
const PCPU_HOT: &str = "pcpu_hot";
/// The variable that does so before and after (`arch/x86/include/asm/preempt.h`).
const PREEMPT_COUNT: &str = "__preempt_count";

/// The idle task of the first CPU (`init/init_task.c`).
const INIT_TASK: &str = "init_task";

const WANTED: [&str; 5] = [PANIC_ON_OOPS, PER_CPU_OFFSETS, PCPU_HOT, PREEMPT_COUNT, INIT_TASK];

/// Addresses by name of the symbol; those that the file does not show are missing.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<&'static str, u64>);

/// Reads them from the machine seen through `root`.
pub(super) fn read(root: &Path) -> io::Result<Found> {
    search(BufReader::new(File::open(under(root, "/proc/kallsyms"))?.take(MAX_BYTES)))
}

fn search(mut lines: impl BufRead) -> io::Result<Found> {
    let (mut found, mut line) = (BTreeMap::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some((name, address)) = symbol(&line) {
            found.entry(name).or_insert(address);
        }
        line.clear();
    }
    Ok(Found(found))
}

/// `ffffffff82b9a3c0 D panic_on_oops`; of a module, a name in brackets follows, and it is none of ours.
fn symbol(line: &[u8]) -> Option<(&'static str, u64)> {
    let line = line.trim_ascii_end();
    let name = WANTED.into_iter().find(|name| line.ends_with(name.as_bytes()))?;
    let mut words = line.split(|byte| *byte == b' ');
    let (address, _, last) = (words.next()?, words.next()?, words.next()?);
    let address = u64::from_str_radix(str::from_utf8(address).ok()?, 16).ok()?;
    // Zeros stand for an address that the kernel does not show.
    (last == name.as_bytes() && words.next().is_none() && address != 0).then_some((name, address))
}

impl Found {
    /// What the probe wants: index, value, and name for people. Where the preempt count lies in the task, `offsets` says so,
    /// and no address is wanted.
    pub(super) fn of_probe(&self, offsets: &Offsets) -> Vec<(Address, Option<u64>, &'static str)> {
        let of = |name: &str| self.0.get(name).copied();
        let mut wanted = vec![
            (Address::PanicOnOops, of(PANIC_ON_OOPS), PANIC_ON_OOPS),
            (Address::InitTask, of(INIT_TASK), INIT_TASK),
        ];
        let offset = |name: &str| offsets.values().iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        if offset("TASK_PREEMPT_COUNT").is_none() {
            let hot = offset("PCPU_HOT_PREEMPT_COUNT");
            let count = match hot {
                Some(hot) => of(PCPU_HOT).map(|address| address.wrapping_add(u64::from(hot))),
                None => of(PREEMPT_COUNT),
            };
            let name = if hot.is_some() { PCPU_HOT } else { PREEMPT_COUNT };
            wanted.push((Address::PerCpuOffsets, of(PER_CPU_OFFSETS), PER_CPU_OFFSETS));
            wanted.push((Address::PreemptCount, count, name));
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0000000000000000 A fixed_percpu_data\n\
        0000000000021b40 A pcpu_hot\n\
        ffffffff81000000 T not_panic_on_oops\n\
        ffffffff82b9a3c0 D panic_on_oops\n\
        ffffffff82b9a3c8 d __per_cpu_offset\n\
        ffffffffc0000000 d panic_on_oops\t[module]\n";

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let found = search(TEXT.as_bytes()).expect("bytes can be read");
        assert_eq!(
            found.0,
            BTreeMap::from([
                (PCPU_HOT, 0x21b40),
                (PANIC_ON_OOPS, 0xffff_ffff_82b9_a3c0),
                (PER_CPU_OFFSETS, 0xffff_ffff_82b9_a3c8)
            ])
        );
    }

    #[test]
    fn hidden_addresses_are_not_known() {
        let found = search(&b"0000000000000000 D panic_on_oops\n\xff\xfe panic_on_oops"[..]).expect("bytes");
        assert!(found.0.is_empty());
    }

    #[test]
    fn without_types_the_count_is_looked_for_in_a_variable_of_its_own() {
        let found = search(&b"0000000000001000 A __preempt_count\n"[..]).expect("bytes");
        let wanted = found.of_probe(&Offsets::unknown());
        assert_eq!(wanted[3], (Address::PreemptCount, Some(0x1000), PREEMPT_COUNT));
        assert_eq!((wanted[0].1, wanted[1].1, wanted[2].1), (None, None, None));
    }
}
