//! Delivery: importing archives, putting images into a registry, and telling a cluster where they are.

pub mod audit;
pub mod emit;
pub mod export;
pub mod import;
pub mod push;
pub mod registry;
