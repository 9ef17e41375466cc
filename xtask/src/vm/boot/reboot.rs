//! A machine that panics and comes back: three boots of the guest `reboot` with one ERST store, in which its kernel leaves
//! its last words. What the agent writes on its disk goes from boot to boot by the serial console.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    super::{
        initramfs,
        report::verdict::{self, Line, Verdict},
    },
    Boot, Kernel, SMALL_MIB, run,
};

/// Name of the case.
pub(in crate::vm) const CASE: &str = "previous-boot";

/// Series on which it runs: Debian's kernels of these have the driver for ERST built in.
pub(in crate::vm) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Boots; what is to be found in each is told in the guest.
const ROUNDS: [u32; 3] = [1, 2, 3];

/// Where the agent keeps its note, in the guest.
const NOTE: &str = "var/lib/detector/boot.json";

/// Boots `kernel` again and again, and gives what all of them said. `guest`: process 1; `detector`: the binary under test.
pub(in crate::vm) fn judge(cache: &Path, kernel: &Kernel, guest: &Path, detector: &Path) -> Result<Verdict> {
    let store = cache.join(format!("erst-{}.img", kernel.series));
    let note = cache.join(format!("note-{}.json", kernel.series));
    remove(&store)?;
    let mut lines: Vec<Line> = Vec::new();
    for round in ROUNDS {
        let mut files: Vec<(&str, PathBuf)> = vec![("init", guest.to_owned()), ("detector", detector.to_owned())];
        if round > 1 {
            files.push((NOTE, note.clone()));
        }
        let archive = cache.join(format!("initramfs-reboot-{}", kernel.series));
        let initramfs = initramfs::pack(&archive, &files, &kernel.loop_module)?;
        let log = cache.join(format!("serial-reboot-{}-{round}.log", kernel.series));
        let parameters = format!("detector.round={round}");
        // Behind the machine's firmware, as the kernel sees it.
        let memory = format!("memory-backend-file,id=store,mem-path={},size=64K,share=on", store.display());
        let text = run(&Boot {
            kernel,
            memory: SMALL_MIB,
            initramfs: &initramfs,
            parameters: &parameters,
            log: &log,
            devices: &["-object", &memory, "-device", "acpi-erst,memdev=store"],
            dies: round == 1,
        });
        let text = text.with_context(|| format!("boot {round}"))?;
        lines.extend(verdict::parse(&text).with_context(|| format!("boot {round}"))?.lines);
        if lines.iter().any(|line| line.wrong.is_some()) {
            // What the next boots would find means nothing.
            break;
        }
        fs::write(&note, note_in(&text)?).with_context(|| format!("writing {}", note.display()))?;
    }
    for file in [&store, &note] {
        remove(file)?;
    }
    Ok(Verdict { lines, doctor: None })
}

/// The agent's note on a console.
fn note_in(console: &str) -> Result<&str> {
    let note = console.lines().find_map(|line| line.split_once("NOTE ")).map(|(_, note)| note.trim_end());
    match note {
        Some(note) if serde_json::from_str::<serde_json::Value>(note).is_ok() => Ok(note),
        Some(note) => bail!("the agent's note is not whole: {note}"),
        None => bail!("the guest showed no note of the agent"),
    }
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_found_behind_what_the_kernel_says() {
        assert_eq!(
            note_in("x\r\n[  1.0] yNOTE {\"version\":1}\r\nVERDICT passed=1\r\n").expect("a note"),
            "{\"version\":1}"
        );
        assert!(note_in("NOTE {\"ver\r\n").is_err());
        assert!(note_in("CASE x\n").is_err());
    }
}
