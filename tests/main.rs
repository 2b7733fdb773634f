//! The program as its users run it: two sites, real registries, real files, exit codes and words.
//!
//! One binary, a module per story; [`site`] has what they stand on.

mod bad_input;
mod bytes;
mod incremental;
mod site;
