//! Reads a cgroup's path: which pod, container or unit it names, and at which depth. Pure and total: any text has an
//! answer, and nothing is allocated.
//!
//! The shapes are those of the kubelet's two cgroup drivers, of containerd, CRI-O, Docker, Podman, LXC and systemd;
//! `tests/fixtures/cgroup/paths.tsv` lists each with its origin. Two rules decide where shapes nest: the *outermost* pod
//! wins, also inside a container (a node may itself be one, as with kind), and below it, or where there is no pod, the
//! *outermost* container. So what is made inside a pod's container belongs to that container, whatever its name: a
//! container that may make cgroups cannot have its kills told under another pod's name.
//!
//! What has no mark of a runtime is no container: `ctr run … web` without a cgroups path makes `/default/web`, which
//! anybody may make, and stays a plain cgroup with its path. Only an id of 64 digits is told without a mark.

use super::place::{Container, Owner, Pod, Qos, Runtime};

/// Digits of a full container id of containerd, CRI-O, Docker and Podman.
const FULL_ID: usize = 64;

/// Fewest digits of a container id behind a runtime's own prefix.
const SHORTEST_ID: usize = 12;

/// What a path says. All text is borrowed from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The outermost pod.
    pub pod: Option<PodPart<'a>>,
    /// The container: below the pod, if there is one.
    pub container: Option<ContainerPart<'a>>,
    /// The innermost systemd service, scope, socket, mount or swap, else the innermost slice.
    pub unit: Option<&'a str>,
    /// The user whose `user-<uid>.slice` the path goes through.
    pub user: Option<u32>,
    /// Depth of the path: how many components it has. The root has 0.
    pub level: u32,
}

/// The component that names a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPart<'a> {
    /// The uid as the path has it: in systemd's form with `_` where the uid has `-`.
    pub raw_uid: &'a str,
    /// From the path. The kubelet gives guaranteed pods no level of their own.
    pub qos: Qos,
    /// Depth of the pod's cgroup. In the form `<slice>:cri-containerd:<id>` pod and container share one component.
    pub level: u32,
}

/// The component that names a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerPart<'a> {
    /// As far as the path tells.
    pub runtime: Runtime,
    /// Container id, or the name of an LXC container.
    pub id: &'a str,
    /// Depth of the container's cgroup.
    pub level: u32,
}

impl PodPart<'_> {
    /// The uid as the API server writes it. systemd reserves `-` for nesting of slices, so that the kubelet writes `_`.
    #[must_use]
    pub fn uid(&self) -> String {
        self.raw_uid.replace('_', "-")
    }
}

impl Parsed<'_> {
    /// The path's own cgroup is that of a container, not one above or below it.
    #[must_use]
    pub fn is_container_itself(&self) -> bool {
        self.container.is_some_and(|container| container.level == self.level)
    }

    /// The owner as far as the path alone can tell it: without names.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let pod =
            self.pod.map(|part| Pod { uid: part.uid(), qos: part.qos, level: part.level, namespace: None, name: None });
        match (self.container, pod, self.unit) {
            (Some(part), pod, _) => Owner::Container(Container {
                runtime: part.runtime,
                id: part.id.to_owned(),
                level: part.level,
                name: None,
                init_pid: None,
                pod,
            }),
            (None, Some(pod), _) => Owner::Pod(pod),
            (None, None, Some(unit)) => Owner::Unit(unit.to_owned()),
            (None, None, None) => Owner::Cgroup,
        }
    }
}

/// Reads a path such as `/kubepods.slice/kubepods-pod….slice/cri-containerd-….scope`.
#[must_use]
pub fn parse(path: &str) -> Parsed<'_> {
    let mut parsed = Parsed::default();
    let mut previous = "";
    let mut unit_is_slice = true;
    for component in components(path) {
        // A path of 2^32 components cannot exist; saturating keeps the function total.
        parsed.level = parsed.level.saturating_add(1);
        step(&mut parsed, component, previous);
        if let Some(is_slice) = unit_kind(component)
            && (unit_is_slice || !is_slice)
        {
            parsed.unit = Some(component);
            unit_is_slice = is_slice;
        }
        previous = component;
    }
    parsed
}

/// The first `level` components of a path: the path of that ancestor. Level 0 is `/`; a level beyond the path's own
/// depth gives the whole path.
#[must_use]
pub fn path_of_level(path: &str, level: u32) -> &str {
    if level == 0 {
        return "/";
    }
    let mut seen = 0;
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        match (byte == b'/', inside) {
            (true, true) if seen == level => return &path[..at],
            (true, _) => inside = false,
            (false, false) => {
                inside = true;
                seen += 1;
            }
            (false, true) => {}
        }
    }
    path
}

/// The components of a path; empty ones, as in `//`, are none.
pub(super) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

