//! The kubelet's links to the logs of containers, `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`
//! (`pkg/kubelet/kuberuntime/legacy.go`): the last word on a container whose runtime tells nothing any more.
//!
//! A link is made once the container has started and stays until the kubelet removes the dead container; where it points
//! to does not matter. Only the names of the directory's entries are read. A name that would be longer than 255 bytes is
//! cut, and then does not tell the id.

use super::{Files, NameError, Names, Wanted, name};

const LINKS: &str = "/var/log/containers";

/// Most links that are looked through.
const LINKS_LIMIT: usize = 16_384;

/// Digits of an id, as the kubelet gets it from the runtime.
const ID_LENGTH: usize = 64;

#[allow(clippy::unnecessary_wraps, reason = "one of several ways to look a container up")]
pub(super) fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    if wanted.id.len() != ID_LENGTH {
        return Ok(None);
    }
    let links = files.list(&files.path(LINKS), LINKS_LIMIT);
    let told = links.iter().find_map(|link| parse(link.file_name()?.to_str()?, wanted.id));
    Ok(told)
}

/// Neither names of pods and namespaces nor those of containers have a `_` (DNS names, RFC 1123).
fn parse(link: &str, id: &str) -> Option<Names> {
    let stem = link.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let mut parts = stem.split('_').map(|part| name(Some(part.to_owned())));
    let (pod_name, pod_namespace, container) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let (container, pod_namespace, pod_name) = (Some(container), Some(pod_namespace), Some(pod_name));
    Some(Names { container, pod_namespace, pod_name, ..Names::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";

    #[test]
    fn a_link_names_pod_namespace_and_container() {
        let told = parse(&format!("web-7d9c-x2x5k_shop_app-{ID}.log"), ID).unwrap();
        let names = [told.pod_name, told.pod_namespace, told.container].map(Option::unwrap);
        assert_eq!(names, ["web-7d9c-x2x5k", "shop", "app"]);
    }

    #[test]
    fn what_is_no_such_link_names_nobody() {
        for odd in ["", ".log", "-.log", "a_b_c-1.log", "a_b-ID.log", "a_b_c_d-ID.log", "__-ID.log", "a_b_cID.log"] {
            assert_eq!(parse(&odd.replace("ID", ID), ID), None, "{odd}");
        }
    }
}
