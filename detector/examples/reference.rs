//! Prints the reference page named on the command line; `cargo xtask gen` keeps the pages in `docs/`.

use anyhow::{Result, bail};
use detector::{config, contract, ops};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("watch-output") => print!("{}", contract::watch::reference()),
        Some("doctor-output") => print!("{}", contract::doctor::reference()),
        Some("metrics") => print!("{}", contract::metric::reference()),
        Some("events") => print!("{}", contract::event::reference()),
        Some("problems") => print!("{}", contract::problem_page::problems()),
        Some("conditions") => print!("{}", contract::problem_page::conditions()),
        Some("privileges") => print!("{}", ops::privilege::reference()),
        Some("chart") => print!("{}", contract::chart::template()),
        Some("config") => print!("{}", config::agent::page()),
        Some("config-default") => print!("{}", config::agent::default_file()),
        page => bail!("print a reference page: there is no page {page:?}"),
    }
    Ok(())
}
