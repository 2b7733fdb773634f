//! What OpenShift means by its files: pure functions over bytes.
//!
//! Nothing here opens a file, asks a server or knows the time; callers hand in bytes and get values or errors.

pub mod cluster;
pub mod fbc;
pub mod graph;
pub mod install;
pub mod node;
pub mod payload;
pub mod release;
pub mod select;
pub mod signature;
pub mod tools;
pub mod trust;
pub mod version;
