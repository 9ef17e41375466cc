//! Kinds of values: how each is read from a file, checked, written and described.
//!
//! A field holds the way to its place in the settings, so that one line of a table reads, writes and explains a key.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{
    mistake::nearest::{did_you_mean, listed},
    texts::Texts,
    yaml::{Content, Value},
};

/// What is written where nothing is wanted: `off` and `no` would be `false` in older YAML, and `null` the default.
pub const DISABLED: &str = "disabled";

/// Bytes of a path at most: `PATH_MAX` with its end (`include/uapi/linux/limits.h`).
const MAX_PATH: usize = 4095;

/// Bytes of a task's name at most: `TASK_COMM_LEN` less its end (`include/linux/sched.h`).
const MAX_COMM: usize = 15;

/// Characters of a name at most: a DNS subdomain (RFC 1123), as the API server has it.
const MAX_NAME: usize = 253;

/// A place in settings of type `C`, and the kind of value that it takes.
#[derive(Debug)]
pub enum Field<C> {
    /// `true` or `false`.
    Flag(fn(&mut C) -> &mut bool),
    /// A whole number.
    Number(RangeInclusive<u32>, fn(&mut C) -> &mut u32),
    /// A whole number that bounds a size.
    Size(RangeInclusive<usize>, fn(&mut C) -> &mut usize),
    /// A time in whole seconds.
    Time(RangeInclusive<Duration>, fn(&mut C) -> &mut Duration),
    /// One of some words.
    Word {
        /// All of them.
        words: fn() -> Vec<&'static str>,
        /// The one that holds.
        get: fn(&C) -> &str,
        /// Sets the one that was chosen, which is one of `words`.
        set: fn(&mut C, &str),
    },
    /// A list of texts of one kind.
    Texts(Texts<C>),
    /// An address to listen on, or none.
    Address(fn(&mut C) -> &mut Option<SocketAddr>),
    /// An absolute path, or none.
    Directory(fn(&mut C) -> &mut Option<PathBuf>),
    /// Names of processes, at most so many.
    Comms(usize, fn(&mut C) -> &mut Vec<String>),
    /// Name of an object of the Kubernetes API or of a part of one.
    Name(fn(&mut C) -> &mut String),
    /// Addresses of others, at most so many.
    Addresses(usize, fn(&mut C) -> &mut Vec<SocketAddr>),
}

/// A rule that a part of a value breaks: which part, and the rule.
pub(super) struct Broken<'v> {
    pub(super) at: &'v Value,
    pub(super) rule: String,
}

