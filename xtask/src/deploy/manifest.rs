//! Documents of a YAML file of manifests, in the order in which they have to be applied.

use anyhow::{Context as _, Result};

/// What has to stand before the rest, in this order: a policy that comes after the rights it narrows leaves a gap.
const FIRST: [&str; 3] = ["Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

/// What `helm template` wrote, ordered, without its remarks.
pub(super) fn ordered(rendered: &str) -> Result<String> {
    let mut documents = Vec::new();
    for document in rendered.split("\n---\n").flat_map(|part| part.split("---\n")) {
        let lines: Vec<_> =
            document.lines().map(str::trim_end).filter(|line| !line.starts_with("# Source: ")).collect();
        let text = lines.join("\n");
        let text = text.trim_matches('\n');
        if !text.is_empty() {
            documents.push((rank(text)?, text.to_owned()));
        }
    }
    documents.sort_by_key(|(rank, _)| *rank);
    Ok(documents.iter().map(|(_, text)| format!("---\n{text}\n")).collect())
}

fn rank(document: &str) -> Result<usize> {
    let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
    let kind = kind.with_context(|| format!("find the kind of a manifest:\n{document}"))?;
    Ok(FIRST.iter().position(|first| *first == kind).unwrap_or(FIRST.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_come_before_rights_and_the_rest_keeps_its_order() {
        let rendered = "---\n# Source: a\nkind: ClusterRole\n---\n# Source: b\n# why\nkind: DaemonSet\n---\n\
                        kind: ValidatingAdmissionPolicyBinding\n---\nkind: ValidatingAdmissionPolicy\n---\nkind: Namespace\n";
        let kinds: Vec<_> = ordered(rendered)
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("kind: ").map(str::to_owned))
            .collect();
        let wanted =
            ["Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "DaemonSet"];
        assert_eq!(kinds, wanted);
    }

    #[test]
    fn a_comment_stays_with_its_document_and_a_remark_of_helm_goes() {
        let text = ordered("---\n# Source: x\n# why\nkind: A\n").unwrap();
        assert_eq!(text, "---\n# why\nkind: A\n");
        assert!(ordered("---\napiVersion: v1\n").is_err());
    }
}
