//! The real kubectl, as a user would run it: applying manifests is what an install does.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

use crate::Rig;

impl Rig {
    /// Runs kubectl with an administrator's rights and gives its output.
    ///
    /// # Errors
    /// It failed; the error says what it said.
    pub async fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.kubectl_with(words, "").await
    }

    /// Applies manifests (YAML or JSON, any number of documents) on the server's side, as an install does.
    ///
    /// # Errors
    /// The API server refuses one of them.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["apply", "--server-side", "--force-conflicts", "--filename", "-"], manifests).await
    }

    /// Deletes what manifests name, and waits until it is gone. What is not there is passed over.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["delete", "--ignore-not-found", "--timeout", "120s", "--filename", "-"], manifests).await
    }

    /// Deletes an object of no namespace, without waiting for its end, where nothing can be awaited: when it is dropped. What
    /// is refused is left to the end of the rig.
    pub(crate) fn remove(&self, kind: &str, name: &str) {
        let mut command = std::process::Command::new(&self.facts.kubectl);
        command.arg("--kubeconfig").arg(&self.facts.kubeconfig);
        command.args(["delete", "--wait=false", "--ignore-not-found", kind, name]).output().ok();
    }

    /// Runs kubectl and shows `enough` each line that it prints, until that is so.
    ///
    /// # Errors
    /// It ended before.
    pub async fn kubectl_until(&self, words: &[&str], mut enough: impl FnMut(&str) -> bool) -> Result<()> {
        let mut command = Command::new(&self.facts.kubectl);
        command.arg("--kubeconfig").arg(&self.facts.kubeconfig).args(words).kill_on_drop(true);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("start {}", self.facts.kubectl.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("read from kubectl")?).lines();
        while let Some(line) = lines.next_line().await.context("read from kubectl")? {
            if enough(&line) {
                return Ok(());
            }
        }
        bail!("`kubectl {}` ended too early", words.join(" "))
    }

    /// Runs kubectl with `input` on its standard input.
    ///
    /// # Errors
    /// It failed; the error says what it said.
    pub async fn kubectl_with(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.facts.kubectl);
        command.arg("--kubeconfig").arg(&self.facts.kubeconfig).args(words).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", self.facts.kubectl.display()))?;
        let mut stdin = child.stdin.take().context("write to kubectl")?;
        stdin.write_all(input.as_bytes()).await.context("write to kubectl")?;
        drop(stdin);
        let output = child.wait_with_output().await.context("wait for kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`kubectl {}` ended with {}: {said}", words.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
