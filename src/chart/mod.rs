//! Finds every image a Helm chart needs, by rendering the chart.
//!
//! ```text
//! archive, directory --load--> Chart --render--> Rendered --images--> Found
//! ```
//!
//! [`Chart`] is a chart in memory, [`render()`] runs its templates with an evaluator of Go's `text/template` of its
//! own (`template`) and the functions Helm offers (`functions`), and [`find_images`] reads images out of the
//! documents. Nothing here asks a network or a cluster, the clock or chance: the same chart, values and
//! capabilities give the same images on every machine and every day. A chart is not trusted: what it may take in
//! steps, memory and depth is bounded by [`Limits`], and a template that fails is a line in the report, with what
//! a scan of the values found in its place.
//!
//! ## Why not the `helm` binary
//!
//! It would be one more thing to carry across the air gap, its version would decide which images are found, and it
//! stops at the first template that fails. Template crates for Rust render none of the charts people use: they
//! lack `include`, `tpl`, `lookup` and maps that `set` changes in place.

pub mod artifact;
mod functions;
#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
mod glob;
pub mod images;
pub mod index;
mod jsonpath;
pub mod load;
pub mod overrides;
pub mod pack;
pub mod render;
pub mod semver;
pub mod survey;
mod template;
mod value;
pub mod yaml;

pub use images::{Found, FoundImage, How, Verdict, find_images};
pub use index::Index;
pub use load::{Chart, ChartError, Dependency, LoadLimits, Lock, Metadata};
pub use overrides::{Overrides, overrides};
pub use pack::pack;
pub use render::{
    Capabilities, Document, Failure, Limits, RenderError, RenderOptions, Rendered, ValuesLayer,
    render,
};
pub use survey::{Survey, SurveyError, Wish, survey};
