//! What needs a control plane and controllers on this machine: lies, deaths of the leader, deaths without words, many deaths at
//! once. Nodes exist in the API only; their kernels' last words are recordings, sent from addresses of the loopback network.
//! One file per topic. Run one after the other: a controller looks after all Nodes that there are.

mod cost;
mod forged;
mod killed;
mod many;
mod silent;
mod told;
