//! What one boot of one machine said: its findings and its log.

use super::{
    Findings, Line,
    excerpt::Excerpt,
    signature::{Note, Reading},
};

/// Lines of one boot.
#[derive(Debug, Default)]
pub struct Boot {
    reading: Reading,
    excerpt: Excerpt,
    boot_id: Option<String>,
}

impl Boot {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, and tells what it is.
    pub fn push(&mut self, line: &Line) -> Note {
        let note = self.reading.push(line);
        self.excerpt.push(line, note);
        if self.boot_id.is_none() {
            self.boot_id.clone_from(&line.userdata.boot_id);
        }
        note
    }

    /// What all lines by now say.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        self.reading.findings()
    }

    /// The log by now.
    #[must_use]
    pub fn excerpt(&self) -> &Excerpt {
        &self.excerpt
    }

    /// Its id, if it was told.
    #[must_use]
    pub fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }
}
