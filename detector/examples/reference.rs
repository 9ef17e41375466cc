//! Prints the reference page named on the command line; `cargo xtask gen` keeps the pages in `docs/`.

use anyhow::{Result, bail};
use detector::{contract, ops};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("watch-output") => print!("{}", contract::watch::reference()),
        Some("doctor-output") => print!("{}", contract::doctor::reference()),
        Some("privileges") => print!("{}", ops::privilege::reference()),
        page => bail!("print a reference page: there is no page {page:?}"),
    }
    Ok(())
}
