//! Builds the client: from the pod's own service account, or from a kubeconfig.

use std::{env, fs, path::PathBuf, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Identity, answer};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Names the program to the server's log and to its metrics.
const PROGRAM: &str = concat!("detector/", env!("CARGO_PKG_VERSION"));

/// Node name as the DaemonSet hands it in, from `spec.nodeName`.
const NODE_NAME: &str = "NODE_NAME";

/// What is needed to write to the API.
#[derive(Clone)]
pub struct Access {
    /// The client; it reads token and certificates again when they are renewed on disk.
    pub client: Client,
    /// Whose agent this is.
    pub identity: Identity,
}

/// The API cannot be reached, ever, as things are.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a pod with a service account nor a kubeconfig.
    #[error(
        "read how to reach the API server (neither --kubeconfig nor $KUBECONFIG names a file, so the pod's service account \
         counts; ~/.kube/config is not looked at)"
    )]
    InCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig does not say it.
    #[error("read how to reach the API server from the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The client could not be made of it.
    #[error("make a client for the API server {url}")]
    Client {
        /// Where it is.
        url: String,
        /// What is wrong.
        source: kube::Error,
    },
    /// Nobody knows which node this is.
    #[error("find the name of this node: {NODE_NAME} is not set, and the hostname cannot be read")]
    NodeName(#[source] std::io::Error),
}

/// A client by `kubeconfig`, else by the file that `KUBECONFIG` names, else by the pod's service account.
///
/// Asks nothing of the server. Must be called inside of a tokio runtime.
pub async fn connect(kubeconfig: Option<PathBuf>) -> Result<Access, ClientError> {
    let path = kubeconfig.or_else(|| env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let config = match path {
        Some(path) => from_file(path).await?,
        None => Config::incluster().map_err(ClientError::InCluster)?,
    };
    let identity = Identity::new(&node_name()?, token(&config).as_deref());
    let client = client(config)?;
    Ok(Access { client, identity })
}

/// A client for `config`, with our time limits and name, and without kube's own retries: the queues pace themselves.
pub fn client(mut config: Config) -> Result<Client, ClientError> {
    // Fails only if there is one already; any will do.
    rustls::crypto::ring::default_provider().install_default().ok();
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(answer::TIMEOUT);
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(PROGRAM)));
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ClientError::Client { url, source })
}

async fn from_file(path: PathBuf) -> Result<Config, ClientError> {
    let read = async || {
        let kubeconfig = Kubeconfig::read_from(&path)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
    };
    read().await.map_err(|source| ClientError::Kubeconfig { path: path.clone(), source })
}

/// The token that the client uses, if it lies in a file.
fn token(config: &Config) -> Option<String> {
    fs::read_to_string(config.auth_info.token_file.as_ref()?).ok()
}

/// `NODE_NAME`, else the hostname, which kubelet takes for the node's name unless told otherwise (and lower-cases).
///
/// # Errors
/// If neither can be read.
pub fn node_name() -> Result<String, ClientError> {
    if let Some(name) = env::var(NODE_NAME).ok().filter(|name| !name.is_empty()) {
        return Ok(name);
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").map_err(ClientError::NodeName)?;
    Ok(hostname.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: x
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
";

    #[tokio::test]
    async fn a_kubeconfig_makes_a_client() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, KUBECONFIG).unwrap();
        let access = connect(Some(path)).await.expect("a client");
        assert!(!access.identity.node.is_empty());
        let request = http::Request::post("/apis").body(Vec::new()).unwrap();
        let answer = answer::send(&access.client, request).await;
        assert_eq!(answer.status, None, "nobody listens on port 1: {answer:?}");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = connect(Some("/nowhere/config".into())).await.err().expect("an error");
        assert!(error.to_string().contains("/nowhere/config"), "{error}");
    }
}
