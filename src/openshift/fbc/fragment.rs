//! What a catalog says about one package, in its canonical form.

use serde::Deserialize;

use super::read::{Documents, Head};
use super::value::Value;
use super::{
    BUNDLE, Bundle, CHANNEL, Channel, DEPRECATIONS, Deprecations, FbcError, PACKAGE, Package,
};
use crate::digest::Digest;

/// One document in its canonical form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    head: Head,
    /// Canonical JSON, without the line feed.
    text: String,
}

impl Document {
    /// Takes a document; the object must have a schema.
    pub fn new(value: &Value) -> Result<Self, String> {
        let head = Head::of_value(value)?;
        Ok(Self {
            head,
            text: value.to_json(),
        })
    }

    /// Its schema, package and name.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its canonical JSON, on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.text
    }

    /// The whole document.
    #[must_use]
    pub fn value(&self) -> Value {
        Value::from_json(self.text.as_bytes()).expect("canonical text reads back")
    }

    /// The fields that mean something here.
    fn read<'d, T: Deserialize<'d>>(&'d self) -> Result<T, FbcError> {
        serde_json::from_str(&self.text).map_err(|error| FbcError::Field {
            package: self.head.package.clone(),
            schema: self.head.schema.clone(),
            name: self.head.name.clone(),
            reason: error.to_string(),
        })
    }

    fn rank(&self) -> (usize, &str, &str, &str) {
        let known = [PACKAGE, CHANNEL, BUNDLE, DEPRECATIONS];
        let rank = known
            .iter()
            .position(|schema| *schema == self.head.schema)
            .unwrap_or(known.len());
        (rank, &self.head.schema, &self.head.name, &self.text)
    }
}

/// All documents of one package, in the canonical order; of no package where the name is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    package: String,
    documents: Vec<Document>,
}

impl Fragment {
    /// Takes the documents of `package`, in any order.
    pub fn new(package: &str, mut documents: Vec<Document>) -> Result<Self, FbcError> {
        if !package.is_empty() {
            check_name(package)?;
        }
        if let Some(document) = documents
            .iter()
            .find(|document| document.head.package != package)
        {
            return Err(FbcError::Foreign {
                package: package.to_owned(),
                schema: document.head.schema.clone(),
                name: document.head.name.clone(),
                found: document.head.package.clone(),
            });
        }
        documents.sort_by(|left, right| left.rank().cmp(&right.rank()));
        Ok(Self {
            package: package.to_owned(),
            documents,
        })
    }

    /// Reads a fragment, canonical or not, from any form that a catalog file may have.
    pub fn parse(package: &str, bytes: &[u8]) -> Result<Self, FbcError> {
        let mut documents = Vec::new();
        for raw in Documents::new(bytes, package, u64::MAX) {
            let raw = raw?;
            let value = raw.value(package)?;
            documents.push(Document::new(&value).map_err(|reason| FbcError::Document {
                place: super::Place {
                    member: package.to_owned(),
                    line: raw.line,
                },
                reason,
            })?);
        }
        Self::new(package, documents)
    }

    /// The package; empty for the documents of the whole catalog.
    #[must_use]
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The documents in their order.
    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = self
            .documents
            .iter()
            .map(|document| document.text.len() + 1)
            .sum();
        let mut bytes = Vec::with_capacity(length);
        for document in &self.documents {
            bytes.extend_from_slice(document.text.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    /// The SHA-256 of the canonical bytes: what `fbc` in a lock is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = crate::digest::Hasher::default();
        for document in &self.documents {
            hasher.update(document.text.as_bytes());
            hasher.update(b"\n");
        }
        hasher.finish()
    }

    fn all<'f, T: Deserialize<'f>>(&'f self, schema: &str) -> Result<Vec<T>, FbcError> {
        self.documents
            .iter()
            .filter(|document| document.head.schema == schema)
            .map(Document::read)
            .collect()
    }

    /// Its `olm.package` documents; there should be one.
    pub fn packages(&self) -> Result<Vec<Package>, FbcError> {
        self.all(PACKAGE)
    }

    /// Its channels, by name.
    pub fn channels(&self) -> Result<Vec<Channel>, FbcError> {
        self.all(CHANNEL)
    }

    /// Its bundles, by name.
    pub fn bundles(&self) -> Result<Vec<Bundle>, FbcError> {
        self.all(BUNDLE)
    }

    /// What of it is deprecated.
    pub fn deprecations(&self) -> Result<Vec<Deprecations>, FbcError> {
        self.all(DEPRECATIONS)
    }
}

/// Package names become folders of the catalogs that are built.
pub(super) fn check_name(name: &str) -> Result<(), FbcError> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|character| character.is_control() || "/\\".contains(character));
    if fits {
        Ok(())
    } else {
        Err(FbcError::Name {
            name: name.to_owned(),
        })
    }
}
