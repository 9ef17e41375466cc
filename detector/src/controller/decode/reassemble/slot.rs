//! A record that is held: whole, or the pieces of it that arrived.

use std::time::Duration;

use super::super::{
    Header, Line,
    frame::{Fragment, Record},
    text::{self, Body},
};

/// Pieces of one record at most. A record of [`super::super::frame::MAX_RECORD_BYTES`] has about 18.
const MAX_PIECES: usize = 32;

/// What the bookkeeping of a record or piece is reckoned at, in bytes.
const BOOKKEEPING: usize = 256;

/// A record that is held.
#[derive(Debug)]
pub(super) struct Slot {
    /// When its first datagram arrived.
    pub(super) arrived: Duration,
    header: Header,
    release: Option<String>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Whole(Body),
    Pieces { total: usize, pieces: Vec<Piece> },
}

/// A piece, by its place.
#[derive(Debug)]
struct Piece {
    offset: usize,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

/// What became of a datagram for a record that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It told something new.
    New,
    /// It was there already.
    Duplicate,
    /// It contradicts what is there.
    Refused,
}

impl Slot {
    pub(super) fn new(record: &Record<'_>, arrived: Duration) -> Self {
        let content = match record.fragment {
            None => Content::Whole(text::whole(record.body)),
            Some(Fragment { total, .. }) if total == record.body.len() => Content::Whole(text::whole(record.body)),
            Some(Fragment { offset, total }) => {
                Content::Pieces { total, pieces: vec![Piece { offset, bytes: record.body.to_vec() }] }
            }
        };
        Self { arrived, header: record.header, release: record.release.map(str::to_owned), content }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    pub(super) fn uptime(&self) -> Duration {
        self.header.uptime
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }

    /// Boot that it tells, if it is whole.
    pub(super) fn boot_id(&self) -> Option<&str> {
        match &self.content {
            Content::Whole(body) => body.userdata.boot_id.as_deref(),
            Content::Pieces { .. } => None,
        }
    }

    /// Bytes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        BOOKKEEPING
            + match &self.content {
                Content::Whole(body) => {
                    let userdata = [&body.userdata.node, &body.userdata.boot_id, &body.userdata.secret];
                    body.text.len() + userdata.into_iter().flatten().map(String::len).sum::<usize>()
                }
                Content::Pieces { pieces, .. } => {
                    pieces.iter().map(|piece| piece.bytes.len() + BOOKKEEPING).sum::<usize>()
                }
            }
    }

    /// Adds what another datagram tells about the same record.
    pub(super) fn join(&mut self, other: Self) -> Added {
        match (&mut self.content, other.content) {
            (Content::Whole(_), _) => Added::Duplicate,
            (mine, whole @ Content::Whole(_)) => {
                *mine = whole;
                Added::New
            }
            (Content::Pieces { total, pieces }, Content::Pieces { total: told, pieces: others }) => {
                if *total != told {
                    return Added::Refused;
                }
                let mut added = Added::Duplicate;
                for piece in others {
                    added = insert(pieces, piece);
                }
                if pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>() == *total {
                    self.content = Content::Whole(text::whole(&joined(pieces)));
                }
                added
            }
        }
    }

    /// The line that it is: torn if pieces are missing.
    pub(super) fn line(self) -> Line {
        let body = match self.content {
            Content::Whole(body) => body,
            Content::Pieces { total, pieces } => {
                // Pieces that touch become one run: a line of userdata may go over both.
                let touching = |left: &Piece, right: &Piece| left.end() == right.offset;
                let runs: Vec<_> = pieces.chunk_by(touching).map(|run| (run[0].offset, joined(run))).collect();
                text::torn(runs.iter().map(|(offset, run)| (*offset, run.as_slice())), total)
            }
        };
        Line {
            header: Some(self.header),
            release: self.release,
            text: body.text,
            userdata: body.userdata,
            torn: body.torn,
        }
    }
}

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
}

/// Puts a piece in its place. Pieces do not overlap.
fn insert(pieces: &mut Vec<Piece>, piece: Piece) -> Added {
    let place = pieces.partition_point(|other| other.offset < piece.offset);
    if pieces.get(place).is_some_and(|other| other.offset == piece.offset && other.bytes == piece.bytes) {
        return Added::Duplicate;
    }
    let before = place.checked_sub(1).and_then(|before| pieces.get(before));
    let overlaps = before.is_some_and(|other| other.end() > piece.offset)
        || pieces.get(place).is_some_and(|other| piece.end() > other.offset);
    if overlaps || pieces.len() >= MAX_PIECES {
        return Added::Refused;
    }
    pieces.insert(place, piece);
    Added::New
}
