//! Names, tags and referrers, in pages.

use axum::response::Response;
use http::header::LINK;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use url::form_urlencoded;

use super::answer::Registry;
use super::message::{Asked, FILTERS, Problem, json_response, parse_digest};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_LIMIT, OCI_INDEX};

impl Registry {
    /// Cuts `all` to the page that was asked for; the second is the `Link` to the next.
    fn page(
        &self,
        asked: &Asked,
        mut all: Vec<String>,
    ) -> Result<(Vec<String>, Option<String>), Problem> {
        let wanted = match asked.query("n") {
            None => None,
            Some(text) => Some(text.parse::<usize>().map_err(|_| {
                Problem::bad(
                    "PAGINATION_NUMBER_INVALID",
                    "invalid number of results requested",
                )
                .detail(json!({ "n": text }))
            })?),
        };
        if wanted == Some(0) {
            return Ok((Vec::new(), None));
        }
        let Some(limit) = wanted.into_iter().chain(self.options.page_limit).min() else {
            return Ok((all, None));
        };
        let limit = limit.max(1);
        if all.len() <= limit {
            return Ok((all, None));
        }
        all.truncate(limit);
        let link = next_link(
            &asked.path,
            &[
                ("n", &limit.to_string()),
                ("last", all.last().map_or("", String::as_str)),
            ],
        );
        Ok((all, Some(link)))
    }

    pub(super) fn catalog(&self, asked: &Asked) -> Result<Response, Problem> {
        let names = self.repositories.names(asked.query("last"));
        let (names, link) = self.page(asked, names)?;
        let body = json!({ "repositories": names });
        Ok(linked(
            json_response(StatusCode::OK, "application/json", &body),
            link,
        ))
    }

    pub(super) fn tags(&self, asked: &Asked, repository: &str) -> Result<Response, Problem> {
        let Some(tags) = self.repositories.tags(repository, asked.query("last")) else {
            return Err(
                Problem::absent("NAME_UNKNOWN", "repository name not known to registry")
                    .detail(json!({ "name": repository })),
            );
        };
        let (tags, link) = self.page(asked, tags)?;
        let body = json!({ "name": repository, "tags": tags });
        Ok(linked(
            json_response(StatusCode::OK, "application/json", &body),
            link,
        ))
    }

    pub(super) fn referrers(
        &self,
        asked: &Asked,
        repository: &str,
        digest: &str,
    ) -> Result<Response, Problem> {
        let subject = parse_digest(digest)?;
        let wanted = asked.query("artifactType").filter(|text| !text.is_empty());
        let last: Option<Digest> = asked.query("last").and_then(|text| text.parse().ok());
        let all: Vec<Descriptor> = self
            .repositories
            .referrers(repository, &subject)
            .into_iter()
            .filter(|found| last.is_none_or(|last| found.digest > last))
            .filter(|found| {
                wanted.is_none_or(|wanted| found.artifact_type.as_deref() == Some(wanted))
            })
            .collect();
        // A client reads an index up to the size of a manifest.
        let mut size = 0;
        let limit = self.options.page_limit.unwrap_or(usize::MAX).max(1);
        let fitting = all
            .iter()
            .take(limit)
            .take_while(|found| {
                size += serde_json::to_vec(found).map_or(0, |text| text.len() as u64 + 1);
                size < MANIFEST_LIMIT - 1024
            })
            .count()
            .max(1);
        let page = &all[..fitting.min(all.len())];
        let link = (page.len() < all.len()).then(|| {
            let last = page.last().map(|found| found.digest.to_string());
            let mut query = vec![("last", last.as_deref().unwrap_or_default())];
            query.extend(wanted.map(|wanted| ("artifactType", wanted)));
            next_link(&asked.path, &query)
        });
        let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page });
        let mut response = json_response(StatusCode::OK, OCI_INDEX, &body);
        if wanted.is_some() {
            response
                .headers_mut()
                .insert(FILTERS, HeaderValue::from_static("artifactType"));
        }
        Ok(linked(response, link))
    }
}

fn next_link(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    format!("<{path}?{query}>; rel=\"next\"")
}

pub(super) fn linked(mut response: Response, link: Option<String>) -> Response {
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}
