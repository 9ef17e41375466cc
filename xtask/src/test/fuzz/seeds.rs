//! What the fuzz targets of netconsole begin with: datagrams that real kernels sent in their last moments
//! (`tests/fixtures/netconsole`). A random input hardly ever gets past the head of a frame.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::INPUT_BYTES;
use crate::workspace;

/// Recordings below the root of the source tree.
const RECORDINGS: &str = "tests/fixtures/netconsole";

/// Milliseconds between two datagrams of a stream.
const WAIT: u8 = 1;

/// Makes the seeds of `target` in `directory` and tells whether it has any.
pub(super) fn plant(target: &str, directory: &Path) -> Result<bool> {
    let seeds_of = match target {
        "fuzz_netconsole_frame" => frames,
        "fuzz_netconsole_stream" => streams,
        "fuzz_netconsole_log" => logs,
        _ => return Ok(false),
    };
    fs::create_dir_all(directory).with_context(|| format!("make the directory {}", directory.display()))?;
    for path in recordings()? {
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let datagrams = datagrams(&bytes).with_context(|| format!("understand {}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (number, seed) in seeds_of(&datagrams).into_iter().enumerate() {
            let file = directory.join(format!("{stem}-{number}"));
            fs::write(&file, seed).with_context(|| format!("write {}", file.display()))?;
        }
    }
    Ok(true)
}

fn recordings() -> Result<Vec<PathBuf>> {
    let directory = workspace::root().join(RECORDINGS);
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let all = entries.collect::<std::io::Result<Vec<_>>>().with_context(|| format!("read {}", directory.display()))?;
    Ok(all
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "bin"))
        .collect())
}

/// Datagrams of a recording: each after its length, two bytes, little endian.
fn datagrams(mut recording: &[u8]) -> Result<Vec<&[u8]>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = recording.split_first_chunk::<2>() {
        let Some((datagram, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
            bail!("a datagram is cut short");
        };
        all.push(datagram);
        recording = rest;
    }
    Ok(all)
}

/// Each datagram by itself.
fn frames(datagrams: &[&[u8]]) -> Vec<Vec<u8>> {
    datagrams.iter().map(|datagram| datagram.to_vec()).collect()
}

/// Datagrams as the target wants them: each after the time before it, and with a zero byte between two.
fn streams(datagrams: &[&[u8]]) -> Vec<Vec<u8>> {
    let parts = datagrams.iter().filter(|datagram| !datagram.contains(&0));
    gathered(parts.map(|datagram| [&[WAIT], *datagram, &[0]].concat()))
}

/// The text of records, without head and userdata.
fn logs(datagrams: &[&[u8]]) -> Vec<Vec<u8>> {
    let body = |datagram: &[u8]| {
        let body = datagram.iter().position(|byte| *byte == b';').map_or(datagram, |at| &datagram[at + 1..]);
        let text = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        [text, b"\n"].concat()
    };
    gathered(datagrams.iter().map(|datagram| body(datagram)))
}

/// As many parts together as one input can have.
fn gathered(parts: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for part in parts {
        match all.last_mut().filter(|last| last.len() + part.len() <= INPUT_BYTES) {
            Some(last) => last.extend(part),
            None => all.push(part),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recording_is_read_and_no_seed_is_too_long_for_the_target() {
        let recordings = recordings().expect("there are recordings");
        assert!(!recordings.is_empty());
        for path in recordings {
            let bytes = fs::read(&path).expect("a file");
            let datagrams = datagrams(&bytes).expect("whole datagrams");
            for seeds in [frames, streams, logs].map(|seeds_of| seeds_of(&datagrams)) {
                assert!(!seeds.is_empty() && seeds.iter().all(|seed| seed.len() <= INPUT_BYTES), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_stream_has_its_times_and_a_log_only_its_text() {
        let said: [&[u8]; 2] = [b"0,1,5,-;Kernel panic\n detector_node=a\n", b"plain; text\n"];
        assert_eq!(streams(&said), [b"\x010,1,5,-;Kernel panic\n detector_node=a\n\0\x01plain; text\n\0".to_vec()]);
        assert_eq!(logs(&said), [b"Kernel panic\n text\n".to_vec()]);
    }

    #[test]
    fn a_recording_that_is_cut_short_is_told() {
        assert!(datagrams(b"\x05\x00ab").is_err());
    }
}
