//! Which method each detector uses: the best that works at the start, another one when it falls silent.
//!
//! ```text
//!            attached                 broken or silent
//! (start) ───────────▶ best that works ───────────────▶ next that works ──▶ … ──▶ the ones passed over, best first
//!    │ none works                                                                    │ none works
//!    └──────────────▶ blind ◀────────────────────────────────────────────────────────┘
//! ```
//!
//! A detector with a forced method has a ladder of this one rung: if it breaks it is attached anew. Any other climbs up
//! again some time after it fell, to what works by then.

use crate::agent::{
    options::{Choice, Chosen, Detector, Method},
    sink::Status,
};

/// Why a method does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// In a sentence.
    pub(super) reason: String,
    /// For want of a right, or of anything that this process may do.
    pub(super) denied: bool,
}

/// What can attach a method and take it away: the kernel, or a test's idea of it.
pub(super) trait Rungs {
    /// Attaches `method` of `detector`. Returns what else was refused, which the method can do without.
    ///
    /// # Errors
    /// If it does not work; then nothing of it is attached.
    fn attach(&mut self, detector: Detector, method: Method) -> Result<Vec<(Method, String)>, Refused>;

    /// Takes away what [`Rungs::attach`] attached.
    fn detach(&mut self, detector: Detector, method: Method);
}

/// The ladder of one detector.
#[derive(Debug)]
pub(super) struct Ladder {
    detector: Detector,
    choice: Choice,
    /// Whether methods were tried by now.
    tried: bool,
    method: Option<Method>,
    /// The method that it had at the start: what was refused then is not tried again.
    top: Option<Method>,
    /// Refusals of the last ascent.
    refused: Vec<(Method, String)>,
    /// One of them was for want of a right.
    denied: bool,
}

impl Ladder {
    /// The ladders of all detectors that are on, nothing attached yet.
    pub(super) fn all(chosen: &Chosen) -> Vec<Self> {
        let on = Detector::ALL.into_iter().filter(|detector| chosen.of(*detector) != Choice::Off);
        on.map(|detector| Self::new(detector, chosen.of(detector))).collect()
    }

    fn new(detector: Detector, choice: Choice) -> Self {
        Self { detector, choice, tried: false, method: None, top: None, refused: Vec::new(), denied: false }
    }

    /// Whose ladder it is.
    pub(super) fn detector(&self) -> Detector {
        self.detector
    }

    /// Method in use.
    pub(super) fn method(&self) -> Option<Method> {
        self.method
    }

    /// Whether no method was tried yet.
    pub(super) fn waits(&self) -> bool {
        !self.tried
    }

    /// Whether the program must not run without this detector.
    pub(super) fn is_required(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Forced(_))
    }

    /// Whether a method was refused for want of a right.
    pub(super) fn is_denied(&self) -> bool {
        self.denied
    }

    /// Whether it fell from where it was at the start, so that better methods may be tried.
    pub(super) fn may_climb(&self) -> bool {
        let place = |method: Method| self.detector.methods().iter().position(|other| *other == method);
        let fell = |method| place(method) > self.top.and_then(place);
        !self.is_forced() && self.method.is_some_and(fell)
    }

    /// Whether its method was forced.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self.choice, Choice::Forced(_))
    }

    /// How the detector runs, with what was refused on the way.
    pub(super) fn status(&self) -> Status {
        Status { detector: self.detector, method: self.method, refused: self.refused.clone() }
    }

    /// Attaches the best method that works.
    pub(super) fn start(&mut self, rungs: &mut impl Rungs) {
        let rungs_in_order = match self.choice {
            Choice::Forced(method) => vec![method],
            Choice::Off => Vec::new(),
            Choice::Best | Choice::Required => self.detector.methods().to_vec(),
        };
        self.take_first(&rungs_in_order, rungs);
        self.tried = true;
        self.top = self.method;
    }

    /// Replaces the method in use, which is broken or silent. Returns it, if there was one.
    pub(super) fn replace(&mut self, rungs: &mut impl Rungs) -> Option<Method> {
        let before = self.method.take()?;
        rungs.detach(self.detector, before);
        let order = match self.choice {
            Choice::Forced(method) => vec![method],
            _ => successors(self.detector.methods(), before),
        };
        self.take_first(&order, rungs);
        Some(before)
    }

    /// Takes the best method that works by now in place of the one in use. Returns the latter, if there is a better one.
    /// Methods share programs, so that the old one goes first; what falls into that moment the log tells.
    pub(super) fn climb(&mut self, rungs: &mut impl Rungs) -> Option<Method> {
        let before = self.method.filter(|_| self.may_climb())?;
        let better: Vec<Method> = between(self.detector.methods(), self.top, before);
        rungs.detach(self.detector, before);
        self.method = None;
        self.take_first(&[better.as_slice(), &[before]].concat(), rungs);
        (self.method != Some(before)).then_some(before)
    }

    fn take_first(&mut self, order: &[Method], rungs: &mut impl Rungs) {
        self.refused.clear();
        self.denied = false;
        for &method in order {
            match rungs.attach(self.detector, method) {
                Ok(parts) => {
                    self.refused.extend(parts);
                    self.method = Some(method);
                    return;
                }
                Err(Refused { reason, denied }) => {
                    self.refused.push((method, reason));
                    self.denied |= denied;
                }
            }
        }
    }
}

