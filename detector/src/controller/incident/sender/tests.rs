//! Who sent what.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::contract::netconsole::secret_sha256;

const SECRET: &str = "00112233445566778899aabbccddeeff";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn node(name: &str, addresses: &[&str], secret: Option<&str>) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        secret_sha256: secret.map(secret_sha256),
        ..NodeFacts::default()
    }
}

fn claim(node: Option<&str>, secret: Option<&str>) -> Userdata {
    Userdata { node: node.map(str::to_owned), boot_id: None, secret: secret.map(str::to_owned) }
}

fn senders() -> Senders {
    let mut senders = Senders::new(Some("own".to_owned()));
    for node in [
        node("a", &["10.0.0.1", "fd00::1"], Some(SECRET)),
        node("b", &["10.0.0.2", "10.0.0.9"], Some("another")),
        node("twin", &["10.0.0.9"], None),
        node("quiet", &["10.0.0.4"], None),
        node("own", &["10.0.0.5"], Some(SECRET)),
    ] {
        senders.upsert(&node);
    }
    senders
}

fn signed(name: &str) -> Sender {
    Sender::Signed(Arc::from(name))
}

fn by_address(name: &str) -> Sender {
    Sender::Address(Arc::from(name))
}

#[rstest]
#[case::by_signature("10.0.0.1", Some("a"), Some(SECRET), signed("a"))]
#[case::a_signature_from_anywhere("192.0.2.1", Some("a"), Some(SECRET), signed("a"))]
#[case::a_signature_from_the_address_of_another("10.0.0.2", Some("a"), Some(SECRET), signed("a"))]
#[case::a_wrong_secret_falls_back_on_nothing(
    "10.0.0.1",
    Some("a"),
    Some("guessed"),
    Sender::Nobody(Doubt::WrongSecret)
)]
#[case::an_empty_secret("10.0.0.1", Some("a"), Some(""), Sender::Nobody(Doubt::WrongSecret))]
#[case::the_hash_is_not_the_secret("10.0.0.1", Some("b"), Some(SECRET), Sender::Nobody(Doubt::WrongSecret))]
#[case::nothing_published("10.0.0.4", Some("quiet"), Some(SECRET), by_address("quiet"))]
#[case::nothing_published_and_from_elsewhere(
    "192.0.2.1",
    Some("quiet"),
    Some(SECRET),
    Sender::Nobody(Doubt::Contradicted)
)]
#[case::a_name_without_a_secret("10.0.0.1", Some("a"), None, by_address("a"))]
#[case::a_name_of_another_without_a_secret("10.0.0.1", Some("b"), None, Sender::Nobody(Doubt::Contradicted))]
#[case::a_name_of_nobody_from_a_node("10.0.0.1", Some("x"), Some(SECRET), Sender::Nobody(Doubt::Contradicted))]
#[case::a_name_of_nobody_from_nowhere("192.0.2.1", Some("x"), Some(SECRET), Sender::Nobody(Doubt::Unknown))]
#[case::an_address("10.0.0.2", None, None, by_address("b"))]
#[case::a_mapped_address("::ffff:10.0.0.2", None, None, by_address("b"))]
#[case::an_address_of_two("10.0.0.9", None, None, Sender::Nobody(Doubt::Ambiguous))]
#[case::an_address_of_two_and_a_name_without_proof("10.0.0.9", Some("b"), None, Sender::Nobody(Doubt::Ambiguous))]
#[case::an_address_of_two_and_a_signature("10.0.0.9", Some("b"), Some("another"), signed("b"))]
#[case::nobody("192.0.2.1", None, None, Sender::Nobody(Doubt::Unknown))]
#[case::a_secret_without_a_name("192.0.2.1", None, Some(SECRET), Sender::Nobody(Doubt::Unknown))]
#[case::own_address("10.0.0.5", None, None, Sender::Nobody(Doubt::Own))]
#[case::own_name("10.0.0.1", Some("own"), Some(SECRET), Sender::Nobody(Doubt::Own))]
fn a_record_is_from(
    #[case] from: &str,
    #[case] name: Option<&str>,
    #[case] secret: Option<&str>,
    #[case] expected: Sender,
) {
    assert_eq!(senders().sender(address(from), &claim(name, secret)), expected);
}

#[test]
fn a_node_that_changes_is_known_by_what_it_is_now() {
    let mut senders = senders();
    senders.upsert(&node("a", &["10.0.0.7"], Some("new")));
    assert!(!senders.knows(address("10.0.0.1")) && !senders.knows(address("fd00::1")));
    assert_eq!(senders.sender(address("10.0.0.7"), &claim(None, None)), by_address("a"));
    let old = senders.sender(address("10.0.0.7"), &claim(Some("a"), Some(SECRET)));
    assert_eq!(old, Sender::Nobody(Doubt::WrongSecret));
    senders.remove("twin");
    assert_eq!(senders.sender(address("10.0.0.9"), &claim(None, None)), by_address("b"));
    senders.remove("b");
    assert!(!senders.knows(address("10.0.0.9")) && !senders.nodes.contains_key("b"));
}

#[rstest]
#[case("")]
#[case("00")]
#[case("zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")]
#[case("AA112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")]
#[case("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0")]
fn an_annotation_that_is_no_hash_proves_nothing(#[case] text: &str) {
    let mut senders = Senders::new(None);
    senders.upsert(&NodeFacts { secret_sha256: Some(text.to_owned()), ..node("a", &["10.0.0.1"], None) });
    assert_eq!(senders.sender(address("10.0.0.1"), &claim(Some("a"), Some(SECRET))), by_address("a"));
}

proptest! {
    #[test]
    fn the_index_is_the_same_however_it_came_about(
        changes in prop::collection::vec((0_u8..5, prop::collection::vec(0_u8..6, 0..4), any::<bool>()), 0..40),
    ) {
        let (mut senders, mut nodes) = (Senders::new(None), BTreeMap::new());
        for (name, addresses, stays) in changes {
            let name = format!("node-{name}");
            let texts: Vec<_> = addresses.iter().map(|last| format!("10.0.0.{last}")).collect();
            let facts = node(&name, &texts.iter().map(String::as_str).collect::<Vec<_>>(), None);
            if stays {
                senders.upsert(&facts);
                nodes.insert(name, facts);
            } else {
                senders.remove(&name);
                nodes.remove(&name);
            }
        }
        for last in 0..6 {
            let from = address(&format!("10.0.0.{last}"));
            let holders: Vec<_> = nodes.values().filter(|node| node.addresses.contains(&from)).collect();
            let expected = match holders.as_slice() {
                [] => Sender::Nobody(Doubt::Unknown),
                [only] => by_address(&only.name),
                _ => Sender::Nobody(Doubt::Ambiguous),
            };
            prop_assert_eq!(senders.knows(from), !holders.is_empty());
            prop_assert_eq!(senders.sender(from, &claim(None, None)), expected);
        }
        prop_assert_eq!(senders.nodes.len(), nodes.len());
    }
}
