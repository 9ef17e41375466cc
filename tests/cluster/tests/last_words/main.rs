//! What needs nodes that die: a panic that a container causes, a machine that is frozen, without power, without network.
//!
//! Nodes take minutes to die and to come back: [`deaths`] has both of them die at the same time where one can, in
//! one test. [`panic`] and [`silent`] are its parts. In [`receivers`] nobody dies: kernels speak to others.

mod alone;
mod deaths;
mod install;
mod mortal;
mod panic;
mod receivers;
mod silent;
mod stage;
mod times;
mod workload;
