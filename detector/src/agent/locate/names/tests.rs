//! The cache with readers that answer at once, or only when told.

use std::{cell::RefCell, io, path::Path, rc::Rc, time::Duration};

use super::{known::NAMES_CAPACITY, reader::InPlace, *};
use crate::agent::locate::{cgroups::RETENTION_NS, runtime::NameError};

const SECOND: u64 = 1_000_000_000;

const KEY: CgroupKey = CgroupKey { hierarchy: 0, id: 7 };

fn part(id: &str) -> ContainerPart<'_> {
    ContainerPart { runtime: Runtime::Docker, id, level: 2 }
}

/// A reader that a test answers for; requests in the order in which they would be read.
#[derive(Clone, Debug, Default)]
struct Told(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    /// How long each wait takes, and whether the first request is answered in it.
    wait: Duration,
    answers_while_waited_for: bool,
    waits: usize,
    refuses: bool,
}

impl Told {
    fn cache(&self) -> NameCache {
        NameCache::new(Box::new(self.clone()))
    }

    fn wanted(&self) -> Vec<String> {
        self.0.borrow().requests.iter().map(|request| request.id.to_string()).collect()
    }

    fn waits(&self) -> usize {
        self.0.borrow().waits
    }

    /// Answers the first request.
    fn answer(&self, name: &str, init_pid: Option<u32>) {
        let names = Names { container: Some(name.to_owned()), init_pid, ..Names::default() };
        self.0.borrow_mut().answer(Ok(Some(names)));
    }
}

impl State {
    fn answer(&mut self, names: Result<Option<Names>, NameError>) {
        let Request { number, id, .. } = self.requests.pop_front().expect("a request");
        self.replies.push_back(Reply { number, id, names });
    }
}

impl NameReader for Told {
    fn ask(&mut self, request: Request) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.refuses {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.requests.push_back(request);
        Ok(())
    }

    fn hurry(&mut self, id: &str) {
        let mut state = self.0.borrow_mut();
        if let Some(at) = state.requests.iter().position(|request| *request.id == *id) {
            let request = state.requests.remove(at).unwrap();
            state.requests.push_front(request);
        }
    }

    fn take(&mut self) -> Option<Reply> {
        self.0.borrow_mut().replies.pop_front()
    }

    fn wait(&mut self, patience: Duration) -> Duration {
        let mut state = self.0.borrow_mut();
        state.waits += 1;
        if state.answers_while_waited_for {
            state.answer(Ok(None));
            return state.wait;
        }
        patience
    }

    fn reading(&self) -> Option<PathBuf> {
        Some(PathBuf::from("/dead/config.json"))
    }
}

fn name(answer: &Answer) -> Option<&str> {
    answer.names.as_ref()?.container.as_deref()
}

fn write(root: &Path, id: &str, name: &str) {
    let directory = root.join("var/lib/docker/containers").join(id);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.v2.json"), format!(r#"{{"Name": "/{name}"}}"#)).unwrap();
}

#[test]
fn where_there_is_no_room_a_newcomer_is_answered_but_not_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut cache = NameCache::new(Box::new(InPlace::new(root.path())));
    for number in 0..NAMES_CAPACITY {
        cache.want(part(&format!("{number:x}")), None, KEY);
    }
    assert_eq!(cache.counters().not_queued, (NAMES_CAPACITY - WAITING_CAPACITY) as u64);
    write(root.path(), "ffffff", "late");
    assert_eq!(name(&cache.ask(part("ffffff"), None, None, 1)), Some("late"));
    assert_eq!((cache.known("ffffff"), cache.counters().evicted_early), (None, 1));
}

#[test]
fn a_container_first_asked_for_after_its_death_is_not_kept_for_ever() {
    let told = Told::default();
    let mut cache = told.cache();
    cache.ask(part("aa"), None, Some(5), 6);
    told.answer("web", None);
    cache.take_in();
    assert!(cache.known("aa").is_some());
    cache.want(part("bb"), None, KEY);
    cache.forget("bb", 6 + RETENTION_NS);
    assert!(cache.known("aa").is_none());
}

#[test]
fn while_the_reader_is_stuck_one_question_waits_and_no_other() {
    let told = Told::default();
    let mut cache = told.cache();
    for at in 0..100 {
        let answer = cache.ask(part(&format!("{at:x}")), None, None, at * SECOND);
        assert_eq!(name(&answer), None);
    }
    assert_eq!((told.waits(), cache.counters().late), (1, 100));
    assert_eq!(told.wanted().len(), 100);
    let errors = cache.take_errors();
    let [LocateError::SlowNames(slow)] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(slow.to_string().contains("within 100 ms, held up by /dead/config.json"), "{slow}");
}

