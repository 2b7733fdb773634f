//! What OpenShift knows: cluster resources, releases, catalogs. Pure functions over bytes.

pub mod cluster;
