//! Writes container images into one archive: an OCI image layout (OCI Image Format Specification 1.1, image-layout.md)
//! with the `manifest.json` of `docker save` beside it, so that old and new tools read it. Layers are not compressed:
//! registries' tools do that, and bytes stay comparable.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::process;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Blobs by digest, below the archive's root.
const BLOBS: &str = "blobs/sha256";

/// One image with one layer.
pub(crate) struct Image {
    /// Repository and tag.
    pub(crate) name: String,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    /// Files by path, without a leading `/`.
    pub(crate) content: Vec<(String, Content)>,
    /// Program and arguments that a container runs if told nothing else.
    pub(crate) entrypoint: Vec<String>,
    /// Labels; images of the same content must differ in some, or they get the same id.
    pub(crate) labels: Vec<(&'static str, String)>,
}

/// What is at a path of an image.
pub(crate) enum Content {
    /// A copy of this program.
    Program(PathBuf),
    /// A symbolic link to this target.
    Link(String),
    /// An empty directory.
    Directory,
}

/// A blob that was written.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.size })
    }
}

/// Writes all images into `archive`, and gives the digest of the first one's manifest.
pub(crate) fn write(images: &[Image], archive: &Path) -> Result<String> {
    let work = archive.with_extension("parts");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    let layout = work.join("layout");
    fs::create_dir_all(layout.join(BLOBS)).with_context(|| format!("make {}", layout.display()))?;
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for image in images {
        let (manifest, entry) = write_image(image, &work).with_context(|| format!("make the image {}", image.name))?;
        let mut descriptor = manifest.descriptor(MANIFEST_TYPE);
        let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] =
            json!({ "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag });
        index.push(descriptor);
        docker.push(entry);
    }
    let digest = index.first().map(|first| first["digest"].to_string().replace('"', "")).unwrap_or_default();
    let write = |name: &str, content: Value| {
        fs::write(layout.join(name), content.to_string()).with_context(|| format!("write {name}"))
    };
    write("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))?;
    write("index.json", json!({ "schemaVersion": 2, "manifests": index }))?;
    write("manifest.json", Value::from(docker))?;
    tar(&layout, archive)?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    Ok(digest)
}

/// Layer, configuration, manifest; and the entry of `manifest.json`.
fn write_image(image: &Image, work: &Path) -> Result<(Blob, Value)> {
    let layer = layer(image, work)?;
    let labels: serde_json::Map<_, _> =
        image.labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str()))).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": image.created,
        "config": { "Entrypoint": image.entrypoint, "Labels": labels, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
        "history": [{ "created": image.created, "created_by": "cargo xtask image" }],
    });
    let config = blob(work, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE)],
        "annotations": labels,
    });
    let path = |blob: &Blob| format!("{BLOBS}/{}", blob.digest);
    let entry = json!({ "Config": path(&config), "RepoTags": [image.name], "Layers": [path(&layer)] });
    Ok((blob(work, manifest.to_string().as_bytes())?, entry))
}

fn layer(image: &Image, work: &Path) -> Result<Blob> {
    let root = work.join("layer");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    for (name, content) in &image.content {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        match content {
            Content::Program(file) => fs::copy(file, &path).map(drop),
            Content::Link(target) => std::os::unix::fs::symlink(target, &path),
            Content::Directory => fs::create_dir_all(&path),
        }
        .with_context(|| format!("put {name} into a layer"))?;
    }
    let archive = work.join("layer.tar");
    tar(&root, &archive)?;
    blob_of(work, &archive)
}

fn blob(work: &Path, content: &[u8]) -> Result<Blob> {
    let file = work.join("blob");
    fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
    blob_of(work, &file)
}

/// Moves a file to the place that its content gives it.
fn blob_of(work: &Path, file: &Path) -> Result<Blob> {
    let size = fs::metadata(file).with_context(|| format!("read the size of {}", file.display()))?.len();
    let told = process::capture(Command::new("sha256sum").arg(file), "compute a digest")?;
    let digest = told.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(digest.len() == 64, "compute the digest of {}: sha256sum said {told:?}", file.display());
    let target = work.join("layout").join(BLOBS).join(&digest);
    fs::rename(file, &target).with_context(|| format!("write {}", target.display()))?;
    Ok(Blob { digest, size })
}

/// Packs all of a directory so that the same files give the same bytes, whoever made them and when.
fn tar(directory: &Path, archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--format=gnu"]);
    command.args(["--mode=u+rwX,go+rX,go-w", "-C"]).arg(directory).arg("-cf").arg(archive);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        names.push(entry.with_context(|| format!("read {}", directory.display()))?.file_name());
    }
    names.sort();
    process::capture(command.arg("--").args(names), "pack a container image").map(drop)
}

/// This machine's architecture in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("detector-image-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn image(program: &Path) -> Image {
        Image {
            name: "example/thing:1".to_owned(),
            created: "2020-01-02T03:04:05Z".to_owned(),
            content: vec![
                ("bin/thing".to_owned(), Content::Program(program.to_owned())),
                ("bin/alias".to_owned(), Content::Link("thing".to_owned())),
                ("tmp".to_owned(), Content::Directory),
            ],
            entrypoint: vec!["/bin/thing".to_owned()],
            labels: vec![("org.opencontainers.image.title", "thing".to_owned())],
        }
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let archives = ["one", "two"].map(|name| {
            let directory = directory(name);
            let program = directory.join("built");
            fs::write(&program, "the program").unwrap();
            let archive = directory.join("image.tar");
            write(&[image(&program)], &archive).unwrap();
            fs::read(&archive).unwrap()
        });
        assert!(archives[0] == archives[1]);
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_the_index_leads_to_all() {
        let directory = directory("blobs");
        let program = directory.join("built");
        fs::write(&program, "the program").unwrap();
        let archive = directory.join("image.tar");
        let digest = write(&[image(&program)], &archive).unwrap();
        let read = |name: &str| {
            let mut command = Command::new("tar");
            process::capture(command.arg("-xOf").arg(&archive).arg(name), "read an archive").unwrap()
        };
        let json = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
        let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let index = json("index.json");
        assert_eq!(index["manifests"][0]["digest"], digest);
        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        let config = json(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert!(read(&blob(&manifest["layers"][0]["digest"])).contains("the program"));
        assert_eq!(json("manifest.json")[0]["RepoTags"][0], "example/thing:1");
    }
}
