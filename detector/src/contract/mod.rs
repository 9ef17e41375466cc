//! Every name that another program can see.

pub mod doctor;
mod shape;
pub mod watch;
