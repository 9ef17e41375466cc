//! The manner in which sinks hand writes to whoever makes them: asked what is next, told how it ended.

/// What a queue of writes wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<W> {
    /// This write, now. The queue gives no other until it is told how this one ended.
    Write(W),
    /// To be asked again at this time, nanoseconds since boot.
    At(u64),
    /// Nothing, until something happens.
    Nothing,
}
