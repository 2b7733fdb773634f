//! Delivery: importing archives, putting images into a registry, and telling a cluster where they are.

pub mod delete;
pub mod emit;
pub mod export;
pub mod holdings;
pub mod import;
pub mod mirror;
pub mod prove;
pub mod push;
pub mod registry;
