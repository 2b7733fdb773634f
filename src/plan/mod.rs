//! The plan, and the lock that it is made from.

pub mod graph;
