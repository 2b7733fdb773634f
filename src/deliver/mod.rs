//! Delivery: importing archives, putting images into a registry, and telling a cluster where they are.

pub mod audit;
pub mod delete;
pub mod emit;
pub mod export;
pub mod head;
pub mod holdings;
pub mod import;
pub mod mirror;
pub mod pass;
pub mod prove;
pub mod push;
pub mod receipt;
pub mod registry;
