//! "Did you mean": the word that is nearest to one that stands for nothing.

/// Changes of one letter that a slip of the hand makes at most.
const MAX_SLIPS: usize = 2;

/// Characters of a word that are compared at most: none of ours is longer.
const MAX_LENGTH: usize = 40;

/// A hint for `word`, if one of `known` is near or `synonyms` has one of them for it.
pub(in crate::config) fn did_you_mean(word: &str, known: &[&str], synonyms: &[(&str, &str)]) -> Option<String> {
    let word_in_small = word.to_lowercase();
    let synonym = synonyms.iter().find(|(from, to)| *from == word_in_small && known.contains(to)).map(|(_, to)| *to);
    synonym.or_else(|| nearest(word, known)).map(|word| format!("did you mean `{word}`?"))
}

/// The one of `known` that is nearest to `word`, if any is near.
pub(in crate::config) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = simple(word);
    if word.is_empty() || word.len() > MAX_LENGTH {
        return None;
    }
    let near = known.iter().map(|known| (slips(&word, &simple(known)), *known));
    // A short word is near to everything.
    near.filter(|(slips, known)| *slips <= MAX_SLIPS && slips * 3 <= known.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, known)| known)
}

/// Names as a sentence lists them: `a`, `b` or `c`.
pub(in crate::config) fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// Without what differs between styles of writing.
fn simple(word: &str) -> Vec<char> {
    word.chars().filter(|character| !matches!(character, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Least number of letters put in, left out, changed, or swapped with their neighbour (optimal string alignment).
fn slips(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, one) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in to.iter().enumerate() {
            let mut least = (last[j] + usize::from(one != other)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *one == to[j - 1] && from[i - 1] == *other {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const KNOWN: &[&str] = &["podBudget", "nodeBudget", "nodeNamespace", "series", "enabled"];

    #[rstest]
    #[case("podBuget", Some("podBudget"))]
    #[case("pod_budget", Some("podBudget"))]
    #[case("PODBUDGET", Some("podBudget"))]
    #[case("seires", Some("series"))]
    #[case("enable", Some("enabled"))]
    #[case("x", None)]
    #[case("", None)]
    #[case("colour", None)]
    fn a_slip_of_the_hand_is_seen(#[case] word: &str, #[case] nearest_known: Option<&str>) {
        assert_eq!(nearest(word, KNOWN), nearest_known);
    }

    #[rstest]
    #[case("kitten", "sitting", 3)]
    #[case("ab", "ba", 1)]
    #[case("", "abc", 3)]
    #[case("abc", "", 3)]
    fn slips_are_counted(#[case] from: &str, #[case] to: &str, #[case] count: usize) {
        assert_eq!(slips(&simple(from), &simple(to)), count);
    }

    #[test]
    fn a_synonym_is_offered_only_where_it_stands_for_something() {
        let synonyms = [("off", "disabled")];
        assert_eq!(did_you_mean("off", &["disabled"], &synonyms).as_deref(), Some("did you mean `disabled`?"));
        assert_eq!(did_you_mean("off", &["json"], &synonyms), None);
    }
}
