//! Names for addresses in the kernel, from `/proc/kallsyms`.
//!
//! blazesym finds the symbols. Its table of all of them takes 8 MB on a kernel that has 122,000, so that it is dropped
//! after each look-up and what was found is kept: a look-up takes some 0.1 s, most of it spent by the kernel in writing
//! the text, and stacks of tasks that hang repeat themselves.
//!
//! ```text
//! addresses ─▶ kept frames ─▶ look-up of the others ─▶ their modules ─▶ frames
//!              kernel: for good         ffffffff8110a3b0 T io_schedule
//!              modules: one batch       ffffffffc0401000 t ext4_map_blocks  [ext4]
//! ```
//!
//! The kernel's own text stays where it is until the machine boots. A module may be removed and another one loaded in its
//! place, so that its symbols are kept for one batch of records only, in which the tasks that hang in it hold it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use blazesym::{
    MaybeDefault,
    symbolize::{
        Input, Symbolizer,
        source::{Kernel, Source},
    },
};
use thiserror::Error;

use super::{frame::Frame, memory::release_unused, small_file::under};

/// Frames that are kept at most. Beyond it all are looked up anew.
const MAX_KEPT: usize = 4096;
/// Bytes of the file that are read at most; kernels have 5 to 15 MB.
const MAX_BYTES: u64 = 256 << 20;
/// The longest function that is believed in, in bytes. The file tells no sizes: what is farther from the nearest symbol
/// below belongs to no symbol.
const MAX_FUNCTION: u64 = 1 << 20;
/// How a line begins whose address the kernel does not show.
const HIDDEN: &[u8] = b"0000000000000000 ";

/// Why addresses stay without names.
#[derive(Debug, Error)]
pub enum SymbolsError {
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The library could not look symbols up in it.
    #[error("looking symbols up in {}", path.display())]
    LookUp {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: blazesym::Error,
    },
    /// The kernel shows zeros in place of addresses.
    #[error("{} shows no addresses: without CAP_SYSLOG kernel.kptr_restrict hides them", path.display())]
    Hidden {
        /// The file.
        path: PathBuf,
    },
}

/// Finds names for addresses in the kernel.
#[derive(Debug)]
pub struct Symbols {
    path: PathBuf,
    kernel: HashMap<u64, Frame>,
    modules: HashMap<u64, Frame>,
    /// The file did not help once and is not read again: what hides addresses stays for as long as the program runs.
    useless: bool,
    error: Option<SymbolsError>,
}

