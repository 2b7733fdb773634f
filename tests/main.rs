//! The program as its users run it: two sites, real registries, real files, exit codes and words.
//!
//! One binary, a module per story; [`site`] has what they stand on.

mod air_gap;
mod bad_day;
mod bad_input;
mod bytes;
mod charts;
mod delivery;
mod demo;
mod destinations;
mod incremental;
mod killed;
mod once;
mod openshift_graph;
mod openshift_payload;
mod openshift_signature;
mod review;
mod site;
