//! The agent's file: what is right, what is wrong, and that table, defaults and reference agree.

use std::{collections::BTreeSet, net::SocketAddr};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::{
    agent::options::Method,
    config::{self, mistake::MAX_MISTAKES, parse},
};

fn right(text: &str) -> Config {
    parse("agent.yaml", text.as_bytes()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn wrong(text: &str) -> String {
    parse("agent.yaml", text.as_bytes()).expect_err("mistakes").to_string()
}

/// Each key, each with a value that is right and not its default.
const OTHER: &str = "
detectors: {oom: kprobe, hungTask: required, panic: disabled}
lastWords: {printByKernel: true}
locate: {podWatch: true, hold: 0s}
conditions: {enabled: false, heartbeat: 5m, runtimeProcesses: [kubelet, \"init\"]}
events:
  enabled: false
  nodeNamespace: kube-system
  series: 90s
  nodeBudget: {burst: 20, every: 5s}
  podBudget: {burst: 20, every: 5s}
metrics: {listen: \"[::]:80\", keep: 1h30m, series: 500}
health: {listen: \"[::]:80\"}
state: {directory: /run/other, pins: /sys/fs/bpf/other, boots: /var/lib/other/boot.json}
previousBoot: {keep: 90m}
log: {format: text, level: debug}
";

#[rstest]
fn an_empty_file_is_the_default(#[values("", "# nothing\n", "events:\n", "{}", "events: {podBudget: }\n")] text: &str) {
    assert_eq!(right(text), Config::default());
}

#[test]
fn the_default_file_is_the_default() {
    assert_eq!(right(&default_file()), Config::default());
}

#[test]
fn all_values_arrive() {
    let config = right(OTHER);
    assert_eq!(config.detectors.oom, Choice::Forced(Method::Kprobe));
    assert_eq!(config.detectors.hung_task, Choice::Required);
    assert!(config.locate.pod_watch && config.locate.hold.is_zero());
    assert_eq!(config.conditions.runtime_processes, ["kubelet", "init"]);
    assert_eq!(config.events.node_namespace, "kube-system");
    assert_eq!(config.metrics.keep, Duration::from_secs(5400));
    assert_eq!((config.metrics.listen, config.state.directory), (config.health.listen, Some("/run/other".into())));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LogLevel::Debug));
}

#[test]
fn each_key_can_be_set_written_compared_and_taken_over() {
    let (default, other) = (Config::default(), right(OTHER));
    let differing: Vec<&str> = default.differences(&other).iter().map(|difference| difference.key).collect();
    assert_eq!(differing, KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
    assert_eq!(other.differences(&other), []);
    let mut taken = default;
    for key in KEYS {
        key.field.take_over(&mut taken, &other);
    }
    assert_eq!(taken, other);
}

#[test]
fn at_run_time_only_those_keys_change_that_say_so() {
    let (default, other) = (Config::default(), right(OTHER));
    let in_force = default.at_run_time(&other);
    let changed: Vec<_> = default.differences(&in_force).iter().map(|difference| difference.key).collect();
    let at_once: Vec<_> = KEYS.iter().filter(|key| key.applies == AtOnce).map(|key| key.path).collect();
    assert_eq!(changed, at_once);
    assert!(!in_force.events.pod_budget.eq(&default.events.pod_budget) && in_force.events.enabled);
}

#[test]
fn every_word_of_a_detector_is_read() {
    for detector in Detector::ALL {
        for word in choices(detector) {
            assert_eq!(choice_word(choice(detector, word)), word);
        }
    }
}

#[test]
fn paths_are_told_apart_and_each_key_has_its_section() {
    let sections: BTreeSet<&str> = SECTIONS.iter().map(|section| section.path).collect();
    let keys: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!((sections.len(), keys.len()), (SECTIONS.len(), KEYS.len()));
    for path in sections.iter().chain(&keys) {
        let parent = path.rsplit_once('.').map(|(parent, _)| parent);
        assert!(parent.is_none_or(|parent| sections.contains(parent)), "{path}");
        assert!(path.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.'), "{path} is not in camelCase");
    }
}

#[test]
fn keys_that_can_contradict_each_other_apply_together() {
    let worst = "
detectors: {oom: disabled, hungTask: disabled}
events: {podBudget: {burst: 11, every: 9s}}
metrics: {listen: 127.0.0.1:20256}
state: {pins: /run/detector/pins}
";
    let detectors = Chosen { oom: Choice::Off, hung_task: Choice::Off, panic: Choice::Best };
    let mut config = Config { detectors, ..Config::default() };
    config.events.pod_budget.burst = 11;
    config.events.pod_budget.every = seconds(9);
    config.metrics.listen = Some(SocketAddr::from(([127, 0, 0, 1], 20256)));
    config.state.pins = Some("/run/detector/pins".into());
    let found = contradictions(&config);
    assert_eq!(found.len(), 5, "{found:?}");
    for contradiction in found {
        let applies = |path: &&str| KEYS.iter().find(|key| key.path == *path).expect("a key").applies;
        let all: Vec<_> = contradiction.keys.iter().map(applies).collect();
        assert!(all.iter().all(|one| *one == all[0]), "{contradiction:?}");
    }
    insta::assert_snapshot!("contradictions", wrong(worst));
}

#[test]
fn listeners_that_do_not_meet_are_right() {
    right("{metrics: {listen: 127.0.0.1:80}, health: {listen: 127.0.0.2:80}}");
    right("{metrics: {listen: 0.0.0.0:80}, health: {listen: 0.0.0.0:80}}");
    right("{metrics: {listen: disabled}, health: {listen: 0.0.0.0:20257}}");
}

#[test]
fn the_note_of_the_last_boot_lies_apart_from_the_state() {
    for boots in ["/run/detector", "/run/detector/boot.json", "/run"] {
        assert!(wrong(&format!("{{state: {{boots: {boots}}}}}")).contains("outlive the machine"), "{boots}");
    }
    right("{state: {boots: /run/detector.json}}");
    right("{state: {boots: /run/detector/boot.json, directory: disabled}}");
}

#[rstest]
#[case("unknown_keys", include_str!("bad/unknown_keys.yaml"))]
#[case("wrong_types", include_str!("bad/wrong_types.yaml"))]
#[case("wrong_units", include_str!("bad/wrong_units.yaml"))]
#[case("out_of_range", include_str!("bad/out_of_range.yaml"))]
#[case("wrong_words", include_str!("bad/wrong_words.yaml"))]
#[case("names", include_str!("bad/names.yaml"))]
#[case("structure", include_str!("bad/structure.yaml"))]
#[case("aliases", include_str!("bad/aliases.yaml"))]
#[case("no_yaml", include_str!("bad/no_yaml.yaml"))]
#[case("another_file", include_str!("bad/another_file.yaml"))]
fn a_bad_file_is_told_whole(#[case] name: &str, #[case] text: &str) {
    insta::assert_snapshot!(name, wrong(text));
}

#[test]
fn a_bomb_of_aliases_does_not_go_off() {
    let mut text = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..64 {
        let before = level - 1;
        text.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n"));
    }
    let mistakes = parse("bomb", text.as_bytes()).expect_err("a bomb");
    assert!(mistakes.lines().any(|line| line.contains("alias")), "{mistakes}");
}

#[test]
fn endless_mistakes_are_bounded() {
    let text: String = (0..10_000).map(|number| format!("key{number}: 1\n")).collect();
    let mistakes = parse("many", text.as_bytes()).expect_err("mistakes");
    assert_eq!((mistakes.count(), mistakes.list().len()), (10_000, MAX_MISTAKES));
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_too() {
    let mistakes = config::load(Path::new("/nowhere/agent.yaml")).expect_err("no file");
    assert_eq!(mistakes.to_string(), "/nowhere/agent.yaml: cannot be read: No such file or directory (os error 2)");
}

/// What a file is made of, put together in ways that nobody meant.
fn pieces() -> impl Strategy<Value = String> {
    let mut words: Vec<String> =
        ["\n", "  ", ": ", "- ", "[", "]", "{", "}", "\"", "'", "&a ", "*a", "#", "|\n", "null", "\t"]
            .map(str::to_owned)
            .to_vec();
    words.extend(KEYS.iter().flat_map(|key| key.path.split('.')).map(str::to_owned));
    words.extend(["10", "30s", "disabled", "true", "debug", "0.0.0.0:80", "/x", "kubelet"].map(str::to_owned));
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
}

/// A whole config or none: what is taken keeps all rules, and comes back from its own file.
fn holds(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse("f", bytes) {
        Ok(config) => {
            prop_assert_eq!(contradictions(&config), []);
            let written = written(&config);
            prop_assert_eq!(parse("g", written.as_bytes()).map_err(|mistakes| mistakes.to_string()), Ok(config));
        }
        Err(mistakes) => {
            prop_assert!(mistakes.count() > 0);
            prop_assert!(mistakes.lines().all(|line| !line.contains('\n')));
        }
    }
    Ok(())
}

/// `config` as a file.
fn written(config: &Config) -> String {
    let value = |name: &str, path: &str| {
        let key = KEYS.iter().find(|key| key.path == path)?;
        Some(format!("{name}: {}", key.field.write(config).on_one_line()))
    };
    fn of(path: &str, value: &dyn Fn(&str, &str) -> Option<String>) -> String {
        let inside = |known: &&str| known.rsplit_once('.').map_or("", |(parent, _)| parent) == path;
        let name = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let keys = KEYS.iter().map(|key| key.path).filter(inside).filter_map(|path| value(&name(path), path));
        let sections = SECTIONS.iter().map(|section| section.path).filter(inside);
        let sections = sections.map(|path| format!("{}: {}", name(path), of(path, value)));
        format!("{{{}}}", keys.chain(sections).collect::<Vec<_>>().join(", "))
    }
    of("", &value)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_a_whole_config_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        holds(&bytes)?;
    }

    #[test]
    fn arbitrary_pieces_of_a_file_are_a_whole_config_or_none(text in pieces()) {
        holds(text.as_bytes())?;
    }

    #[test]
    fn a_default_file_with_one_line_changed_is_a_whole_config_or_none(at in 0_usize..200, text in pieces()) {
        let file = default_file();
        let mut lines: Vec<&str> = file.lines().collect();
        let at = at % lines.len();
        lines[at] = &text;
        holds(lines.join("\n").as_bytes())?;
    }
}
