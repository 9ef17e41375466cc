//! Prints the reference page named on the command line; `cargo xtask gen` keeps the pages in `docs/`.

use anyhow::{Result, bail};
use detector::{config, contract, ops};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("watch-output") => print!("{}", contract::watch::reference()),
        Some("doctor-output") => print!("{}", contract::doctor::reference()),
        Some("metrics") => print!("{}", contract::metric::reference()),
        Some("metrics-controller") => print!("{}", contract::metric::controller::reference()),
        Some("metrics-netconsole") => print!("{}", contract::metric::netconsole::reference()),
        Some("events") => print!("{}", contract::event::reference()),
        Some("problems") => print!("{}", contract::problem::page::problems()),
        Some("conditions") => print!("{}", contract::problem::page::conditions()),
        Some("privileges") => print!("{}", ops::privilege::reference()),
        Some("chart") => print!("{}", contract::chart::template()),
        Some("config") => print!("{}", config::agent::page()),
        Some("config-default") => print!("{}", config::agent::default_file()),
        #[cfg(feature = "controller")]
        Some("incidents") => {
            let definition = serde_saphyr::to_string(&contract::incident::definition::definition())?;
            print!("{}{definition}", contract::incident::definition::HEADER);
        }
        Some("events-controller") => print!("{}", contract::event::controller::reference()),
        Some("config-controller") => print!("{}", config::controller::page()),
        Some("config-controller-default") => print!("{}", config::controller::default_file()),
        Some("config-netconsole") => print!("{}", config::netconsole::page()),
        Some("config-netconsole-default") => print!("{}", config::netconsole::default_file()),
        page => bail!("print a reference page: there is no page {page:?}"),
    }
    Ok(())
}
