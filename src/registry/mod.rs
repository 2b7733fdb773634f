//! Registries: the client that pulls and pushes, the server that answers it, and what both agree on.

pub mod client;
pub mod route;
pub mod server;
