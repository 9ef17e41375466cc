//! The calls of Kubernetes' Container Runtime Interface by which a kubelet starts a pod (`k8s.io/cri-api`,
//! `pkg/apis/runtime/v1/api.proto`), encoded by hand: a number behind each field is its number there.

use std::{thread, time::Instant};

use anyhow::{Context, Result, ensure};

use super::{DEADLINE, LOOK_INTERVAL, daemon::SOCKET, grpc::Channel};

/// `NamespaceMode` of `api.proto`: a namespace of the container's own, and that of the machine.
const OWN: u64 = 1;
const MACHINE: u64 = 2;

/// `ContainerState` of `api.proto`: its processes are gone, and the runtime knows.
const EXITED: u64 = 2;

/// Images that the host packed.
const WORK_IMAGE: &str = "detector.test/work:1";

/// Program in the image.
const PROGRAM: &str = "/contained";

/// A pod.
pub(super) struct Pod<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

/// A container.
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    /// What its process does, see `bin/contained.rs`.
    pub(super) role: &'a str,
    /// Its limit in bytes.
    pub(super) limit: u64,
}

/// A connection to containerd's CRI plugin.
pub(super) struct Cri(Channel);

impl Cri {
    /// Connects.
    pub(super) fn connect() -> Result<Self> {
        Channel::connect(SOCKET, DEADLINE).map(Self)
    }

    /// Makes and starts the sandbox of a pod in the cgroup `parent`; returns its id.
    pub(super) fn run_sandbox(&mut self, pod: &Pod<'_>, parent: &str) -> Result<String> {
        self.call_for_id("RunPodSandbox", &Message::default().message(1, &sandbox(pod, parent)))
    }

    /// Makes a container in a sandbox; returns its id.
    pub(super) fn create(
        &mut self,
        pod: &Pod<'_>,
        parent: &str,
        sandbox_id: &str,
        container: &Container<'_>,
    ) -> Result<String> {
        let metadata = Message::default().text(1, container.name);
        let image = Message::default().text(1, WORK_IMAGE);
        let resources = Message::default().number(4, container.limit);
        let security = Message::default().message(3, &namespaces());
        let linux = Message::default().message(1, &resources).message(2, &security);
        let config = Message::default()
            .message(1, &metadata)
            .message(2, &image)
            .text(3, PROGRAM)
            .text(4, container.role)
            .text(11, &format!("{}.log", container.name))
            .message(15, &linux);
        let request = Message::default().text(1, sandbox_id).message(2, &config).message(3, &sandbox(pod, parent));
        self.call_for_id("CreateContainer", &request).with_context(|| format!("making container {}", container.name))
    }

    /// Starts a container.
    pub(super) fn start(&mut self, id: &str) -> Result<()> {
        self.call("StartContainer", &Message::default().text(1, id)).map(drop)
    }

    /// Waits until the runtime knows that a container has ended. One that is stopped meanwhile is killed through a shim that
    /// may be gone by then, which the runtime tells as an error.
    pub(super) fn wait_until_exited(&mut self, id: &str) -> Result<()> {
        let filter = Message::default().text(1, id).message(2, &Message::default().number(1, EXITED));
        let request = Message::default().message(1, &filter);
        let start = Instant::now();
        while self.call("ListContainers", &request)?.is_empty() {
            ensure!(start.elapsed() < DEADLINE, "container {id} has not ended within {DEADLINE:?}");
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Stops all of a pod and removes it.
    pub(super) fn remove_sandbox(&mut self, id: &str) -> Result<()> {
        let request = Message::default().text(1, id);
        self.call("StopPodSandbox", &request)?;
        self.call("RemovePodSandbox", &request).map(drop)
    }

    fn call(&mut self, method: &str, request: &Message) -> Result<Vec<u8>> {
        self.0.call(&format!("/runtime.v1.RuntimeService/{method}"), &request.0)
    }

    /// Calls a method that answers with an id in its first field.
    fn call_for_id(&mut self, method: &str, request: &Message) -> Result<String> {
        let answer = self.call(method, request)?;
        first_text(&answer).with_context(|| format!("no id in the answer to {method}: {answer:?}"))
    }
}

/// `PodSandboxConfig`.
fn sandbox(pod: &Pod<'_>, parent: &str) -> Message {
    let metadata = Message::default().text(1, pod.name).text(2, pod.uid).text(3, pod.namespace);
    let security = Message::default().message(1, &namespaces());
    let linux = Message::default().text(1, parent).message(2, &security);
    Message::default().message(1, &metadata).text(3, "/var/log/pods").message(8, &linux)
}

/// `NamespaceOption`: network, pid. All others are the pod's, as by default.
fn namespaces() -> Message {
    Message::default().number(1, MACHINE).number(2, OWN)
}

/// A message of protocol buffers while it is put together.
#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The text in field 1, if the message begins with it and it is shorter than 128 bytes.
fn first_text(message: &[u8]) -> Option<String> {
    let [0x0A, length, rest @ ..] = message else { return None };
    String::from_utf8(rest.get(..usize::from(*length))?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_with_number_and_kind() {
        // The examples of the encoding's description: field 1 is 150; field 2 is "testing".
        assert_eq!(Message::default().number(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").0, b"\x12\x07testing");
    }

    #[test]
    fn an_id_is_read_out_of_an_answer() {
        assert_eq!(first_text(b"\x0a\x02ab\x12\x01c").as_deref(), Some("ab"));
        assert_eq!(first_text(b"\x0a\x05ab"), None);
        assert_eq!(first_text(b""), None);
    }
}