#[test]
fn a_pid_that_does_not_come_is_waited_for_but_not_told_of() {
    let told = Told::default();
    let mut cache = told.cache();
    cache.want(part("aa"), None, KEY);
    cache.fetch(8);
    told.answer("web", None);
    assert_eq!(name(&cache.ask(part("aa"), None, None, SECOND)), Some("web"));
    assert_eq!((told.waits(), cache.counters().late, cache.take_errors().len()), (1, 0, 0));
    cache.ask(part("bb"), None, None, 2 * SECOND);
    assert_eq!((told.waits(), cache.counters().late, cache.take_errors().len()), (1, 1, 1));
}

#[test]
fn a_late_answer_holds_for_the_next_question() {
    let told = Told::default();
    let mut cache = told.cache();
    assert_eq!(name(&cache.ask(part("aa"), None, None, SECOND)), None);
    let generation = cache.generation();
    told.answer("web", Some(7));
    assert!(cache.take_in() && cache.generation() > generation);
    let answer = cache.ask(part("aa"), None, None, SECOND + 1);
    assert_eq!((name(&answer), answer.complete, told.waits()), (Some("web"), true, 1));
}

#[test]
fn after_a_late_answer_questions_wait_again() {
    let told = Told::default();
    let mut cache = told.cache();
    cache.ask(part("aa"), None, None, SECOND);
    told.answer("web", Some(7));
    cache.ask(part("bb"), None, None, 3 * SECOND);
    assert_eq!(told.waits(), 2);
}

#[test]
fn a_reader_that_is_slow_but_not_stuck_costs_no_more_than_one_patience_a_second() {
    let told = Told::default();
    (told.0.borrow_mut().wait, told.0.borrow_mut().answers_while_waited_for) = (ANSWER_PATIENCE / 2, true);
    let mut cache = told.cache();
    for id in ["aa", "bb", "cc", "dd"] {
        cache.ask(part(id), None, None, SECOND);
    }
    assert_eq!((told.waits(), cache.counters().late), (2, 2));
    cache.ask(part("ee"), None, None, 2 * SECOND);
    assert_eq!((told.waits(), cache.counters().late), (3, 2));
}

#[test]
fn a_question_goes_ahead_of_the_line_and_is_not_asked_twice() {
    let told = Told::default();
    let mut cache = told.cache();
    for id in ["aa", "bb", "cc"] {
        cache.want(part(id), None, KEY);
    }
    cache.fetch(8);
    cache.ask(part("cc"), None, None, SECOND);
    assert_eq!(told.wanted(), ["cc", "aa", "bb"]);
}

#[test]
fn what_was_read_for_an_earlier_life_of_a_container_does_not_count() {
    let told = Told::default();
    let mut cache = told.cache();
    cache.want(part("aa"), None, KEY);
    cache.fetch(8);
    cache.forget("aa", 1);
    cache.want(part("aa"), None, KEY);
    told.answer("web", Some(10));
    cache.fetch(8);
    assert!(cache.known("aa").is_none());
    told.answer("web", Some(11));
    cache.take_in();
    assert_eq!(cache.known("aa").unwrap().init_pid, Some(11));
}

#[test]
fn only_so_many_requests_are_before_the_reader_and_the_others_are_counted() {
    let told = Told::default();
    let mut cache = told.cache();
    for number in 0..2 * OPEN_IN_LINE {
        cache.want(part(&format!("{number:x}")), None, KEY);
    }
    assert_eq!(cache.fetch(usize::MAX), OPEN_IN_LINE);
    assert_eq!(cache.fetch(usize::MAX), OPEN_IN_LINE);
    for number in 0..OPEN_CAPACITY {
        cache.ask(part(&format!("eeee{number:x}")), None, None, SECOND);
    }
    assert_eq!(told.wanted().len(), OPEN_CAPACITY);
    assert_eq!(cache.counters().not_queued, OPEN_IN_LINE as u64);
    told.answer("web", Some(1));
    cache.take_in();
    cache.ask(part("ffff"), None, None, SECOND);
    assert_eq!(told.wanted().len(), OPEN_CAPACITY);
}

#[test]
fn without_anybody_to_read_questions_are_answered_and_it_is_told() {
    let told = Told::default();
    told.0.borrow_mut().refuses = true;
    let mut cache = told.cache();
    cache.want(part("aa"), None, KEY);
    cache.fetch(8);
    assert_eq!(name(&cache.ask(part("aa"), None, None, SECOND)), None);
    assert_eq!((told.waits(), cache.counters().not_queued), (0, 2));
    assert!(matches!(cache.take_errors().as_slice(), [LocateError::NoReader(_), LocateError::NoReader(_)]));
}
