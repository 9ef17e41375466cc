//! `contained`: all that is in the images of the case `containerd`. As `pause` it holds a pod's namespaces; as `child` it
//! starts a process that overruns the container's limit once the file `/go` is there, and outlives it; as `init` it
//! overruns the limit itself, at once.

use std::{hint::black_box, path::Path, process::Command, thread::sleep, time::Duration};

use anyhow::{Context, Result, bail};

/// Where this program is in its image.
const SELF: &str = "/contained";

/// Made from outside as the cue.
const CUE: &str = "/go";

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What is taken at a time, and at the most: far above any limit of the case.
const PIECE: usize = 1 << 20;
const PIECES: usize = 512;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("child") => with_child(),
        Some("eat") => eat(c"oom-eater"),
        Some("init") => eat(c"oom-init"),
        _ => forever(),
    }
}

fn with_child() -> Result<()> {
    while !Path::new(CUE).exists() {
        sleep(LOOK_INTERVAL);
    }
    Command::new(SELF).arg("eat").status().context("running the child")?;
    forever()
}

fn eat(name: &std::ffi::CStr) -> Result<()> {
    rustix::thread::set_name(name).context("taking a name")?;
    let mut taken = Vec::with_capacity(PIECES);
    for number in 0..PIECES {
        // Not of zeros: those would stay untouched.
        taken.push(black_box(vec![number as u8 | 1; PIECE]));
    }
    bail!("{} MiB were taken and nobody minded", taken.len())
}

fn forever() -> Result<()> {
    loop {
        rustix::event::pause();
    }
}
