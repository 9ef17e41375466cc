//! Every name that another program can see.

mod shape;
pub mod watch;
