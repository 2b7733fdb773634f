//! The `index.json` of an image layout: one descriptor per image, named by where it came from.
//!
//! The annotation `org.opencontainers.image.ref.name` is what `skopeo`, `crane` and `oras` select by; here it is
//! `registry/repository:tag`, or `registry/repository@digest` for an image without a tag. Archives write theirs by
//! the same [`print()`]. One descriptor per line, so that `grep` finds an image and `diff` a change.
//!
//! Follows the OCI image specification 1.1: `image-layout.md`, `image-index.md`.

use serde::Deserialize;

use super::StoreError;
use super::disk::Store;
use crate::oci::{Descriptor, OCI_INDEX, REF_NAME};

/// The bytes of an `index.json` with these descriptors, which are sorted (by name, then digest) and each written once.
#[must_use]
pub fn print(descriptors: &[Descriptor]) -> String {
    let mut lines: Vec<(Option<&String>, &Descriptor, String)> = descriptors
        .iter()
        .map(|descriptor| {
            let line = serde_json::to_string(descriptor).expect("a descriptor has only text keys");
            (descriptor.annotations.get(REF_NAME), descriptor, line)
        })
        .collect();
    lines.sort_by(
        |(name, descriptor, line), (other_name, other, other_line)| {
            (name, descriptor.digest, line).cmp(&(other_name, other.digest, other_line))
        },
    );
    lines.dedup_by(|(_, _, a), (_, _, b)| a == b);
    let lines: Vec<String> = lines.into_iter().map(|(_, _, line)| line).collect();
    let open = if lines.is_empty() { "" } else { "\n" };
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{open}{}{open}]}}\n",
        lines.join(",\n")
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    schema_version: u64,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads the bytes of an `index.json`, of any size and by any tool.
///
/// # Errors
/// If they are not one; the text says why.
pub fn parse(bytes: &[u8]) -> Result<Vec<Descriptor>, String> {
    let layout: Layout = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if layout.schema_version != 2 {
        return Err(format!(
            "expected schemaVersion 2, found {}",
            layout.schema_version
        ));
    }
    Ok(layout.manifests.unwrap_or_default())
}

impl Store {
    /// What `index.json` names; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read or is malformed.
    pub fn index(&self) -> Result<Vec<Descriptor>, StoreError> {
        let path = self.path().join("index.json");
        let Some(bytes) = Self::read_file(&path)? else {
            return Ok(Vec::new());
        };
        parse(&bytes).map_err(|problem| StoreError::Malformed { path, problem })
    }

    /// Makes `index.json` name exactly `descriptors`, atomically; one that does so already is left alone.
    ///
    /// # Errors
    /// If the store is read only or the file system refuses.
    pub fn write_index(&self, descriptors: &[Descriptor]) -> Result<(), StoreError> {
        self.replace(
            &self.path().join("index.json"),
            print(descriptors).as_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::disk::Access;
    use std::collections::BTreeMap;

    fn image(name: &str, content: &[u8]) -> Descriptor {
        Descriptor {
            media_type: crate::oci::OCI_MANIFEST.to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]),
        }
    }

    #[test]
    fn the_order_of_images_does_not_show() {
        let (a, b) = (image("a.example/a:v1", b"a"), image("b.example/b:v1", b"b"));
        let text = print(&[b.clone(), a.clone(), b.clone()]);
        assert_eq!(
            text,
            print(&[a.clone(), b.clone()]),
            "order and repetition must not show"
        );
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            [a, b],
            "parse must undo print"
        );
        assert_eq!(
            parse(print(&[]).as_bytes()).unwrap(),
            [],
            "an empty index is one"
        );
    }

    #[test]
    fn an_unchanged_index_is_not_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let inode = || {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(folder.path().join("index.json"))
                .unwrap()
                .ino()
        };
        store.write_index(&[image("a.example/a:v1", b"a")]).unwrap();
        let before = inode();
        store.write_index(&[image("a.example/a:v1", b"a")]).unwrap();
        assert_eq!(inode(), before, "the same images must not touch the file");
        store.write_index(&[]).unwrap();
        assert_ne!(inode(), before, "other images must replace it");
    }

    #[test]
    fn an_index_of_another_shape_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        for bytes in ["", "{}", "[]", r#"{"schemaVersion":1,"manifests":[]}"#] {
            std::fs::write(folder.path().join("index.json"), bytes).unwrap();
            let error = store.index().unwrap_err();
            assert!(
                error.to_string().contains("index.json"),
                "{error} must name the file"
            );
        }
        std::fs::write(
            folder.path().join("index.json"),
            r#"{"schemaVersion":2,"manifests":null}"#,
        )
        .unwrap();
        assert_eq!(
            store.index().unwrap(),
            [],
            "Go writes an empty list as null"
        );
    }
}
