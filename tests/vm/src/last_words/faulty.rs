//! A module that reads from address 0 as it is loaded. Debian's kernels have none that faults on purpose, so that one of
//! their own gets another beginning: five bytes of its first function, behind the call that ftrace knows of.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

/// `xor %eax,%eax; mov (%rax),%rax`.
const FAULT: [u8; 5] = [0x31, 0xc0, 0x48, 0x8b, 0x00];

/// `endbr64`, with which functions begin where the kernel tracks indirect branches, and the bytes of `call __fentry__`, which
/// comes next, or first.
const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const CALL: usize = 5;

/// The module that the guest has loaded already, and what its spoilt twin is called.
const NAME: &[u8] = b"loop\0";
const TWIN: &[u8] = b"twin\0";

/// What a signed module ends with (`include/linux/module_signature.h`); before it stands a structure of 12 bytes, the last
/// four of which tell how long the signature before it is.
const SIGNED: &[u8] = b"~Module signature appended~\n";
const SIGNATURE: usize = 12;

/// Sizes and places in ELF (`elf.h`): header of a section, symbol, relocation with addend.
const SECTION: usize = 64;
const SYMBOL: usize = 24;
const RELOCATION: usize = 24;

/// Loads `module` so that it faults in this very task. Returns only if it does not.
pub(super) fn run(module: &Path) -> Result<()> {
    let mut image = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    unsign(&mut image)?;
    spoil(&mut image)?;
    // SAFETY: the kernel reads so many bytes of the image, and an empty string of parameters.
    let loaded = unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) };
    bail!("the module was loaded, {loaded}: {}", std::io::Error::last_os_error())
}

/// Takes the signature off, which would not fit any more.
fn unsign(image: &mut Vec<u8>) -> Result<()> {
    let Some(unmarked) = image.len().checked_sub(SIGNED.len()).filter(|at| &image[*at..] == SIGNED) else {
        return Ok(());
    };
    let length = image.get(unmarked - 4..unmarked).context("a signature without a length")?;
    let length = u32::from_be_bytes(length.try_into()?) as usize;
    let end = unmarked.checked_sub(SIGNATURE + length).context("a signature that is too long")?;
    image.truncate(end);
    Ok(())
}

/// Puts the fault into `init_module`.
fn spoil(image: &mut [u8]) -> Result<()> {
    let elf = Elf::of(image)?;
    let (symbols, names) = (elf.section(".symtab")?, elf.section(".strtab")?);
    let (section, value) = elf.symbol(&symbols, &names, "init_module")?;
    let start = elf.sections.get(section).context("a symbol of no section")?.content.start;
    let lands = image.get(start + value..).is_some_and(|code| code.starts_with(&LANDING));
    let behind = value + CALL + if lands { LANDING.len() } else { 0 };
    let fault = behind..behind + FAULT.len();
    let relocations = elf.relocations_of(section);
    let about = elf.section(".gnu.linkonce.this_module")?;
    let name = image[about.clone()].windows(NAME.len()).position(|bytes| bytes == NAME).context("it has no name")?;
    image[about.start + name..][..NAME.len()].copy_from_slice(TWIN);
    image.get_mut(start + fault.start..start + fault.end).context("no such place")?.copy_from_slice(&FAULT);
    // What the kernel would write there must not be written: a relocation of type 0 is none.
    for at in relocations {
        let place = usize::try_from(number(image, at, 8)?)?;
        // Those of code are of four bytes.
        if place + 4 > fault.start && place < fault.end {
            ensure!(place >= fault.start, "a relocation lies across the beginning");
            image[at + 8..at + 12].fill(0);
        }
    }
    Ok(())
}

fn number(image: &[u8], at: usize, bytes: usize) -> Result<u64> {
    let field = image.get(at..at + bytes).context("the module is cut")?;
    Ok(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

struct Section {
    name: String,
    kind: u64,
    /// Section that it is about.
    about: usize,
    content: Range<usize>,
}

struct Elf<'a> {
    image: &'a [u8],
    sections: Vec<Section>,
}

impl<'a> Elf<'a> {
    fn of(image: &'a [u8]) -> Result<Self> {
        let place = |at| Ok::<_, anyhow::Error>(usize::try_from(number(image, at, 8)?)?);
        let (table, count, names) = (place(40)?, number(image, 60, 2)?, number(image, 62, 2)?);
        let content = |index: u64| -> Result<Range<usize>> {
            let header = table + usize::try_from(index)? * SECTION;
            let start = place(header + 24)?;
            Ok(start..start + place(header + 32)?)
        };
        let names = content(names)?;
        let mut sections = Vec::new();
        for index in 0..count {
            let header = table + usize::try_from(index)? * SECTION;
            let name = text(image, names.start + usize::try_from(number(image, header, 4)?)?);
            let (kind, about) = (number(image, header + 4, 4)?, number(image, header + 44, 4)?);
            sections.push(Section { name, kind, about: usize::try_from(about)?, content: content(index)? });
        }
        Ok(Self { image, sections })
    }

    fn section(&self, name: &str) -> Result<Range<usize>> {
        let found = self.sections.iter().find(|section| section.name == name);
        found.map(|section| section.content.clone()).with_context(|| format!("the module has no section {name}"))
    }

    /// Section and place of a symbol.
    fn symbol(&self, symbols: &Range<usize>, names: &Range<usize>, wanted: &str) -> Result<(usize, usize)> {
        for at in symbols.clone().step_by(SYMBOL) {
            let name = names.start + usize::try_from(number(self.image, at, 4)?)?;
            if text(self.image, name) == wanted {
                let section = number(self.image, at + 6, 2)?;
                return Ok((usize::try_from(section)?, usize::try_from(number(self.image, at + 8, 8)?)?));
            }
        }
        bail!("the module has no {wanted}")
    }

    /// Where the relocations of a section stand (`SHT_RELA` is 4).
    fn relocations_of(&self, section: usize) -> Vec<usize> {
        let about = self.sections.iter().filter(|other| other.kind == 4 && other.about == section);
        about.flat_map(|other| other.content.clone().step_by(RELOCATION)).collect()
    }
}

/// The string at that place.
fn text(image: &[u8], at: usize) -> String {
    let rest = image.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}
