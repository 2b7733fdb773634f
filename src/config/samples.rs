//! The ConfigMap `imagestreamtag-to-image` of the samples operator: which image each tag of a sample image stream is.
//!
//! ```yaml
//! kind: ConfigMap
//! data:
//!   ruby_3.3-ubi9: registry.redhat.io/ubi9/ruby-33:latest   # imagestream_tag: image
//! ```

use std::sync::Arc;

use super::diagnostic::{At, ConfigErrors, Document};
use super::node::{Kind, shorten};
use super::reader::Reader;
use super::{utf8, yaml};
use crate::hint::Hint;
use crate::reference::ImageName;

/// One tag of a sample image stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The image stream.
    pub imagestream: String,
    /// Its tag.
    pub tag: String,
    /// The image that it is imported from.
    pub image: At<ImageName>,
}

/// Reads the ConfigMap from the bytes of a file; `file` is its name in messages.
///
/// # Errors
/// Everything that is wrong with it, each with its line and column.
pub fn parse_samples(bytes: &[u8], file: &str) -> Result<Vec<Sample>, ConfigErrors> {
    let document = Arc::new(Document::new(file, utf8(bytes, file)?));
    let (root, diagnostics) = yaml::read(&document);
    let mut reader = Reader::new(&document, diagnostics, &[], false);
    let mut samples = Vec::new();
    if let Some(root) = &root {
        let entries = match &root.kind {
            Kind::Mapping(entries) => entries.as_slice(),
            _ => &[],
        };
        let value = |key: &str| {
            let mut entries = entries.iter();
            entries
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value)
        };
        let is_map = value("kind").is_some_and(
            |node| matches!(&node.kind, Kind::Scalar { text, .. } if text == "ConfigMap"),
        );
        let data = value("data").map(|node| &node.kind);
        match (is_map, data) {
            (true, Some(Kind::Mapping(data))) => {
                for entry in data {
                    let stream = entry.key.split_once('_').filter(|(stream, tag)| {
                        !stream.is_empty() && !tag.is_empty()
                    });
                    let Some((imagestream, tag)) = stream else {
                        reader.error(
                            entry.key_position,
                            format!("{:?} is no imagestream_tag", shorten(&entry.key)),
                            None,
                        );
                        continue;
                    };
                    let Kind::Scalar { text, .. } = &entry.value.kind else {
                        reader.error(
                            entry.value.position,
                            format!("{} is an image, found {}", entry.key, entry.value.found()),
                            None,
                        );
                        continue;
                    };
                    match text.parse::<ImageName>() {
                        Ok(image) => samples.push(Sample {
                            imagestream: imagestream.to_owned(),
                            tag: tag.to_owned(),
                            image: At::new(image, entry.value.position),
                        }),
                        Err(error) => {
                            reader.error(entry.value.position, error.to_string(), error.hint());
                        }
                    }
                }
            }
            _ => reader.error(
                root.position,
                "this is no ConfigMap with data",
                Some("`oc get configmap imagestreamtag-to-image -n openshift-cluster-samples-operator -o yaml` writes it".to_owned()),
            ),
        }
    }
    reader.finish(Some(samples)).map(|(samples, _)| samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_tags_are_told_apart() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: imagestreamtag-to-image\ndata:\n  ruby_3.3-ubi9: registry.redhat.io/ubi9/ruby-33:latest\n  \"no_1_2\": r.io/a/b:1\n";
        let samples = parse_samples(text.as_bytes(), "s.yaml").unwrap();
        let shown: Vec<String> = samples
            .iter()
            .map(|one| format!("{} {} {}", one.imagestream, one.tag, one.image.value))
            .collect();
        assert_eq!(
            shown,
            [
                "ruby 3.3-ubi9 registry.redhat.io/ubi9/ruby-33:latest",
                "no 1_2 r.io/a/b:1"
            ],
            "a stream has no underscore, a tag may"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, wanted) in [
            (
                "kind: Secret\ndata: {}\n",
                "s.yaml:1:1: this is no ConfigMap",
            ),
            ("kind: ConfigMap\n", "s.yaml:1:1: this is no ConfigMap"),
            (
                "kind: ConfigMap\ndata:\n  ruby: r.io/a:1\n",
                "s.yaml:3:3: \"ruby\" is no imagestream_tag",
            ),
            (
                "kind: ConfigMap\ndata:\n  ruby_1: [a]\n",
                "s.yaml:3:11: ruby_1 is an image, found a list",
            ),
            (
                "kind: ConfigMap\ndata:\n  ruby_1: ruby:1\n",
                "s.yaml:3:11: \"ruby\" names no registry",
            ),
        ] {
            let error = parse_samples(text.as_bytes(), "s.yaml").unwrap_err();
            assert!(
                error.to_string().starts_with(wanted),
                "{text:?} must say {wanted:?}: {error}"
            );
        }
    }
}