impl<C> Field<C> {
    /// Puts `value` where it belongs, or tells all rules that it breaks.
    pub(super) fn read<'v>(&self, value: &'v Value, config: &mut C) -> Result<(), Vec<Broken<'v>>> {
        if let Self::Texts(texts) = self {
            return texts.read(value, config);
        }
        if value.content == Content::Refused {
            return Ok(());
        }
        match self {
            Self::Comms(most, at) => {
                *at(config) = comms(value, *most, &self.rule())?;
                return Ok(());
            }
            Self::Addresses(most, at) => {
                *at(config) = addresses(value, *most, &self.rule())?;
                return Ok(());
            }
            _ => {}
        }
        let parsed = match &value.content {
            Content::Text { text, plain } => self.read_scalar(text, *plain, config),
            Content::Nothing | Content::Refused => {
                Err(Some("it has no value; leave the key out for its default".to_owned()))
            }
            Content::List(_) if matches!(self, Self::Address(_)) => Err(Some("IPv6 needs quotes".to_owned())),
            Content::List(_) => Err(Some("it is a list".to_owned())),
            Content::Section(_) => Err(Some("it is a section".to_owned())),
        };
        parsed.map_err(|hint| {
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            vec![Broken { at: value, rule: format!("must be {}{hint}", self.rule()) }]
        })
    }

    /// An error is a hint that stands behind the rule, if there is one.
    fn read_scalar(&self, text: &str, plain: bool, config: &mut C) -> Result<(), Option<String>> {
        let in_quotes = || (!plain).then(|| "leave the quotes out".to_owned());
        match self {
            Self::Flag(at) => {
                *at(config) = plain.then(|| flag(text)).flatten().ok_or_else(|| match flag(text) {
                    Some(_) => in_quotes(),
                    None => did_you_mean(text, &["true", "false"], SYNONYMS),
                })?;
            }
            Self::Number(range, at) => {
                let number = whole_number(text).and_then(|number| u32::try_from(number).ok());
                *at(config) = number.filter(|number| plain && range.contains(number)).ok_or_else(in_quotes)?;
            }
            Self::Size(range, at) => {
                let number = whole_number(text).and_then(|number| usize::try_from(number).ok());
                *at(config) = number.filter(|number| plain && range.contains(number)).ok_or_else(in_quotes)?;
            }
            Self::Time(range, at) => {
                let without_unit = || whole_number(text).map(|_| "its unit is missing".to_owned());
                *at(config) = time(text).filter(|time| range.contains(time)).ok_or_else(without_unit)?;
            }
            Self::Word { words, set, .. } => {
                let words = words();
                let word = words.iter().find(|word| **word == text);
                set(config, word.ok_or_else(|| did_you_mean(text, &words, SYNONYMS))?);
            }
            Self::Texts(_) => return Err(None),
            Self::Address(at) => *at(config) = optional(text, address)?,
            Self::Directory(at) => *at(config) = optional(text, directory)?,
            Self::Name(at) => *at(config) = Some(text).filter(|text| is_subdomain(text)).ok_or(None)?.to_owned(),
            Self::Comms(..) | Self::Addresses(..) => return Err(None),
        }
        Ok(())
    }

    /// Its type in one or two words.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Flag(_) => "boolean",
            Self::Number(..) | Self::Size(..) => "whole number",
            Self::Time(..) => "time",
            Self::Word { .. } => "word",
            Self::Texts(_) => "list of texts",
            Self::Address(_) => "address",
            Self::Directory(_) => "path",
            Self::Comms(..) => "list of names",
            Self::Name(_) => "name",
            Self::Addresses(..) => "list of addresses",
        }
    }

    /// What a value must be, as it stands behind "must be".
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::Flag(_) => "`true` or `false`".to_owned(),
            Self::Number(range, _) => format!("a whole number from {} to {}", range.start(), range.end()),
            Self::Size(range, _) => format!("a whole number from {} to {}", range.start(), range.end()),
            Self::Time(range, _) => {
                let (least, most) = (write_time(*range.start()), write_time(*range.end()));
                format!("a time from {least} to {most} in whole `h`, `m` and `s`")
            }
            Self::Word { words, .. } => listed(&words()),
            Self::Texts(texts) => texts.rule(),
            Self::Address(_) => format!(
                "an IP address with a port from 1 to 65535, such as `0.0.0.0:8080` or `\"[::]:8080\"`, or `{DISABLED}`"
            ),
            Self::Directory(_) => {
                format!("an absolute path without `..`, of at most {MAX_PATH} bytes and not `/`, or `{DISABLED}`")
            }
            Self::Name(_) => format!("a name of 1 to {MAX_NAME} lower-case letters, digits, `-` and `.` (RFC 1123)"),
            Self::Addresses(most, _) => format!(
                "a list of at most {most} IP addresses with ports from 1 to 65535, such as `10.0.0.1:6666` or \
                 `\"[fd00::1]:6666\"`, each once"
            ),
            Self::Comms(most, _) => format!(
                "a list of at most {most} names of processes as the kernel keeps them: 1 to {MAX_COMM} bytes, each once"
            ),
        }
    }
}

impl<C: Clone> Field<C> {
    /// What `config` holds, as YAML; a list has one text for each entry.
    #[must_use]
    pub fn write(&self, config: &C) -> Written {
        let config = &mut config.clone();
        let or_disabled = |text: Option<String>| Written::One(text.unwrap_or_else(|| DISABLED.to_owned()));
        match self {
            Self::Flag(at) => Written::One(at(config).to_string()),
            Self::Number(_, at) => Written::One(at(config).to_string()),
            Self::Size(_, at) => Written::One(at(config).to_string()),
            Self::Time(_, at) => Written::One(write_time(*at(config))),
            Self::Word { get, .. } => Written::One(get(config).to_owned()),
            Self::Texts(texts) => Written::Many((texts.at)(config).iter().map(|text| quoted(text)).collect()),
            Self::Address(at) => or_disabled(at(config).map(|address| quoted(&address.to_string()))),
            Self::Directory(at) => or_disabled(at(config).as_ref().map(|path| quoted(&path.to_string_lossy()))),
            Self::Comms(_, at) => Written::Many(at(config).iter().map(|name| quoted(name)).collect()),
            Self::Name(at) => Written::One(quoted(at(config))),
            Self::Addresses(_, at) => {
                Written::Many(at(config).iter().map(|address| quoted(&address.to_string())).collect())
            }
        }
    }

