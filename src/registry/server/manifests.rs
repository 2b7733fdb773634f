//! Manifests: served as they were pushed, taken when what they need is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{Method, StatusCode};
use serde_json::json;

use super::answer::Registry;
use super::message::{
    Answer, Asked, CONTENT_DIGEST, Problem, SUBJECT, block, digest_invalid, interrupted,
    parse_digest,
};
use super::repositories::Held;
use super::upload::{self, Intake};
use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::reference::Tag;
use crate::store::{self, Blob, TransferError};

impl Registry {
    fn find_manifest(&self, repository: &str, reference: &str) -> Option<Held> {
        let digest = if reference.contains(':') {
            reference.parse().ok()?
        } else {
            self.repositories.tag(repository, reference)?
        };
        self.repositories.manifest(repository, &digest)
    }

    pub(super) async fn manifest(
        &self,
        asked: &Asked,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let unknown = || {
            Problem::absent("MANIFEST_UNKNOWN", "manifest unknown to repository")
                .detail(json!({ "name": repository, "reference": reference }))
        };
        let held = self
            .find_manifest(repository, reference)
            .ok_or_else(unknown)?;
        let digest = held.descriptor.digest.to_string();
        let answer = |status| {
            Answer::new(status)
                .header(CONTENT_DIGEST, &digest)
                .header(ETAG, &format!("\"{digest}\""))
        };
        let blob = held.blob();
        let depot = Arc::clone(&self.depot);
        if asked.method == Method::HEAD {
            let is_there = block(move || depot.holds(&blob)).await?;
            if !is_there.map_err(|error| Problem::io(&error))? {
                return Err(unknown());
            }
        }
        if is_known(asked, &digest) {
            return Ok(answer(StatusCode::NOT_MODIFIED).bodyless());
        }
        let answer =
            answer(StatusCode::OK).header(CONTENT_TYPE, held.descriptor.media_type.as_str());
        if asked.method == Method::HEAD {
            return Ok(answer.body(Body::empty(), blob.size));
        }
        let depot = Arc::clone(&self.depot);
        match block(move || store::read(&*depot, &blob, MANIFEST_LIMIT)).await? {
            Ok(bytes) => Ok(answer.body(Body::from(bytes), blob.size)),
            Err(TransferError::Absent { .. }) => Err(unknown()),
            Err(error) => Err(Problem::inside(&error)),
        }
    }

    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let too_large = || {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "SIZE_INVALID",
                format!("a manifest may have {MANIFEST_LIMIT} bytes"),
            )
        };
        if asked
            .content_length()
            .is_some_and(|length| length > MANIFEST_LIMIT)
        {
            return Err(too_large());
        }
        let target = if reference.contains(':') {
            Target::Digest(parse_digest(reference)?)
        } else {
            Target::Tag(reference.parse().map_err(|_| {
                Problem::bad("TAG_INVALID", "invalid tag").detail(json!({ "tag": reference }))
            })?)
        };
        let bytes = match intake.whole(MANIFEST_LIMIT).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(too_large()),
            Err(upload::Broken) => return Err(interrupted()),
        };
        let media_type = asked
            .header(&CONTENT_TYPE)
            .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        let registry = Arc::clone(self);
        let repository = repository.to_owned();
        block(move || registry.take_manifest(&repository, &target, &bytes, media_type.as_deref()))
            .await?
    }

    /// Stores a manifest that came whole. Blocks.
    fn take_manifest(
        &self,
        repository: &str,
        target: &Target,
        bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<Response, Problem> {
        let blob = Blob::of(bytes);
        if let Target::Digest(digest) = target
            && *digest != blob.digest
        {
            return Err(digest_invalid(digest, &blob.digest));
        }
        let manifest = Manifest::parse(bytes, media_type).map_err(|error| {
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Problem::bad("MANIFEST_INVALID", message)
        })?;
        self.check_parts(repository, &manifest)?;
        upload::shelve(&*self.depot, &blob, Box::new(bytes))
            .map_err(|error| Problem::io(&error))?;
        self.repositories
            .hold(repository, &manifest, blob, media_type)?;
        if let Target::Tag(tag) = target {
            self.repositories.link_tag(repository, tag, &blob.digest)?;
        }
        let digest = blob.digest.to_string();
        let mut answer = Answer::new(StatusCode::CREATED)
            .header(LOCATION, &format!("/v2/{repository}/manifests/{digest}"))
            .header(CONTENT_DIGEST, &digest);
        // Who does not keep the list does not say that it does.
        if let Some(subject) = manifest.subject().filter(|_| self.options.referrers) {
            answer = answer.header(SUBJECT, &subject.digest.to_string());
        }
        Ok(answer.empty())
    }

    /// Whether what the manifest needs is in the repository. Blocks.
    fn check_parts(&self, repository: &str, manifest: &Manifest) -> Result<(), Problem> {
        let has = |blob: Option<Blob>| -> Result<bool, Problem> {
            match blob {
                Some(blob) => self.depot.holds(&blob).map_err(|error| Problem::io(&error)),
                None => Ok(false),
            }
        };
        let mut missing = BTreeSet::new();
        match manifest {
            Manifest::Image(image) => {
                for part in image.blobs().filter(|part| !part.is_foreign()) {
                    if !has(self.repositories.blob(repository, &part.digest))? {
                        missing.insert(part.digest);
                    }
                }
            }
            Manifest::Index(index) if !self.options.sparse_indexes => {
                for child in &index.manifests {
                    let held = self.repositories.manifest(repository, &child.digest);
                    let blob = held
                        .map(|held| held.blob())
                        .or_else(|| self.repositories.blob(repository, &child.digest));
                    if !has(blob)? {
                        missing.insert(child.digest);
                    }
                }
            }
            Manifest::Index(_) => {}
        }
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let digests: Vec<String> = missing.iter().map(ToString::to_string).collect();
        Err(Problem::bad(
            "MANIFEST_BLOB_UNKNOWN",
            format!(
                "the manifest names {first}, which is not in the repository ({} missing)",
                missing.len()
            ),
        )
        .detail(json!({ "digests": digests })))
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let repositories = Arc::clone(&self.repositories);
        let (name, text) = (repository.to_owned(), reference.to_owned());
        let digest = reference
            .contains(':')
            .then(|| parse_digest(reference))
            .transpose()?;
        let gone = block(move || match digest {
            Some(digest) => repositories.unlink_manifest(&name, &digest),
            None => repositories.unlink_tag(&name, &text),
        })
        .await??;
        if gone {
            Ok(Answer::new(StatusCode::ACCEPTED).empty())
        } else {
            Err(
                Problem::absent("MANIFEST_UNKNOWN", "manifest unknown to repository")
                    .detail(json!({ "name": repository, "reference": reference })),
            )
        }
    }
}

/// Where a manifest is pushed to.
enum Target {
    Tag(Tag),
    Digest(Digest),
}

/// Whether the client says that it has these bytes already.
pub(super) fn is_known(asked: &Asked, digest: &str) -> bool {
    asked.header(&IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|tag| {
            let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
            tag == digest || tag == "*"
        })
    })
}
