//! Every name that another program can see.

pub mod watch;