fn step<'a>(parsed: &mut Parsed<'a>, component: &'a str, previous: &str) {
    let level = parsed.level;
    if let Some(user) = component.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice")) {
        parsed.user = user.parse().ok().or(parsed.user);
    }
    // `<slice>:<prefix>:<id>` is what runc takes as cgroupsPath for systemd; a containerd that was not told to use
    // systemd under a kubelet that does makes a directory of that name.
    if let Some((slice, rest)) = component.split_once(':')
        && let Some((prefix, id)) = rest.split_once(':')
    {
        if let (None, Some((raw_uid, qos))) = (parsed.pod, pod_of_slice(slice)) {
            parsed.pod = Some(PodPart { raw_uid, qos, level });
            parsed.container = None;
        }
        if parsed.container.is_none() && is_id(id) {
            let runtime = runtime_of_prefix(prefix).unwrap_or(Runtime::Unknown);
            parsed.container = Some(ContainerPart { runtime, id, level });
        }
        return;
    }
    let pod = pod_of_slice(component).or_else(|| pod_of_directory(component, previous));
    if let (None, Some((raw_uid, qos))) = (parsed.pod, pod) {
        parsed.pod = Some(PodPart { raw_uid, qos, level });
        parsed.container = None;
    } else if parsed.container.is_none()
        && let Some((runtime, id)) = container_of(component, previous, level)
    {
        parsed.container = Some(ContainerPart { runtime, id, level });
    }
}

/// systemd driver: `[<root>-]kubepods[-burstable|-besteffort]-pod<uid>.slice`.
fn pod_of_slice(component: &str) -> Option<(&str, Qos)> {
    let stem = component.strip_suffix(".slice")?;
    let at = stem.find("kubepods-")?;
    if at > 0 && !stem[..at].ends_with('-') {
        return None;
    }
    let rest = &stem[at + "kubepods-".len()..];
    let (qos, rest) = if let Some(rest) = rest.strip_prefix("burstable-") {
        (Qos::Burstable, rest)
    } else if let Some(rest) = rest.strip_prefix("besteffort-") {
        (Qos::BestEffort, rest)
    } else {
        (Qos::Guaranteed, rest)
    };
    let uid = rest.strip_prefix("pod").filter(|uid| !uid.is_empty())?;
    Some((uid, qos))
}

/// cgroupfs driver: `kubepods[/burstable|/besteffort]/pod<uid>`. Under these parents any uid is taken, because static
/// pods may choose their own; elsewhere it must look like one.
fn pod_of_directory<'a>(component: &'a str, previous: &str) -> Option<(&'a str, Qos)> {
    let uid = component.strip_prefix("pod").filter(|uid| !uid.is_empty())?;
    match previous {
        "burstable" => Some((uid, Qos::Burstable)),
        "besteffort" => Some((uid, Qos::BestEffort)),
        "kubepods" => Some((uid, Qos::Guaranteed)),
        _ => is_uid(uid).then_some((uid, Qos::Guaranteed)),
    }
}

/// A component that names a container, with its runtime as far as the name tells.
fn container_of<'a>(component: &'a str, previous: &str, level: u32) -> Option<(Runtime, &'a str)> {
    if let Some(name) = component.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) {
        return Some((Runtime::Unknown, name));
    }
    // LXC before 4.0: `/lxc/<name>`.
    if previous == "lxc" && level == 2 {
        return Some((Runtime::Unknown, component));
    }
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    if is_full_id(stem) {
        return match previous {
            // A Podman pod, not a container: its containers are `libpod-<id>` below.
            "libpod_parent" => None,
            "docker" => Some((Runtime::Docker, stem)),
            _ => Some((Runtime::Unknown, stem)),
        };
    }
    let (prefix, id) = stem.rsplit_once('-')?;
    if let Some(runtime) = runtime_of_prefix(prefix) {
        return is_id(id).then_some((runtime, id));
    }
    // Another runtime on systemd. conmon is the monitor of a container, and lives beside it.
    let foreign = component.len() > stem.len() && is_full_id(id) && !prefix.ends_with("conmon");
    foreign.then_some((Runtime::Unknown, id))
}

fn runtime_of_prefix(prefix: &str) -> Option<Runtime> {
    match prefix {
        "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" | "libpod-payload" => Some(Runtime::Podman),
        _ => None,
    }
}

/// `Some(true)` for a slice, `Some(false)` for a unit that is more telling than a slice.
fn unit_kind(component: &str) -> Option<bool> {
    let (name, kind) = component.rsplit_once('.')?;
    match kind {
        _ if name.is_empty() => None,
        "service" | "scope" | "socket" | "mount" | "swap" => Some(false),
        "slice" => Some(true),
        _ => None,
    }
}

fn is_full_id(text: &str) -> bool {
    text.len() == FULL_ID && is_id(text)
}

