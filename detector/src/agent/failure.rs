//! What kind of failure ended the flow: what the command line needs to choose its exit code.

/// Kinds of failure that the one who typed the command acts on differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The reader of the output has gone away, as `head` does: no fault of anybody.
    OutputClosed,
    /// This binary or this kernel cannot do it: stub object embedded, or no method works.
    Unavailable,
    /// No method works, one of them for want of a right.
    Denied,
    /// Anything else.
    Other,
}
