//! Reads what a dying kernel said as the controller does, for the tests that have real kernels die.
//!
//! `last_words datagrams FILE`: datagrams of netconsole, each after its length (two bytes, little endian).
//! `last_words console FILE`: the text of a console. Prints one line of JSON.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use detector::controller::decode::{
    Findings, frame,
    reassemble::{Heard, Stream},
    signature::{self, Reading},
};
use serde_json::json;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [kind, file] = words.as_slice() else { bail!("there is no such command: {words:?}") };
    let bytes = fs::read(file).with_context(|| format!("reading {file}"))?;
    let findings = match kind.as_str() {
        "datagrams" => of_datagrams(&bytes),
        "console" => signature::of_texts(String::from_utf8_lossy(&bytes).lines()),
        _ => bail!("there is no such form: {kind}"),
    };
    let said = findings.last_words.map(|words| {
        json!({
            "role": words.role.word(), "confidence": words.confidence.word(), "pid": words.pid, "cgroup": words.cgroup,
            "pod": words.pod.map(|(namespace, pod, container)| format!("{namespace}/{pod}/{container}")),
            "comm": words.comm,
        })
    });
    println!("{}", json!({ "panic": findings.panic, "last_words": said }));
    Ok(())
}

fn of_datagrams(mut recording: &[u8]) -> Findings {
    let (mut stream, mut heard, mut reading) = (Stream::new(), Vec::new(), Reading::new());
    while let Some((length, rest)) = recording.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        if let Ok(frame) = frame::parse(datagram) {
            stream.push(frame, Duration::ZERO, &mut heard);
        }
        recording = rest;
    }
    stream.end(&mut heard);
    for heard in heard {
        if let Heard::Line(line) = heard {
            reading.push(&line);
        }
    }
    reading.findings().clone()
}
