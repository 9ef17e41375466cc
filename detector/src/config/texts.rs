//! A list of texts of one kind, such as names of nodes: each is checked, and stands once.

use super::{
    field::{Broken, is_subdomain},
    yaml::{Content, Value},
};

/// What is in the list, and where it is kept.
#[derive(Debug)]
pub struct Texts<C> {
    /// Entries at most.
    pub most: usize,
    /// What an entry is, as it stands behind "a list of at most 16".
    pub what: &'static str,
    /// Whether a text is such an entry.
    pub fits: fn(&str) -> bool,
    /// The place.
    pub at: fn(&mut C) -> &mut Vec<String>,
}

impl<C> Texts<C> {
    /// What the list must be.
    pub(super) fn rule(&self) -> String {
        format!("a list of at most {} {}, each once", self.most, self.what)
    }

    pub(super) fn read<'v>(&self, value: &'v Value, config: &mut C) -> Result<(), Vec<Broken<'v>>> {
        let whole = |hint: &str| vec![Broken { at: value, rule: format!("must be {}{hint}", self.rule()) }];
        let entries = match &value.content {
            Content::Refused => return Ok(()),
            Content::List(entries) if entries.len() <= self.most => entries,
            Content::List(entries) => return Err(whole(&format!("; it has {}", entries.len()))),
            Content::Nothing => return Err(whole("; `[]` is the empty list")),
            Content::Text { .. } | Content::Section(_) => return Err(whole("")),
        };
        let (mut texts, mut broken) = (Vec::<String>::new(), Vec::new());
        for entry in entries {
            match &entry.content {
                Content::Refused => {}
                Content::Text { text, .. } if texts.contains(text) => {
                    broken.push(Broken { at: entry, rule: "must stand once".to_owned() });
                }
                Content::Text { text, .. } if (self.fits)(text) => texts.push(text.clone()),
                _ => broken.push(Broken { at: entry, rule: format!("must be one of {}", self.what) }),
            }
        }
        if !broken.is_empty() {
            return Err(broken);
        }
        *(self.at)(config) = texts;
        Ok(())
    }
}

/// Characters of the name in a qualified name at most (`k8s.io/apimachinery/pkg/util/validation`).
const MAX_QUALIFIED: usize = 63;

/// Whether `text` is the key of an annotation: a qualified name, with the prefix of its owner.
#[must_use]
pub fn is_annotation_key(text: &str) -> bool {
    let Some((prefix, name)) = text.split_once('/') else { return false };
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    let inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    is_subdomain(prefix) && ends && inner && name.len() <= MAX_QUALIFIED
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("pod.titus.netflix.com/pod-termination-reason", true)]
    #[case("a.b/C_d.e", true)]
    #[case("reason", false)]
    #[case("/reason", false)]
    #[case("a.b/", false)]
    #[case("a.b/c/d", false)]
    #[case("a.b/-c", false)]
    #[case("A.b/c", false)]
    fn a_key_has_its_owners_prefix(#[case] text: &str, #[case] fits: bool) {
        assert_eq!(is_annotation_key(text), fits);
    }
}
