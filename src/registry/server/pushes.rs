//! Uploads of blobs, by every way that the specification has.

use std::io;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER};

use super::answer::Registry;
use super::message::{
    Answer, Asked, CONTENT_DIGEST, Problem, UPLOAD_ID, block, digest_invalid, interrupted,
    parse_digest,
};
use super::range;
use super::upload::{Announced, Intake, Pieces, Upload, UploadProblem};
use super::users::{Bearing, Scope};
use crate::digest::Digest;
use crate::store;

impl Registry {
    pub(super) fn announced(asked: &Asked) -> Result<Announced, Problem> {
        let range = match asked.header(&CONTENT_RANGE) {
            None => None,
            Some(text) => Some(range::chunk(text).ok_or_else(|| {
                Problem::bad(
                    "BLOB_UPLOAD_INVALID",
                    "Content-Range must be <first>-<last>",
                )
            })?),
        };
        Ok(Announced {
            length: asked.content_length(),
            range,
        })
    }

    pub(super) async fn start_upload(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
    ) -> Result<Response, Problem> {
        if let Some(response) = self.mount(asked, repository).await? {
            return Ok(response);
        }
        if let Some(digest) = asked.query("digest") {
            let digest = parse_digest(digest)?;
            let upload = Arc::new(Upload::new(repository, self.uploads.folder()));
            return self
                .complete(asked, intake, repository, upload, digest)
                .await?
                .map_err(|problem| upload_problem(problem, &digest, None));
        }
        let Some(id) = self.uploads.start(repository) else {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "too many uploads are under way",
            )
            .header(RETRY_AFTER, "10"));
        };
        Ok(upload_answer(StatusCode::ACCEPTED, repository, &id, 0).empty())
    }

    /// Makes a blob of another repository visible here, if that was asked and can be.
    async fn mount(&self, asked: &Asked, repository: &str) -> Result<Option<Response>, Problem> {
        let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from")) else {
            return Ok(None);
        };
        let digest = parse_digest(digest)?;
        if self.options.tokens.is_some() {
            let wanted = Scope::repository(from, "pull");
            let bearing = asked
                .bearer()
                .map(|token| self.issued.bears(token, &wanted));
            if bearing != Some(Bearing::Granted) {
                return Ok(None);
            }
        }
        let Some(blob) = self.repositories.blob(from, &digest) else {
            return Ok(None);
        };
        let (depot, repositories) = (Arc::clone(&self.depot), Arc::clone(&self.repositories));
        let name = repository.to_owned();
        let mounted = block(move || -> Result<bool, Problem> {
            if !depot.holds(&blob).map_err(|error| Problem::io(&error))? {
                return Ok(false);
            }
            repositories.link_blob(&name, &blob)?;
            Ok(true)
        })
        .await??;
        Ok(mounted.then(|| created_blob(repository, &digest)))
    }

    fn find_upload(&self, repository: &str, id: &str) -> Result<Arc<Upload>, Problem> {
        self.uploads.find(repository, id).ok_or_else(upload_unknown)
    }

    pub(super) fn upload_status(&self, repository: &str, id: &str) -> Result<Response, Problem> {
        let length = self.find_upload(repository, id)?.length();
        Ok(upload_answer(StatusCode::NO_CONTENT, repository, id, length).bodyless())
    }

    pub(super) async fn append_upload(
        &self,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        id: &str,
    ) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        let announced = Self::announced(asked)?;
        let limit = self.options.upload_limit;
        let appended = intake
            .feed(upload.take_turn(), move |pieces| {
                upload.append(pieces, announced, limit)
            })
            .await
            .map_err(|error| Problem::inside(&error))?;
        match appended {
            Ok(length) => Ok(upload_answer(StatusCode::ACCEPTED, repository, id, length).empty()),
            Err(problem) => {
                let digest = Digest::of(b"");
                Err(self.ended_badly(problem, repository, id, &digest))
            }
        }
    }

    pub(super) async fn finish_upload(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        id: &str,
    ) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        let digest = match asked.query("digest") {
            Some(text) => parse_digest(text)?,
            None => {
                return Err(Problem::bad(
                    "DIGEST_INVALID",
                    "the digest of the blob is missing",
                ));
            }
        };
        let result = self
            .complete(asked, intake, repository, upload, digest)
            .await?;
        match result {
            Ok(response) => {
                self.uploads.end(id);
                Ok(response)
            }
            Err(problem) => Err(self.ended_badly(problem, repository, id, &digest)),
        }
    }

    /// Takes the rest of an upload, stores the blob and makes it visible.
    async fn complete(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        upload: Arc<Upload>,
        digest: Digest,
    ) -> Result<Result<Response, UploadProblem>, Problem> {
        let announced = Self::announced(asked)?;
        let limit = self.options.upload_limit;
        let registry = Arc::clone(self);
        let name = repository.to_owned();
        let turn = upload.take_turn();
        let work = move |pieces: &mut Pieces| {
            let blob = upload.finish(&*registry.depot, pieces, digest, announced, limit)?;
            registry
                .repositories
                .link_blob(&name, &blob)
                .map_err(|error| UploadProblem::Io(io::Error::other(error)))
        };
        let stored = intake
            .feed(turn, work)
            .await
            .map_err(|error| Problem::inside(&error))?;
        Ok(stored.map(|()| created_blob(repository, &digest)))
    }

    /// Forgets the upload if it cannot go on, and says why.
    fn ended_badly(
        &self,
        problem: UploadProblem,
        repository: &str,
        id: &str,
        digest: &Digest,
    ) -> Problem {
        if matches!(problem, UploadProblem::Digest(_) | UploadProblem::Limit) {
            self.uploads.end(id);
        }
        upload_problem(problem, digest, Some((repository, id)))
    }

    pub(super) async fn cancel_upload(
        &self,
        repository: &str,
        id: &str,
    ) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        self.uploads.end(id);
        let _turn = upload.take_turn();
        match block(move || upload.cancel()).await? {
            Ok(()) => Ok(Answer::new(StatusCode::NO_CONTENT).bodyless()),
            Err(_) => Err(upload_unknown()),
        }
    }
}

