//! Files of runtimes under a temporary root; their shapes are in `tests/fixtures/runtime`.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::agent::source::small_file::under;

/// Id of the containers whose files were not recorded.
pub(super) const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/fixtures/runtime/", $name))
    };
}

/// Ids of those that were.
const DOCKER_ID: &str = "ac33f862e40b7cd6038652efa01a9019da77252d321dfebaf27d5791fb99a470";
const PODMAN_ID: &str = "bd99db9e4e42bfe6062a1ade8f495e57aa7a14610eb616160ab5372b6e939907";

fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = under(root.path(), &path.replace("ID", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.replace("THIS", ID)).unwrap();
    }
    root
}

fn look(root: &TempDir, runtime: Runtime) -> Option<Names> {
    look_for(root, runtime, ID)
}

fn look_for(root: &TempDir, runtime: Runtime, id: &str) -> Option<Names> {
    names(&Files::under(root.path()), Wanted { runtime, id, user: None }).unwrap()
}

fn app(runtime: Runtime, init_pid: Option<u32>) -> Names {
    Names {
        runtime: Some(runtime),
        container: Some("app".into()),
        pod_namespace: Some("shop".into()),
        pod_name: Some("web-7d9c-x2x5k".into()),
        sandbox: false,
        init_pid,
    }
}

#[rstest]
#[case("/run/containerd")]
#[case("/run/k3s/containerd")]
#[case("/run/k0s/containerd")]
#[case("/var/snap/microk8s/common/run/containerd")]
fn a_bundle_of_containerd_names_container_and_pod(#[case] state: &str) {
    let directory = format!("{state}/io.containerd.runtime.v2.task/k8s.io/ID");
    let root = root(&[
        (&format!("{directory}/config.json"), fixture!("containerd-container.json")),
        (&format!("{directory}/init.pid"), "4242"),
    ]);
    assert_eq!(look(&root, Runtime::Containerd), Some(app(Runtime::Containerd, Some(4242))));
    assert_eq!(look(&root, Runtime::Unknown), Some(app(Runtime::Containerd, Some(4242))));
}

#[test]
fn a_container_that_has_not_started_has_no_pid_yet() {
    let root = root(&[(
        "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
        fixture!("containerd-container.json"),
    )]);
    assert_eq!(look(&root, Runtime::Containerd), Some(app(Runtime::Containerd, None)));
}

#[test]
fn the_pause_container_is_a_sandbox() {
    let bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
    let containerd = look(&root(&[(bundle, fixture!("containerd-sandbox.json"))]), Runtime::Containerd).unwrap();
    let userdata = "/run/containers/storage/overlay-containers/ID/userdata/config.json";
    let crio = look(&root(&[(userdata, fixture!("crio-sandbox.json"))]), Runtime::CriO).unwrap();
    for names in [containerd, crio] {
        assert!(names.sandbox);
        assert_eq!((names.container.as_deref(), names.pod_name.as_deref()), (None, Some("web-7d9c-x2x5k")));
    }
}

#[test]
fn containers_of_nerdctl_are_found_in_another_namespace() {
    let root =
        root(&[("/run/containerd/io.containerd.runtime.v2.task/default/ID/config.json", fixture!("nerdctl.json"))]);
    assert_eq!(look(&root, Runtime::Containerd).unwrap().container.as_deref(), Some("cache"));
}

#[rstest]
#[case("/run/containers/storage")]
#[case("/var/lib/containers/storage")]
fn a_bundle_of_crio_names_container_and_pod(#[case] storage: &str) {
    let root = root(&[
        (&format!("{storage}/overlay-containers/ID/userdata/config.json"), fixture!("crio-container.json")),
        ("/run/containers/storage/overlay-containers/ID/userdata/pidfile", "4242\n"),
    ]);
    assert_eq!(look(&root, Runtime::CriO), Some(app(Runtime::CriO, Some(4242))));
    assert_eq!(look(&root, Runtime::Unknown), Some(app(Runtime::CriO, Some(4242))));
}

#[test]
fn dockers_own_file_names_a_plain_container_even_beside_its_bundle() {
    let root = root(&[
        (&format!("/var/lib/docker/containers/{DOCKER_ID}/config.v2.json"), fixture!("docker.json")),
        (
            &format!("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{DOCKER_ID}/config.json"),
            fixture!("docker-bundle.json"),
        ),
    ]);
    for runtime in [Runtime::Docker, Runtime::Unknown] {
        let names = look_for(&root, runtime, DOCKER_ID).unwrap();
        assert_eq!((names.container.as_deref(), names.init_pid), (Some("cache"), Some(508)));
        assert_eq!((names.runtime, names.pod_name), (Some(Runtime::Docker), None));
    }
}

#[test]
fn a_container_of_ctr_has_no_name_but_its_id() {
    let bundle = "/run/containerd/io.containerd.runtime.v2.task/default/ID/config.json";
    let names = look(&root(&[(bundle, fixture!("ctr-bundle.json"))]), Runtime::Unknown).unwrap();
    assert_eq!(names, Names { runtime: Some(Runtime::Containerd), ..Names::default() });
}

#[test]
fn labels_of_cri_dockerd_name_container_and_pod_even_beside_dockers_containerd() {
    let root = root(&[
        ("/var/lib/docker/containers/ID/config.v2.json", fixture!("cri-dockerd.json")),
        ("/run/containerd/io.containerd.runtime.v2.task/moby/ID/config.json", "{}"),
    ]);
    assert_eq!(look(&root, Runtime::Docker), Some(app(Runtime::Docker, Some(4242))));
    assert_eq!(look(&root, Runtime::Unknown), Some(app(Runtime::Docker, Some(4242))));
}

