//! What the controller tells besides its objects: events.

pub mod event;