fn upload_unknown() -> Problem {
    Problem::absent("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

fn created_blob(repository: &str, digest: &Digest) -> Response {
    Answer::new(StatusCode::CREATED)
        .header(LOCATION, &format!("/v2/{repository}/blobs/{digest}"))
        .header(CONTENT_DIGEST, &digest.to_string())
        .empty()
}

/// Where an upload goes on. The query is for clients to keep, as with the distribution project's registry, which
/// has its state in there.
fn upload_location(repository: &str, id: &str, length: u64) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?_state={length}")
}

/// First and last byte that are there; an empty upload says the same as one byte does.
fn upload_range(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn upload_answer(status: StatusCode, repository: &str, id: &str, length: u64) -> Answer {
    Answer::new(status)
        .header(LOCATION, &upload_location(repository, id, length))
        .header(RANGE, &upload_range(length))
        .header(UPLOAD_ID, id)
}

fn upload_problem(
    problem: UploadProblem,
    digest: &Digest,
    upload: Option<(&str, &str)>,
) -> Problem {
    match problem {
        UploadProblem::Gone => upload_unknown(),
        UploadProblem::Gap { length } => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                format!("the upload goes on at byte {length}"),
            )
            .header(RANGE, upload_range(length));
            match upload {
                Some((repository, id)) => {
                    problem.header(LOCATION, upload_location(repository, id, length))
                }
                None => problem,
            }
        }
        UploadProblem::Length { declared, found } => Problem::bad(
            "SIZE_INVALID",
            format!("the chunk was to have {declared} bytes and has {found}"),
        ),
        UploadProblem::Limit => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            "the blob is larger than this registry takes",
        ),
        UploadProblem::Digest(damage) => match damage {
            store::Damage::Wrong { found, .. } => digest_invalid(digest, &found),
            damage => Problem::bad("SIZE_INVALID", damage.to_string()),
        },
        UploadProblem::Broken => interrupted(),
        UploadProblem::Io(error) => Problem::io(&error),
    }
}