#[rstest]
#[case("/var/lib/containers/storage/overlay-containers", "containers.json")]
#[case("/var/lib/containers/storage/overlay-containers", "volatile-containers.json")]
#[case("/run/containers/storage/overlay-containers", "volatile-containers.json")]
#[case("/var/lib/containers/storage/vfs-containers", "containers.json")]
fn podmans_lists_name_a_container_even_beside_its_bundle(#[case] directory: &str, #[case] list: &str) {
    let driver = directory.rsplit('/').next().unwrap();
    let userdata = format!("{driver}/{PODMAN_ID}/userdata");
    let root = root(&[
        (&format!("{directory}/{list}"), fixture!("podman-containers.json")),
        (&format!("/var/lib/containers/storage/{userdata}/config.json"), fixture!("podman-bundle.json")),
        (&format!("/run/containers/storage/{userdata}/pidfile"), "208"),
    ]);
    for runtime in [Runtime::Podman, Runtime::Unknown] {
        let names = look_for(&root, runtime, PODMAN_ID).unwrap();
        assert_eq!((names.container.as_deref(), names.init_pid), (Some("cache"), Some(208)));
        assert_eq!(names.runtime, Some(Runtime::Podman));
    }
}

#[test]
fn a_rootless_list_is_believed_only_for_containers_of_its_owner() {
    let root = root(&[(
        "/home/me/.local/share/containers/storage/overlay-containers/containers.json",
        fixture!("podman-containers.json"),
    )]);
    let home = under(root.path(), "/home/me");
    let me = std::os::unix::fs::MetadataExt::uid(&fs::metadata(home).unwrap());
    // Root's home is not below /home; whoever runs this test owns the files.
    let look = |user| {
        let wanted = Wanted { runtime: Runtime::Podman, id: PODMAN_ID, user };
        names(&Files::under(root.path()), wanted).unwrap()
    };
    if me != 0 {
        assert_eq!(look(Some(me)).unwrap().container.as_deref(), Some("cache"));
    }
    assert_eq!(look(Some(me + 1)), None);
    assert_eq!(look(None), None);
}

#[test]
fn a_list_that_belongs_to_somebody_else_is_not_read() {
    let root = root(&[("/list.json", fixture!("podman-containers.json"))]);
    let (path, files) = (root.path().join("list.json"), Files::under(root.path()));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap());
    assert!(owned_json::<serde_json::Value>(&files, &path, LIST_LIMIT, Some(owner)).unwrap().is_some());
    assert!(owned_json::<serde_json::Value>(&files, &path, LIST_LIMIT, Some(owner + 1)).unwrap().is_none());
}

#[test]
fn a_container_without_files_is_an_answer() {
    for runtime in [Runtime::Containerd, Runtime::CriO, Runtime::Docker, Runtime::Podman, Runtime::Unknown] {
        assert_eq!(look(&root(&[]), runtime), None);
    }
}

#[test]
fn an_id_that_is_no_hexadecimal_number_is_never_made_part_of_a_path() {
    let root = root(&[("/var/lib/docker/containers/config.v2.json", fixture!("docker.json"))]);
    let wanted = Wanted { runtime: Runtime::Docker, id: "../containers", user: None };
    assert_eq!(names(&Files::under(root.path()), wanted).unwrap(), None);
}

#[test]
fn a_damaged_or_too_large_file_is_an_error_that_names_it() {
    let file = "/var/lib/docker/containers/ID/config.v2.json";
    let damaged = root(&[(file, r#"{"Name": 7"#)]);
    let error =
        names(&Files::under(damaged.path()), Wanted { runtime: Runtime::Docker, id: ID, user: None }).unwrap_err();
    assert!(matches!(&error, NameError::Json { path, .. } if path.ends_with("config.v2.json")), "{error}");

    let large = root(&[(file, &" ".repeat(usize::try_from(CONFIG_LIMIT).unwrap() + 1))]);
    let error =
        names(&Files::under(large.path()), Wanted { runtime: Runtime::Docker, id: ID, user: None }).unwrap_err();
    assert!(matches!(&error, NameError::Read { .. }), "{error}");
}

#[test]
fn names_that_would_disturb_a_terminal_or_are_overlong_are_not_taken() {
    assert_eq!(name(Some("app".into())).as_deref(), Some("app"));
    for text in ["", "a\u{1b}[2J", "a\nb", &"x".repeat(NAME_LIMIT + 1)] {
        assert_eq!(name(Some(text.into())), None);
    }
}

#[test]
fn every_file_and_directory_is_announced_before_it_is_touched() {
    let bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID";
    let root = root(&[
        (&format!("{bundle}/config.json"), fixture!("containerd-container.json")),
        (&format!("{bundle}/init.pid"), "7"),
    ]);
    let noted = std::cell::RefCell::new(Vec::new());
    let announce = |path: &Path| noted.borrow_mut().push(path.strip_prefix(root.path()).unwrap().to_owned());
    let wanted = Wanted { runtime: Runtime::Unknown, id: ID, user: None };
    names(&Files::noting(root.path(), &announce), wanted).unwrap();
    let bundle = bundle.trim_start_matches('/').replace("ID", ID);
    let expected = ["config.json", "init.pid"].map(|file| PathBuf::from(format!("{bundle}/{file}")));
    assert_eq!(noted.borrow().as_slice(), expected);
}