impl Symbols {
    /// Those of the machine seen through `root`. Reads nothing yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            path: under(root, "/proc/kallsyms"),
            kernel: HashMap::new(),
            modules: HashMap::new(),
            useless: false,
            error: None,
        }
    }

    /// The frames of a stack of return addresses, in the same order. Where no symbol is found the frame has none.
    pub fn frames(&mut self, addresses: &[u64]) -> Vec<Frame> {
        if self.kernel.len() + self.modules.len() + addresses.len() > MAX_KEPT {
            self.kernel.clear();
            self.modules.clear();
        }
        let known = |address: &u64| self.kernel.contains_key(address) || self.modules.contains_key(address);
        let unknown: Vec<u64> = addresses.iter().copied().filter(|address| !known(address)).collect();
        if !unknown.is_empty() && !self.useless {
            self.look_up(&unknown);
        }
        let frame = |address| self.kernel.get(address).or_else(|| self.modules.get(address)).cloned();
        addresses.iter().map(|address| frame(address).unwrap_or_default()).collect()
    }

    /// Ends a batch: modules may come and go from now on.
    pub fn end_batch(&mut self) {
        self.modules = HashMap::new();
    }

    /// What went wrong since the last call. Told once: it does not mend while the program runs.
    pub fn take_error(&mut self) -> Option<SymbolsError> {
        self.error.take()
    }

    fn look_up(&mut self, addresses: &[u64]) {
        match self.search(addresses) {
            Ok(found) => {
                // Those without a symbol, too, or each of them would cost a look-up every time.
                self.modules.extend(addresses.iter().map(|address| (*address, Frame::default())));
                release_unused();
                for (address, frame) in found {
                    if frame.module.is_some() {
                        self.modules.insert(address, frame);
                    } else {
                        self.modules.remove(&address);
                        self.kernel.insert(address, frame);
                    }
                }
            }
            Err(error) => {
                self.useless = true;
                self.error = Some(error);
            }
        }
    }

    fn search(&self, addresses: &[u64]) -> Result<Vec<(u64, Frame)>, SymbolsError> {
        // A return address may be the next function's: the call stands before it.
        let calls: Vec<u64> = addresses.iter().map(|address| address.saturating_sub(1)).collect();
        let kernel = Kernel {
            kallsyms: MaybeDefault::Some(self.path.clone()),
            // No image of the kernel: it would be the wrong one as easily as the right one, and far larger.
            vmlinux: MaybeDefault::None,
            ..Kernel::default()
        };
        let failed = |source| SymbolsError::LookUp { path: self.path.clone(), source };
        // Made anew each time, because it keeps the table of all symbols.
        let symbolizer = Symbolizer::new();
        let symbols = symbolizer.symbolize(&Source::Kernel(kernel), Input::AbsAddr(&calls)).map_err(failed)?;
        let mut found: Vec<(u64, u64, Frame)> = addresses
            .iter()
            .zip(&symbols)
            .filter_map(|(address, symbol)| {
                let symbol = symbol.as_sym().filter(|symbol| address.saturating_sub(symbol.addr) <= MAX_FUNCTION)?;
                let frame = Frame {
                    symbol: Some(Arc::from(&*symbol.name)),
                    offset: address.saturating_sub(symbol.addr),
                    module: None,
                };
                Some((*address, symbol.addr, frame))
            })
            .collect();
        self.name_modules(&mut found)?;
        Ok(found.into_iter().map(|(address, _, frame)| (address, frame)).collect())
    }

    /// The library does not tell modules; the third column of the file does. `/proc/modules` would, too, but who reads it
    /// waits for a lock (`module_mutex`) that a task that hangs may hold.
    fn name_modules(&self, found: &mut [(u64, u64, Frame)]) -> Result<(), SymbolsError> {
        let failed = |source| SymbolsError::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(failed)?;
        let (mut file, mut line) = (BufReader::new(file.take(MAX_BYTES)), Vec::new());
        let mut shown = false;
        while file.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            shown |= !line.starts_with(HIDDEN);
            if let Some((start, module)) = of_module(&line) {
                for (_, _, frame) in found.iter_mut().filter(|(_, symbol, _)| *symbol == start) {
                    frame.module.get_or_insert_with(|| Arc::from(module));
                }
            }
            line.clear();
        }
        if shown { Ok(()) } else { Err(SymbolsError::Hidden { path: self.path.clone() }) }
    }
}

