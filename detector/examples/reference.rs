//! Prints the reference page named on the command line; `cargo xtask gen` keeps the pages in `docs/`.

use anyhow::{Result, bail};
use detector::contract;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("watch-output") => print!("{}", contract::watch::reference()),
        page => bail!("print a reference page: there is no page {page:?}; there is `watch-output`"),
    }
    Ok(())
}
