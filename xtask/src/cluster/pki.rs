//! Certificates and kubeconfigs of a rig: an authority of its own, made anew for each.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Address of the service `kubernetes`, the first of the cluster's services; pods find the API server there.
pub(crate) const SERVICE_ADDRESS: &str = "10.96.0.1";

/// What guests call the machine they run on (QEMU, user networking).
pub(crate) const HOST_IN_GUESTS: &str = "10.0.2.2";

/// Names under which the API server is reached: by the host, by guests, by pods.
const SERVER_NAMES: [&str; 7] = [
    "127.0.0.1",
    HOST_IN_GUESTS,
    SERVICE_ADDRESS,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];

/// An authority and the directory in which everything made by it lies.
pub(crate) struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority, the API server's certificate and the key that signs service account tokens.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let key = KeyPair::generate().context("make the authority's key")?;
        let mut params = subject("detector-rig", None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("sign the authority's certificate")?;
        let pki = Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) };
        write(&pki.path("ca.crt"), &certificate.pem())?;
        pki.sign("apiserver", "kube-apiserver", None, ExtendedKeyUsagePurpose::ServerAuth, &SERVER_NAMES)?;
        let tokens = KeyPair::generate().context("make the key of service account tokens")?;
        write(&pki.path("sa.key"), &tokens.serialize_pem())?;
        write(&pki.path("sa.pub"), &tokens.public_key_pem())?;
        Ok(pki)
    }

    /// A client certificate `NAME.crt` and its key `NAME.key`; user and group are the API server's.
    pub(crate) fn client(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        self.sign(name, user, group, ExtendedKeyUsagePurpose::ClientAuth, &[])
    }

    /// A file made by this authority.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// A client certificate and a kubeconfig `NAME.kubeconfig` that uses it on this machine; gives its path.
    pub(crate) fn kubeconfig(&self, name: &str, user: &str, group: Option<&str>, server: &str) -> Result<PathBuf> {
        self.client(name, user, group)?;
        let path = self.path(&format!("{name}.kubeconfig"));
        let file = |ending: &str| self.path(&format!("{name}.{ending}"));
        write(&path, &kubeconfig(server, &self.path("ca.crt"), &file("crt"), &file("key")))?;
        Ok(path)
    }

    fn sign(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
        names: &[&str],
    ) -> Result<()> {
        let key = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
        let mut params = subject(user, group, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate =
            params.signed_by(&key, &self.issuer).with_context(|| format!("sign the certificate of {name}"))?;
        write(&self.path(&format!("{name}.crt")), &certificate.pem())?;
        write(&self.path(&format!("{name}.key")), &key.serialize_pem())
    }
}

/// A kubeconfig with one cluster and one user, whose certificates lie in files.
pub(crate) fn kubeconfig(server: &str, authority: &Path, certificate: &Path, key: &Path) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "rig", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "user", "user": { "client-certificate": certificate, "client-key": key } }],
        "contexts": [{ "name": "rig", "context": { "cluster": "rig", "user": "user" } }],
        "current-context": "rig",
    })
    .to_string()
}

fn subject(user: &str, group: Option<&str>, names: &[&str]) -> Result<CertificateParams> {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).with_context(|| format!("name the subject {user}"))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    Ok(params)
}

/// Keys are for their owner only.
fn write(path: &Path, content: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes())).with_context(|| format!("write {}", path.display()))
}