fn is_id(text: &str) -> bool {
    text.len() >= SHORTEST_ID && text.len() <= 2 * FULL_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A UUID with `-` or `_`, or the 32 digits of a static pod's hash.
fn is_uid(text: &str) -> bool {
    match text.len() {
        32 => text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        36 => text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-' || byte == b'_',
            _ => byte.is_ascii_hexdigit(),
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATHS: &str = include_str!("../../../../tests/fixtures/cgroup/paths.tsv");

    fn told<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| String::from("-"), |value| value.to_string())
    }

    fn runtime(runtime: Runtime) -> &'static str {
        match runtime {
            Runtime::Containerd => "containerd",
            Runtime::CriO => "crio",
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Unknown => "unknown",
        }
    }

    fn qos(qos: Qos) -> &'static str {
        match qos {
            Qos::Guaranteed => "guaranteed",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        }
    }

    #[test]
    fn every_known_shape_of_path_is_read() {
        let mut shapes = 0;
        for line in PATHS.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split('\t').collect();
            let [name, path, expected @ .., origin] = fields.as_slice() else { panic!("too few fields: {line}") };
            let parsed = parse(path);
            let seen = [
                told(parsed.container.map(|container| runtime(container.runtime))),
                told(parsed.container.map(|container| container.id)),
                told(parsed.container.map(|container| container.level)),
                told(parsed.pod.map(|pod| pod.uid())),
                told(parsed.pod.map(|pod| qos(pod.qos))),
                told(parsed.pod.map(|pod| pod.level)),
                told(parsed.unit),
            ];
            assert_eq!(seen.as_slice(), expected, "{name}: {path}");
            assert!(!origin.is_empty(), "{name} has no origin");
            shapes += 1;
        }
        assert!(shapes >= 60, "{shapes}");
    }

    #[test]
    fn the_owner_is_the_container_then_the_pod_then_the_unit() {
        let owner = |path| parse(path).owner();
        assert!(matches!(owner("/kubepods/pod0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11"), Owner::Pod(_)));
        assert!(matches!(owner("/system.slice/cron.service"), Owner::Unit(unit) if unit == "cron.service"));
        assert!(matches!(owner("/mine"), Owner::Cgroup));
    }

    #[test]
    fn names_that_only_resemble_containers_and_pods_are_neither() {
        for path in [
            "/system.slice/docker.service",
            "/system.slice/docker.socket",
            "/docker",
            "/docker/buildx",
            "/user.slice/user-1000.slice/app-podman-1.scope",
            "/podman",
            "/kubepods.slice/kubepods-pod.slice",
            "/mykubepods-pod1.slice",
            "/pods/podium",
            "/libpod_parent/conmon",
        ] {
            let parsed = parse(path);
            assert_eq!((parsed.pod, parsed.container), (None, None), "{path}");
        }
    }

    #[test]
    fn the_user_of_a_rootless_container_is_told() {
        assert_eq!(parse("/user.slice/user-1000.slice/user@1000.service").user, Some(1000));
        assert_eq!(parse("/user.slice/user-x.slice").user, None);
    }

    #[test]
    fn a_path_is_cut_at_a_level() {
        let cut = |level| path_of_level("/a/bc/d", level);
        assert_eq!([cut(0), cut(1), cut(2), cut(3), cut(4)], ["/", "/a", "/a/bc", "/a/bc/d", "/a/bc/d"]);
        assert_eq!(path_of_level("/", 3), "/");
        assert_eq!(path_of_level("//a//b", 1), "//a");
    }

    fn component() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z.:_-]{0,12}",
            "(cri-containerd-|crio-|crio-conmon-|docker-|libpod-|lxc.payload.|)[0-9a-f]{60,66}(.scope|)",
            "(kubelet-|)kubepods(-burstable|-besteffort|)-pod[0-9a-f_]{0,36}.slice(:cri-containerd:[0-9a-f]{64}|)",
            "pod[0-9a-f-]{0,36}",
            "(kubepods|burstable|besteffort|docker|lxc|libpod_parent|user-1000.slice)",
        ]
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(path in ".{0,300}") {
            let parsed = parse(&path);
            prop_assert!(parsed.level as usize <= path.len());
            prop_assert!(path_of_level(&path, 3).len() <= path.len().max(1));
        }

        #[test]
        fn levels_lie_within_the_path_and_all_text_is_taken_from_it(parts in prop::collection::vec(component(), 0..12)) {
            let path = format!("/{}", parts.join("/"));
            let parsed = parse(&path);
            prop_assert_eq!(parsed.level as usize, components(&path).count());
            if let Some(container) = parsed.container {
                prop_assert!(container.level >= 1 && container.level <= parsed.level);
                prop_assert!(path.contains(container.id) && !container.id.is_empty());
                prop_assert!(path_of_level(&path, container.level).contains(container.id));
                prop_assert!(parsed.pod.is_none_or(|pod| pod.level <= container.level));
            }
            if let Some(pod) = parsed.pod {
                prop_assert!(pod.level >= 1 && pod.level <= parsed.level);
                prop_assert!(path_of_level(&path, pod.level).contains(pod.raw_uid));
            }
            prop_assert!(parsed.unit.is_none_or(|unit| components(&path).any(|component| component == unit)));
        }

        #[test]
        fn a_cut_path_has_as_many_components_as_its_level(parts in prop::collection::vec("[a-z]{1,5}", 0..8), level in 0..10_u32) {
            let path = format!("/{}", parts.join("/"));
            let cut = path_of_level(&path, level);
            prop_assert!(path.starts_with(cut));
            prop_assert_eq!(components(cut).count(), parts.len().min(level as usize));
        }
    }
}