    /// Takes this value, and no other, over from `other`.
    pub(super) fn take_over(&self, config: &mut C, other: &C) {
        let mut other = other.clone();
        match self {
            Self::Flag(at) => *at(config) = *at(&mut other),
            Self::Number(_, at) => *at(config) = *at(&mut other),
            Self::Size(_, at) => *at(config) = *at(&mut other),
            Self::Time(_, at) => *at(config) = *at(&mut other),
            Self::Word { get, set, .. } => set(config, get(&other)),
            Self::Texts(texts) => (texts.at)(config).clone_from((texts.at)(&mut other)),
            Self::Address(at) => *at(config) = *at(&mut other),
            Self::Directory(at) => at(config).clone_from(at(&mut other)),
            Self::Comms(_, at) => at(config).clone_from(at(&mut other)),
            Self::Name(at) => at(config).clone_from(at(&mut other)),
            Self::Addresses(_, at) => at(config).clone_from(at(&mut other)),
        }
    }
}

/// A value as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A scalar.
    One(String),
    /// Entries of a list.
    Many(Vec<String>),
}

impl Written {
    /// It on one line, as YAML.
    #[must_use]
    pub fn on_one_line(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Many(entries) => format!("[{}]", entries.join(", ")),
        }
    }
}

/// Words that are written elsewhere for what we call otherwise.
const SYNONYMS: &[(&str, &str)] = &[
    ("on", "true"),
    ("yes", "true"),
    ("y", "true"),
    ("1", "true"),
    ("off", "false"),
    ("no", "false"),
    ("n", "false"),
    ("0", "false"),
    ("true", "best"),
    ("on", "best"),
    ("auto", "best"),
    ("enabled", "best"),
    ("false", DISABLED),
    ("off", DISABLED),
    ("no", DISABLED),
    ("none", DISABLED),
    ("warning", "warn"),
    ("trace", "debug"),
];

/// As YAML 1.2 has it (10.3.2, core schema).
fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Digits only: `FromStr` would take a sign as well.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Hours, minutes and seconds, each at most once and in this order, as Kubernetes writes durations.
fn time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, behind)) = rest.split_once(unit) {
            let part = whole_number(number).filter(|_| !number.is_empty())?;
            seconds = seconds.checked_add(part.checked_mul(length)?)?;
            rest = behind;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// As [`time`] reads it, in the largest unit that needs no other.
pub(super) fn write_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn optional<T>(text: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Option<String>> {
    if text == DISABLED {
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| did_you_mean(text, &[DISABLED], SYNONYMS))
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

fn directory(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let fits = path.is_absolute() && text.len() <= MAX_PATH && !text.contains('\0') && path.parent().is_some();
    let descends = path.components().all(|part| part != Component::ParentDir);
    (fits && descends).then(|| path.components().collect())
}

fn comms<'v>(value: &'v Value, most: usize, rule: &str) -> Result<Vec<String>, Vec<Broken<'v>>> {
    let whole = |hint: &str| vec![Broken { at: value, rule: format!("must be {rule}{hint}") }];
    let entries = match &value.content {
        Content::List(entries) if entries.len() <= most => entries,
        Content::List(entries) => return Err(whole(&format!("; it has {}", entries.len()))),
        Content::Nothing => return Err(whole("; `[]` is the empty list")),
        Content::Text { .. } | Content::Section(_) | Content::Refused => return Err(whole("")),
    };
    let (mut names, mut broken) = (Vec::<String>::new(), Vec::new());
    for entry in entries {
        match &entry.content {
            Content::Refused => {}
            Content::Text { text, .. } if names.contains(text) => {
                broken.push(Broken { at: entry, rule: "must be named once".to_owned() });
            }
            Content::Text { text, .. } if !text.contains('\0') && (1..=MAX_COMM).contains(&text.len()) => {
                names.push(text.clone());
            }
            Content::Text { text, .. } if text.len() > MAX_COMM => {
                let kept = &text[..text.floor_char_boundary(MAX_COMM)];
                let rule = format!("must be of at most {MAX_COMM} bytes: the kernel keeps no more, here `{kept}`");
                broken.push(Broken { at: entry, rule });
            }
            _ => broken.push(Broken { at: entry, rule: format!("must be a name of 1 to {MAX_COMM} bytes") }),
        }
    }
    if broken.is_empty() { Ok(names) } else { Err(broken) }
}

/// Whether `text` is a name that the API server gives to most objects, Nodes among them: a DNS subdomain (RFC 1123).
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let (first, last) = (part.as_bytes().first(), part.as_bytes().last());
        part.bytes().all(|byte| byte == b'-' || alphanumeric(&byte))
            && [first, last].into_iter().all(|end| end.is_some_and(alphanumeric))
    };
    text.len() <= MAX_NAME && text.split('.').all(is_part)
}

