//! imgbuild

pub mod archive;
pub mod canon;
pub mod chart;
pub mod cli;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod digest;
pub mod hint;
pub mod oci;
pub mod openshift;
pub mod plan;
pub mod reference;
pub mod registry;
pub mod run;
pub mod step;
pub mod store;