/// The methods from `top` down to `before`, without it.
fn between(methods: &[Method], top: Option<Method>, before: Method) -> Vec<Method> {
    let from_top = methods.iter().copied().skip_while(|method| top.is_some_and(|top| *method != top));
    from_top.take_while(|method| *method != before).collect()
}

/// The methods to try after `broken`: those below it, then those above it, best first; itself last of all, because what
/// was taken away from outside may hold when attached anew.
fn successors(methods: &[Method], broken: Method) -> Vec<Method> {
    let at = methods.iter().position(|method| *method == broken).unwrap_or(0);
    let below = methods.iter().skip(at + 1);
    below.chain(methods.iter().take(at)).chain([&broken]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel in which some methods work; says what is attached.
    struct Kernel {
        works: Vec<Method>,
        attached: Vec<(Detector, Method)>,
    }

    impl Kernel {
        fn with(works: &[Method]) -> Self {
            Self { works: works.to_vec(), attached: Vec::new() }
        }
    }

    impl Rungs for Kernel {
        fn attach(&mut self, detector: Detector, method: Method) -> Result<Vec<(Method, String)>, Refused> {
            if !self.works.contains(&method) {
                return Err(Refused { reason: format!("no {method}"), denied: method == Method::Kprobe });
            }
            self.attached.push((detector, method));
            Ok(Vec::new())
        }

        fn detach(&mut self, detector: Detector, method: Method) {
            self.attached.retain(|entry| *entry != (detector, method));
        }
    }

    fn refused(ladder: &Ladder) -> Vec<Method> {
        ladder.status().refused.iter().map(|(method, _)| *method).collect()
    }

    #[test]
    fn the_best_method_that_works_is_taken_and_the_better_ones_have_a_reason() {
        let mut kernel = Kernel::with(&[Method::RawTracepoint, Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::Oom, Choice::Best);
        ladder.start(&mut kernel);
        assert_eq!(ladder.method(), Some(Method::RawTracepoint));
        assert_eq!(refused(&ladder), [Method::Fentry, Method::Kprobe]);
        assert_eq!(kernel.attached, [(Detector::Oom, Method::RawTracepoint)]);
    }

    #[test]
    fn a_ladder_waits_until_its_methods_were_tried_whether_one_works_or_none() {
        for works in [&[Method::Kprobe][..], &[]] {
            let mut ladder = Ladder::new(Detector::Panic, Choice::Best);
            assert!(ladder.waits());
            ladder.start(&mut Kernel::with(works));
            assert!(!ladder.waits());
            assert_eq!(ladder.method().is_some(), !works.is_empty());
        }
    }

    #[test]
    fn a_broken_method_is_taken_away_and_the_next_takes_its_place() {
        let mut kernel = Kernel::with(&[Method::Fentry, Method::RawTracepoint, Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::Oom, Choice::Best);
        ladder.start(&mut kernel);
        assert_eq!(ladder.replace(&mut kernel), Some(Method::Fentry));
        assert_eq!(ladder.method(), Some(Method::RawTracepoint));
        assert_eq!(refused(&ladder), [Method::Kprobe]);
        assert_eq!(kernel.attached, [(Detector::Oom, Method::RawTracepoint)]);
    }

    #[test]
    fn below_the_last_rung_the_best_are_tried_again() {
        let mut kernel = Kernel::with(&[Method::RawTracepoint, Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::HungTask, Choice::Best);
        ladder.start(&mut kernel);
        ladder.replace(&mut kernel);
        assert_eq!(ladder.method(), Some(Method::Kmsg));
        ladder.replace(&mut kernel);
        assert_eq!(ladder.method(), Some(Method::RawTracepoint));
    }

    #[test]
    fn a_detector_without_any_method_is_blind_and_knows_why() {
        let mut kernel = Kernel::with(&[Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::HungTask, Choice::Best);
        ladder.start(&mut kernel);
        kernel.works.clear();
        assert_eq!(ladder.replace(&mut kernel), Some(Method::Kmsg));
        assert_eq!(ladder.method(), None);
        assert_eq!(refused(&ladder).len(), Detector::HungTask.methods().len());
        assert_eq!(ladder.replace(&mut kernel), None);
    }

    #[test]
    fn a_forced_method_is_attached_anew_and_never_replaced() {
        let mut kernel = Kernel::with(&[Method::Fentry, Method::Kprobe]);
        let mut ladder = Ladder::new(Detector::Oom, Choice::Forced(Method::Kprobe));
        ladder.start(&mut kernel);
        assert!(ladder.is_required());
        assert_eq!(ladder.replace(&mut kernel), Some(Method::Kprobe));
        assert_eq!(ladder.method(), Some(Method::Kprobe));
        kernel.works.clear();
        ladder.replace(&mut kernel);
        assert_eq!(ladder.method(), None);
    }

    #[test]
    fn what_works_again_is_climbed_to_and_what_does_not_changes_nothing() {
        let mut kernel = Kernel::with(&[Method::Fentry, Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::Oom, Choice::Best);
        ladder.start(&mut kernel);
        assert!(!ladder.may_climb());
        kernel.works = vec![Method::Kmsg];
        ladder.replace(&mut kernel);
        assert!(ladder.may_climb());
        assert_eq!(ladder.climb(&mut kernel), None);
        assert_eq!((ladder.method(), kernel.attached.len()), (Some(Method::Kmsg), 1));
        kernel.works = vec![Method::RawTracepoint, Method::Kmsg];
        assert_eq!(ladder.climb(&mut kernel), Some(Method::Kmsg));
        assert_eq!(kernel.attached, [(Detector::Oom, Method::RawTracepoint)]);
    }

    #[test]
    fn what_was_refused_at_the_start_is_not_climbed_to() {
        let mut kernel = Kernel::with(&[Method::RawTracepoint, Method::Kmsg]);
        let mut ladder = Ladder::new(Detector::Oom, Choice::Best);
        ladder.start(&mut kernel);
        assert!(!ladder.may_climb());
        ladder.replace(&mut kernel);
        assert_eq!((ladder.method(), ladder.may_climb()), (Some(Method::Kmsg), true));
        kernel.works = vec![Method::Fentry, Method::RawTracepoint, Method::Kmsg];
        assert_eq!(ladder.climb(&mut kernel), Some(Method::Kmsg));
        assert_eq!((ladder.method(), ladder.may_climb()), (Some(Method::RawTracepoint), false));
    }

    #[test]
    fn a_refusal_for_want_of_a_right_is_remembered() {
        let mut ladder = Ladder::new(Detector::Oom, Choice::Forced(Method::Kprobe));
        ladder.start(&mut Kernel::with(&[]));
        assert!(ladder.is_denied());
        let mut other = Ladder::new(Detector::Oom, Choice::Forced(Method::Fentry));
        other.start(&mut Kernel::with(&[]));
        assert!(!other.is_denied());
    }

    #[test]
    fn what_was_left_out_has_no_ladder() {
        let chosen = Chosen { oom: Choice::Off, hung_task: Choice::Required, panic: Choice::Off };
        let ladders = Ladder::all(&chosen);
        assert_eq!(ladders.iter().map(Ladder::detector).collect::<Vec<_>>(), [Detector::HungTask]);
    }
}
