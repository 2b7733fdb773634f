//! Delivery: importing archives, putting images into a registry, and telling a cluster where they are.

pub mod attest;
pub mod audit;
pub mod bill;
pub mod charts;
pub mod delete;
pub mod dossier;
pub mod emit;
pub mod export;
pub mod head;
pub mod holdings;
pub mod import;
pub mod mirror;
pub mod prove;
pub mod push;
pub mod receipt;
pub mod rederive;
pub mod registry;
pub mod registry_fs;
pub mod staged;
pub mod takeover;
