//! `imgbuild` builds mirrors: everything that a disconnected OpenShift or Kubernetes site needs, carried across an air
//! gap as sequenced archives, or put straight into a registry.
//!
//! ```text
//! config (ImageSetConfiguration)  --lock-->  lock (every digest pinned, reviewed in git)
//! lock --plan--> static DAG --build--> content store --export--> archive 1, 2, 3 … (only what is new)
//! archives --import--> mirror registry and cluster resources
//! ```
//!
//! ## Words
//!
//! | word | meaning |
//! |---|---|
//! | *step* | a unit of work: it observes a mutable name, fetches bytes of a known digest, or derives bytes from bytes |
//! | *recipe*, *key* | what a step does to which inputs; and its BLAKE3, which names the work |
//! | *digest* | the SHA-256 that names bytes |
//! | *blob*, *promise* | bytes, known by digest and size before they come; a write that breaks the promise cannot be made |
//! | *answer*, *pin* | what a mutable name meant when it was asked; and the digest that the lock keeps of it |
//! | *lock* | the plan with every question answered, grouped by who asked |
//! | *plan* | the graph of fetches that a lock comes to |
//! | *store* | where blobs are kept: an OCI layout on disk |
//! | *stream*, *sequence* | a line of archives for one destination family; the place of an archive in it |
//! | *base* | a lock on top of which an archive applies |
//! | *stage*, *adopt* | to bring blobs where nothing names them yet; to make a complete closure visible |
//!
//! ## Layers, lowest first
//!
//! Imports only go down; `tests/layers.rs` holds them to it.
//!
//! | module | what it is |
//! |---|---|
//! | [`digest`], [`canon`], [`reference`], [`oci`], [`hint`] | values: names of bytes and work, names of images, manifests |
//! | [`openshift`] | versions, update graph, payloads, signatures, cluster resources |
//! | [`chart`] | the images that a Helm chart needs |
//! | [`config`] | the user's files, every error with its line and column |
//! | [`store`] | places where bytes live, and the one arrow between them |
//! | [`registry`] | the client and the server of the distribution API |
//! | [`step`] | steps, rules, places |
//! | [`plan`] | the graph, and the lock: text, differences, merging, checks |
//! | [`archive`] | sequenced archives: written, read, verified, chained |
//! | [`run`] | resolving what is unanswered, realising what is not here |
//! | [`deliver`] | exports, imports, pushes, resources |
//! | [`demo`] | small self-made worlds of images |
//! | [`cli`] | the command line: the only place that prints, reads the environment or knows the clock |
//!
//! ## Why not one tool per stage
//! Each stage needs what the one before it knew: an archive is minimal because the lock says exactly what each site
//! holds, an import can refuse because the archive says exactly what it must come to.

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
