//! Registries: the client that pulls and pushes, the server that answers it, and what both agree on.

pub mod auth;
pub mod client;
pub mod conf;
pub mod cosign;
pub mod policy;
pub mod retry;
pub mod route;
pub mod server;
pub mod settings;
pub mod trust;
