//! What the user asks for: the image set configuration and `imgbuild.toml`.
//!
//! [`parse`] reads an `ImageSetConfiguration` (`v2alpha1` or `v1alpha2`) or a `DeleteImageSetConfiguration` as
//! oc-mirror users write them. Everything wrong is reported at once, each error with its line, its column and
//! the text in question; what is accepted but has no task here becomes a note. `apiVersion` decides the schema,
//! exactly:
//!
//! * `v2alpha1`: an image without registry, or without tag and digest, is an error;
//! * `v1alpha2`: `docker.io`, `library` and `latest` are filled in, with a note.
//!
//! Keys are spelled exactly; one that differs only by case is taken with a note, since the older tools took it
//! silently. Versions stay the text that was written. Nothing here opens a file.

mod decode;
mod diagnostic;
mod imageset;
mod mapping;
mod node;
mod reader;
mod rows;
mod samples;
mod schema;
mod settings;
mod size;
mod starter;
mod yaml;

use std::sync::Arc;

pub use diagnostic::{At, ConfigErrors, Diagnostic, Position, Severity};
pub use imageset::{
    AdditionalImage, ApiVersion, Architecture, Chart, Config, DeleteImageSet, Helm, HelmRepository,
    ImageSet, LocalChart, Mirror, Operator, OperatorChannel, Package, Pattern, Platform,
    PlatformType, ReleaseChannel, StorageConfig,
};
pub use mapping::parse_mapping;
pub use rows::{LISTS, Row, Section};
pub use samples::{Sample, parse_samples};
pub use settings::{
    CatalogSettings, ChartSettings, Destination, RegistryLimits, SampleSettings, Settings,
    SignaturePolicy, SignatureSettings, SourcePolicy, Stream,
};
pub use size::{SizeError, parse_size};
pub use starter::{delete_starter, settings_starter, starter};

use diagnostic::Document;
use reader::Reader;

/// Reads a config; `file` is its name in messages.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let document = Arc::new(Document::new(file, text));
    let (root, diagnostics) = yaml::read(&document);
    let mut reader = Reader::new(&document, diagnostics, schema::SCHEMAS, false);
    let config = match &root {
        Some(root) => decode::read(&mut reader, root, &document),
        None => None,
    };
    let (mut config, notes) = reader.finish(config)?;
    match &mut config {
        Config::ImageSet(set) => set.notes = notes,
        Config::Delete(set) => set.notes = notes,
    }
    Ok(config)
}

/// Reads a config from the bytes of a file.
///
/// # Errors
/// As [`parse`], and if the bytes are not UTF-8.
pub fn parse_bytes(bytes: &[u8], file: &str) -> Result<Config, ConfigErrors> {
    parse(utf8(bytes, file)?, file)
}

/// The text of a file, or where it stops being one.
fn utf8<'b>(bytes: &'b [u8], file: &str) -> Result<&'b str, ConfigErrors> {
    std::str::from_utf8(bytes).map_err(|error| {
        let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let document = Document::new(file, &format!("{readable}\u{fffd}"));
        let end = document.text().len();
        let position = document.position(&(end - '\u{fffd}'.len_utf8()..end));
        let hint = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this is UTF-16: save the file as UTF-8",
            [0x1f, 0x8b, ..] => "this is gzip: give the file inside",
            _ => "save the file as UTF-8",
        };
        document
            .diagnostic(
                Severity::Error,
                position,
                "not UTF-8 text",
                Some(hint.to_owned()),
            )
            .into()
    })
}

#[cfg(test)]
mod tests;
