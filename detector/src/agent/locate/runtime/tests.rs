//! Files of runtimes under a temporary root; their shapes are in `tests/fixtures/runtime`.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

pub(super) const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/fixtures/runtime/", $name))
    };
}

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
    names(root.path(), Wanted { runtime, id: ID, user: None }).unwrap()
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
fn dockers_own_file_names_a_plain_container() {
    let root = root(&[("/var/lib/docker/containers/ID/config.v2.json", fixture!("docker.json"))]);
    let names = look(&root, Runtime::Docker).unwrap();
    assert_eq!((names.container.as_deref(), names.init_pid, names.pod_name), (Some("cache"), Some(4242), None));
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
#[case("/var/lib/containers/storage/overlay-containers/containers.json")]
#[case("/var/lib/containers/storage/overlay-containers/volatile-containers.json")]
#[case("/run/containers/storage/overlay-containers/volatile-containers.json")]
fn podmans_lists_name_a_container(#[case] list: &str) {
    let root = root(&[
        (list, fixture!("podman-containers.json")),
        ("/run/containers/storage/overlay-containers/ID/userdata/config.json", r#"{"annotations":{}}"#),
        ("/run/containers/storage/overlay-containers/ID/userdata/pidfile", "77"),
    ]);
    for runtime in [Runtime::Podman, Runtime::Unknown] {
        let names = look(&root, runtime).unwrap();
        assert_eq!((names.container.as_deref(), names.init_pid), (Some("cache"), Some(77)));
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
    let look = |user| names(root.path(), Wanted { runtime: Runtime::Podman, id: ID, user }).unwrap();
    if me != 0 {
        assert_eq!(look(Some(me)).unwrap().container.as_deref(), Some("cache"));
    }
    assert_eq!(look(Some(me + 1)), None);
    assert_eq!(look(None), None);
}

#[test]
fn a_list_that_belongs_to_somebody_else_is_not_read() {
    let root = root(&[("/list.json", fixture!("podman-containers.json"))]);
    let path = root.path().join("list.json");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap());
    assert!(owned_json::<serde_json::Value>(&path, LIST_LIMIT, Some(owner)).unwrap().is_some());
    assert!(owned_json::<serde_json::Value>(&path, LIST_LIMIT, Some(owner + 1)).unwrap().is_none());
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
    assert_eq!(names(root.path(), wanted).unwrap(), None);
}

#[test]
fn a_damaged_or_too_large_file_is_an_error_that_names_it() {
    let file = "/var/lib/docker/containers/ID/config.v2.json";
    let damaged = root(&[(file, r#"{"Name": 7"#)]);
    let error = names(damaged.path(), Wanted { runtime: Runtime::Docker, id: ID, user: None }).unwrap_err();
    assert!(matches!(&error, NameError::Json { path, .. } if path.ends_with("config.v2.json")), "{error}");

    let large = root(&[(file, &" ".repeat(usize::try_from(CONFIG_LIMIT).unwrap() + 1))]);
    let error = names(large.path(), Wanted { runtime: Runtime::Docker, id: ID, user: None }).unwrap_err();
    assert!(matches!(&error, NameError::Read { .. }), "{error}");
}

#[test]
fn names_that_would_disturb_a_terminal_or_are_overlong_are_not_taken() {
    assert_eq!(name(Some("app".into())).as_deref(), Some("app"));
    for text in ["", "a\u{1b}[2J", "a\nb", &"x".repeat(NAME_LIMIT + 1)] {
        assert_eq!(name(Some(text.into())), None);
    }
}
