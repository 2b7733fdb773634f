//! The plan of a mirror, and the lock: the plan with every question answered.

pub mod check;
pub mod diff;
pub mod graph;
pub mod key;
pub mod lines;
pub mod lock;
pub mod merge;
pub mod page;
pub mod policy;
pub mod selector;
pub mod shares;
pub mod text;
pub mod why;

#[cfg(test)]
pub(crate) mod any;
