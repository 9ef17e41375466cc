//! Whether the flow moves, and whether it has all that it needs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Within this time a living flow comes round. Its longest turn takes milliseconds; kubelet waits a second by default.
const PATIENCE: Duration = Duration::from_millis(900);

/// Questions that may wait for the flow: who asks while that many do finds it not living.
const QUESTIONS: usize = 32;

/// Asks the flow whether it lives.
#[derive(Clone, Debug)]
pub struct Pulse {
    questions: mpsc::Sender<oneshot::Sender<()>>,
}

/// The flow's side: where it is asked. At rest it waits here and nothing wakes it.
#[derive(Debug)]
pub struct Heart {
    questions: mpsc::Receiver<oneshot::Sender<()>>,
}

/// A question, answered when it is dropped: hold it until the turn is done.
#[derive(Debug)]
pub struct Asked {
    answer: Option<oneshot::Sender<()>>,
}

/// Why the flow is not known to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lifeless {
    /// It did not come round in time.
    #[error("the loop has not come round for {} ms", PATIENCE.as_millis())]
    Late,
    /// Many wait for it already.
    #[error("the loop answers nobody: {QUESTIONS} questions wait")]
    Full,
    /// It ended.
    #[error("the loop has ended")]
    Ended,
}

impl Pulse {
    /// Both sides.
    #[must_use]
    pub fn new() -> (Self, Heart) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Self { questions: sender }, Heart { questions: receiver })
    }

    /// Waits until the flow came round.
    ///
    /// # Errors
    /// If it does not in time, or ended.
    pub async fn feel(&self) -> Result<(), Lifeless> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(answer).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Lifeless::Full,
            mpsc::error::TrySendError::Closed(_) => Lifeless::Ended,
        })?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Lifeless::Ended),
            Err(_) => Err(Lifeless::Late),
        }
    }
}

impl Heart {
    /// Waits until somebody asks; for ever, if nobody can. May be dropped half way (`select!`).
    pub async fn asked(&mut self) -> Asked {
        match self.questions.recv().await {
            Some(answer) => Asked { answer: Some(answer) },
            None => std::future::pending().await,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            // Who asked may have gone.
            answer.send(()).ok();
        }
    }
}

/// What has to be there before the agent is ready. All clones are the same.
#[derive(Clone, Debug)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Ready once all of `required` were told to be there. Names are of the program: detectors, parts of the flow.
    #[must_use]
    pub fn new(required: impl IntoIterator<Item = &'static str>) -> Self {
        let missing = required.into_iter().map(|name| (name, "has not started yet".to_owned())).collect();
        Self { missing: Arc::new(Mutex::new(missing)) }
    }

    /// `name` is there.
    pub fn there(&self, name: &'static str) {
        self.lock().remove(name);
    }

    /// `name` is missing, or is missing again; why, in a sentence.
    pub fn gone(&self, name: &'static str, why: String) {
        self.lock().insert(name, why);
    }

    /// What is missing, and why.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|(name, why)| (*name, why.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        // Each change is one statement: a panic elsewhere does not make it wrong.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