/// Address and module of a line `address type name [module]` (proc_kallsyms(5)); `None` for the kernel's own symbols.
fn of_module(line: &[u8]) -> Option<(u64, &str)> {
    let line = line.strip_suffix(b"]\n")?;
    let module = std::str::from_utf8(line.rsplit(|byte| *byte == b'[').next()?).ok()?;
    let address = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    Some((u64::from_str_radix(address, 16).ok()?, module))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const KALLSYMS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81001000 T io_schedule
ffffffff81001000 T io_schedule_alias
ffffffff81001100 t die
ffffffff81001140 W weak_one
ffffffff82000000 D some_data
ffffffffc0400000 t init_one\t[loop]
ffffffffc0401000 t ext4_map_blocks\t[ext4]
ffffffffc0400800 t lo_ioctl\t[loop]
";

    fn symbols(kallsyms: &str) -> (tempfile::TempDir, Symbols) {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("proc")).expect("a directory");
        fs::write(root.path().join("proc/kallsyms"), kallsyms).expect("a file");
        let symbols = Symbols::new(root.path());
        (root, symbols)
    }

    fn told(symbols: &mut Symbols, addresses: &[u64]) -> Vec<String> {
        symbols.frames(addresses).iter().map(Frame::to_string).collect()
    }

    #[test]
    fn addresses_in_any_order_get_their_symbol_offset_and_module() {
        let (_root, mut symbols) = symbols(KALLSYMS);
        let addresses = [0xffff_ffff_c040_1012, 0xffff_ffff_8100_1046, 0xffff_ffff_c040_0900, 0xffff_ffff_8100_1047];
        let expected = ["ext4_map_blocks+0x12 [ext4]", "io_schedule+0x46", "lo_ioctl+0x100 [loop]", "io_schedule+0x47"];
        assert_eq!(told(&mut symbols, &addresses), expected);
        assert!(symbols.take_error().is_none());
    }

    #[test]
    fn a_call_at_the_very_end_of_a_function_belongs_to_it_and_not_to_the_next() {
        let (_root, mut symbols) = symbols(KALLSYMS);
        assert_eq!(told(&mut symbols, &[0xffff_ffff_8100_1140]), ["die+0x40"]);
    }

    #[test]
    fn what_no_function_covers_has_no_symbol() {
        let (_root, mut symbols) = symbols(KALLSYMS);
        let addresses = [0, 0x1000, 0xffff_ffff_9000_0000, u64::MAX];
        assert_eq!(told(&mut symbols, &addresses), ["?"; 4]);
    }

    #[test]
    fn the_kernels_symbols_are_kept_and_those_of_modules_for_one_batch_only() {
        let (root, mut symbols) = symbols(KALLSYMS);
        let (kernel, module) = (0xffff_ffff_8100_1046, 0xffff_ffff_c040_1012);
        symbols.frames(&[kernel, module]);
        let later =
            KALLSYMS.replace("ext4_map_blocks\t[ext4]", "xfs_bmapi\t[xfs]").replace("io_schedule\n", "renamed\n");
        fs::write(root.path().join("proc/kallsyms"), later).expect("a file");
        assert_eq!(told(&mut symbols, &[kernel, module]), ["io_schedule+0x46", "ext4_map_blocks+0x12 [ext4]"]);
        symbols.end_batch();
        assert_eq!(told(&mut symbols, &[kernel, module]), ["io_schedule+0x46", "xfs_bmapi+0x12 [xfs]"]);
    }

    #[test]
    fn hidden_addresses_are_told_once_and_not_looked_for_again() {
        let (_root, mut symbols) = symbols("0000000000000000 T io_schedule\n0000000000000000 t f\t[ext4]\n");
        assert_eq!(told(&mut symbols, &[0xffff_ffff_8100_1046]), ["?"]);
        assert!(matches!(symbols.take_error(), Some(SymbolsError::Hidden { .. })));
        assert_eq!(told(&mut symbols, &[0xffff_ffff_8100_1047]), ["?"]);
        assert!(symbols.take_error().is_none());
    }

    #[test]
    fn a_missing_file_is_an_error_and_frames_without_symbols() {
        let mut symbols = Symbols::new(Path::new("/nonexistent"));
        assert_eq!(symbols.frames(&[1, 2]), [Frame::default(), Frame::default()]);
        assert!(matches!(symbols.take_error(), Some(SymbolsError::LookUp { .. })));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let odd = format!("\n\nnonsense\nffffffff81001010\nffffffff81001020 T\n\u{fffd}\n{KALLSYMS}");
        let (_root, mut symbols) = symbols(&odd);
        assert_eq!(told(&mut symbols, &[0xffff_ffff_8100_1046]), ["io_schedule+0x46"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (_root, mut symbols) = symbols(KALLSYMS);
        for base in (0..).step_by(48).take(MAX_KEPT / 16) {
            let addresses: Vec<u64> = (0xffff_ffff_8100_1001 + base..).take(48).collect();
            assert!(symbols.frames(&addresses).iter().all(|frame| frame.symbol.is_some()));
            assert!(symbols.kernel.len() + symbols.modules.len() <= MAX_KEPT);
        }
    }

    #[test]
    fn a_line_of_the_kernel_has_no_module_and_an_odd_one_neither() {
        assert_eq!(of_module(b"ffffffffc0401000 t ext4_map_blocks\t[ext4]\n"), Some((0xffff_ffff_c040_1000, "ext4")));
        for odd in ["ffffffff81001000 T io_schedule\n", "]\n", "[x]\n", "zz t f\t[ext4]\n", "ff t f\t[ext4]", ""] {
            assert_eq!(of_module(odd.as_bytes()), None, "{odd:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_breaks_the_search(text in vec(any::<u8>(), 0..300), addresses in vec(any::<u64>(), 1..5)) {
            let root = tempfile::tempdir().expect("a directory");
            fs::create_dir(root.path().join("proc")).expect("a directory");
            fs::write(root.path().join("proc/kallsyms"), text).expect("a file");
            prop_assert_eq!(Symbols::new(root.path()).frames(&addresses).len(), addresses.len());
        }
    }
}
