//! Blobs, whole and in part.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LOCATION, RANGE,
};
use http::{Method, StatusCode};
use serde_json::json;

use super::answer::Registry;
use super::manifests::is_known;
use super::message::{Answer, Asked, CONTENT_DIGEST, Problem, block, parse_digest};
use super::outgoing::read_out;
use super::range::{self, Wanted};
use crate::digest::Digest;

impl Registry {
    pub(super) async fn blob(
        &self,
        asked: &Asked,
        repository: &str,
        digest: &str,
    ) -> Result<Response, Problem> {
        let digest = parse_digest(digest)?;
        let unknown = || blob_unknown(&digest);
        let blob = self
            .repositories
            .blob(repository, &digest)
            .ok_or_else(unknown)?;
        if let Some(base) = self.options.redirect.as_deref()
            && asked.method == Method::GET
        {
            let location = format!("{}{}", base.trim_end_matches('/'), asked.path);
            return Ok(Answer::new(StatusCode::TEMPORARY_REDIRECT)
                .header(LOCATION, &location)
                .empty());
        }
        let text = digest.to_string();
        let answer = |status| {
            Answer::new(status)
                .header(CONTENT_DIGEST, &text)
                .header(ETAG, &format!("\"{text}\""))
                .header(CACHE_CONTROL, "max-age=31536000")
                .header(ACCEPT_RANGES, "bytes")
        };
        if asked.method == Method::HEAD {
            let depot = Arc::clone(&self.depot);
            let is_there = block(move || depot.holds(&blob)).await?;
            if !is_there.map_err(|error| Problem::io(&error))? {
                return Err(unknown());
            }
        }
        if is_known(asked, &text) {
            return Ok(answer(StatusCode::NOT_MODIFIED).bodyless());
        }
        let octets = "application/octet-stream";
        if asked.method == Method::HEAD {
            return Ok(answer(StatusCode::OK)
                .header(CONTENT_TYPE, octets)
                .body(Body::empty(), blob.size));
        }
        let fresh = asked
            .header(&IF_RANGE)
            .is_none_or(|tag| tag.trim().trim_matches('"') == text);
        let wanted = match asked.header(&RANGE) {
            Some(header) if fresh => range::wanted(header, blob.size),
            _ => Wanted::Whole,
        };
        let (answer, first, length) = match wanted {
            Wanted::Whole => (answer(StatusCode::OK), 0, blob.size),
            Wanted::Part { first, end } => {
                let range = format!("bytes {first}-{}/{}", end - 1, blob.size);
                let answer = answer(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, &range);
                (answer, first, end - first)
            }
            Wanted::Unsatisfiable => {
                return Err(Problem::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "RANGE_INVALID",
                    "the blob has no such bytes",
                )
                .header(CONTENT_RANGE, format!("bytes */{}", blob.size)));
            }
        };
        match read_out(Arc::clone(&self.depot), blob, first, length).await {
            Ok(Some(body)) => Ok(answer.header(CONTENT_TYPE, octets).body(body, length)),
            Ok(None) => Err(unknown()),
            Err(error) => Err(Problem::io(&error)),
        }
    }

    pub(super) async fn delete_blob(
        &self,
        repository: &str,
        digest: &str,
    ) -> Result<Response, Problem> {
        let digest = parse_digest(digest)?;
        let repositories = Arc::clone(&self.repositories);
        let name = repository.to_owned();
        if block(move || repositories.unlink_blob(&name, &digest)).await?? {
            Ok(Answer::new(StatusCode::ACCEPTED).empty())
        } else {
            Err(blob_unknown(&digest))
        }
    }
}

fn blob_unknown(digest: &Digest) -> Problem {
    Problem::absent("BLOB_UNKNOWN", "blob unknown to repository")
        .detail(json!({ "digest": digest.to_string() }))
}
