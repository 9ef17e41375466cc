//! The virtual machine below a node: what happens to machines and not to programs. It is frozen, its power or its cable is
//! pulled, it is reset, by QEMU's monitor (QMP, `docs/interop/qmp-spec.rst`).

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::Node;

/// How long QEMU may take to obey.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine's network card (`xtask/src/cluster/node.rs`).
const CARD: &str = "card";

/// An open monitor. QEMU has room for one at a time.
pub struct Machine {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
}

impl Node {
    /// The machine below it.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn machine(&self) -> Result<Machine> {
        let port = self.facts.monitor_port;
        timeout(PATIENCE, Machine::open(port))
            .await
            .with_context(|| format!("QEMU of {} does not answer", self.name()))?
            .with_context(|| format!("speak to QEMU of {}", self.name()))
    }
}

impl Machine {
    async fn open(port: u16) -> Result<Self> {
        let (reader, orders) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
        let mut machine = Self { lines: BufReader::new(reader).lines(), orders };
        machine.lines.next_line().await?.context("no greeting")?;
        machine.order("qmp_capabilities", json!({})).await?;
        // A guest that reboots comes back: the rig itself takes that for its end.
        machine.order("set-action", json!({ "reboot": "reset" })).await?;
        Ok(machine)
    }

    /// Stands still at once, as a machine whose hypervisor paused it: no word, no packet, and its clock stands, too.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn freeze(&mut self) -> Result<()> {
        self.order("stop", json!({})).await
    }

    /// Goes on where it was frozen.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn thaw(&mut self) -> Result<()> {
        self.order("cont", json!({})).await
    }

    /// Has no power from now on: for others the same as [`Machine::freeze`], but that nothing of its memory is left when
    /// [`Machine::power_on`] comes.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn power_off(&mut self) -> Result<()> {
        self.order("stop", json!({})).await?;
        self.order("system_reset", json!({})).await
    }

    /// Boots after [`Machine::power_off`], with its disk and its firmware's store as they were.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn power_on(&mut self) -> Result<()> {
        self.order("cont", json!({})).await
    }

    /// Boots anew, whatever it does, as by its reset button.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn reset(&mut self) -> Result<()> {
        self.order("system_reset", json!({})).await
    }

    /// Pulls its network cable, or puts it in again.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn set_cable(&mut self, plugged: bool) -> Result<()> {
        self.order("set_link", json!({ "name": CARD, "up": plugged })).await
    }

    /// One order; events that come meanwhile are passed over.
    async fn order(&mut self, name: &str, arguments: Value) -> Result<()> {
        let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        let exchange = async {
            self.orders.write_all(line.as_bytes()).await?;
            loop {
                let answer = self.lines.next_line().await?.context("QEMU hung up")?;
                let answer: Value = serde_json::from_str(&answer).context("understand QEMU")?;
                if let Some(error) = answer.get("error") {
                    bail!("QEMU refuses: {error}");
                }
                if answer.get("return").is_some() {
                    return Ok(());
                }
            }
        };
        timeout(PATIENCE, exchange).await.with_context(|| format!("QEMU does not answer to {name}"))?.context(line)
    }
}