fn addresses<'v>(value: &'v Value, most: usize, rule: &str) -> Result<Vec<SocketAddr>, Vec<Broken<'v>>> {
    let whole = |hint: &str| vec![Broken { at: value, rule: format!("must be {rule}{hint}") }];
    let entries = match &value.content {
        Content::List(entries) if entries.len() <= most => entries,
        Content::List(entries) => return Err(whole(&format!("; it has {}", entries.len()))),
        Content::Nothing => return Err(whole("; `[]` is the empty list")),
        Content::Text { .. } | Content::Section(_) | Content::Refused => return Err(whole("")),
    };
    let (mut read, mut broken) = (Vec::<SocketAddr>::new(), Vec::new());
    for entry in entries {
        let Content::Text { text, .. } = &entry.content else {
            broken.push(Broken { at: entry, rule: "must be an IP address with a port; IPv6 needs quotes".to_owned() });
            continue;
        };
        match address(text) {
            Some(address) if read.contains(&address) => {
                broken.push(Broken { at: entry, rule: "must stand once".to_owned() });
            }
            Some(address) => read.push(address),
            None => {
                broken.push(Broken { at: entry, rule: "must be an IP address with a port from 1 to 65535".to_owned() });
            }
        }
    }
    if broken.is_empty() { Ok(read) } else { Err(broken) }
}

/// `text` as YAML that is read as the same text, with quotes where it needs them.
fn quoted(text: &str) -> String {
    let harmless = |character: char| character.is_ascii_alphanumeric() || "/._-:".contains(character);
    let plain = !matches!(text, "null" | "Null" | "NULL")
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && text.chars().all(harmless)
        && !text.ends_with(':');
    // JSON is YAML.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0s", 0)]
    #[case("90s", 90)]
    #[case("10m", 600)]
    #[case("1h", 3600)]
    #[case("1h30m", 5400)]
    #[case("1h30m0s", 5400)]
    fn a_time_is_numbers_with_units(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(time(text), Some(Duration::from_secs(seconds)));
    }

    #[rstest]
    fn any_other_time_is_refused(
        #[values("", "s", "5", "-5s", "+5s", "1.5h", "5 m", "5M", "30m1h", "1s1s", "1ms", "18446744073709551615h")]
        text: &str,
    ) {
        assert_eq!(time(text), None);
    }

    #[rstest]
    fn a_time_is_read_as_it_was_written(#[values(0, 1, 59, 60, 90, 3600, 5400, 86_400)] seconds: u64) {
        let value = Duration::from_secs(seconds);
        assert_eq!(time(&write_time(value)), Some(value));
    }

    #[rstest]
    #[case("/run/detector", "/run/detector")]
    #[case("/run//./detector/", "/run/detector")]
    fn a_path_is_kept_in_its_simple_form(#[case] text: &str, #[case] path: &str) {
        assert_eq!(directory(text).as_deref().and_then(Path::to_str), Some(path));
    }

    #[rstest]
    fn a_path_that_leads_elsewhere_is_refused(
        #[values("", "/", "//", "/./", "var", "./x", "/a/../b", "/a\0")] text: &str,
    ) {
        assert_eq!(directory(text), None);
    }

    #[rstest]
    fn an_address_is_one_to_listen_on(
        #[values("", ":80", "localhost:80", "0.0.0.0", "0.0.0.0:0", "::1:80")] text: &str,
    ) {
        assert_eq!(address(text), None);
    }

    #[rstest]
    #[case("detector", true)]
    #[case("a.b-c.9", true)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a..b", false)]
    #[case("A", false)]
    #[case("a_b", false)]
    fn a_name_is_one_that_the_api_server_takes(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(is_subdomain(text), taken);
    }

    #[rstest]
    #[case("kubelet", "kubelet")]
    #[case("[::]:80", "\"[::]:80\"")]
    #[case("- x", "\"- x\"")]
    #[case("a: b", "\"a: b\"")]
    #[case("~", "\"~\"")]
    #[case("null", "\"null\"")]
    fn text_is_quoted_where_yaml_needs_it(#[case] text: &str, #[case] yaml: &str) {
        assert_eq!(quoted(text), yaml);
    }
}
