//! Where requests come in: faults, admission, and the way to the endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::connection::Cut;
use super::fault::{Broken, Drawn, Fault, Misfortune};
use super::message::{
    API_VERSION, Answer, Asked, CONTENT_DIGEST, Inside, Problem, json_response, no_endpoint,
    repository_of,
};
use super::outgoing::{Fate, Outgoing, Report};
use super::repositories::{Repositories, is_name};
use super::upload::{Intake, Uploads};
use super::users::{Issued, Users};
use super::{Depot, Exchange, HEALTH_PATH, Journal, Kind, Options, TOKEN_PATH};
use crate::registry::route::Route;

/// Everything that requests are answered from.
pub(super) struct Registry {
    pub(super) options: Options,
    pub(super) depot: Arc<dyn Depot>,
    pub(super) repositories: Arc<Repositories>,
    pub(super) journal: Arc<Journal>,
    pub(super) uploads: Uploads,
    pub(super) users: Option<Arc<Users>>,
    pub(super) issued: Issued,
    pub(super) misfortune: Option<Misfortune>,
    pub(super) address: SocketAddr,
}

pub(super) fn router(
    mut options: Options,
    depot: Arc<dyn Depot>,
    repositories: Arc<Repositories>,
    journal: Arc<Journal>,
    address: SocketAddr,
) -> axum::Router {
    let uploads = Uploads::new(options.spool.take());
    let users = options
        .users
        .take()
        .map(|htpasswd| Arc::new(Users::new(htpasswd, &uploads.fresh())));
    let misfortune = options
        .faults
        .take()
        .map(|faults| Misfortune::new(faults, options.tokens.is_some()));
    let registry = Registry {
        options,
        depot,
        repositories,
        journal,
        uploads,
        users,
        issued: Issued::default(),
        misfortune,
        address,
    };
    axum::Router::new()
        .fallback(handle)
        .with_state(Arc::new(registry))
}

async fn handle(
    State(registry): State<Arc<Registry>>,
    Extension(cut): Extension<Arc<Cut>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let raw_path = parts.uri.path().to_owned();
    let asked = Asked::parse(parts);
    let mut intake = Intake::new(body);
    if !registry.options.delay.is_zero() {
        tokio::time::sleep(registry.options.delay).await;
    }
    let drawn = registry.misfortune.as_ref().and_then(|misfortune| {
        misfortune.strike(asked.method.as_str(), &asked.lasting_path(), asked.kind)
    });
    let mut alive = true;
    let early = match &drawn {
        Some(drawn) => registry.fail_early(&asked, &drawn.fault, &mut alive).await,
        None => None,
    };
    let mut response = match early {
        Some(response) => response,
        None => match registry.answer(&asked, &mut intake).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        },
    };
    if matches!(&drawn, Some(drawn) if drawn.fault == Fault::LostAnswer) {
        alive = false;
    }
    if asked.kind.is_api() {
        response
            .headers_mut()
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    }
    let exchange = Exchange {
        method: asked.method.to_string(),
        path: raw_path,
        kind: asked.kind,
        status: if alive { response.status().as_u16() } else { 0 },
        bytes: 0,
        problem: response
            .extensions()
            .get::<Inside>()
            .map(|inside| inside.0.clone()),
    };
    if alive {
        intake.drain().await;
        response = registry.spoil(&asked, drawn.as_ref(), response, exchange);
    } else {
        cut.cut();
        registry.journal.note(&exchange);
        if let Some(log) = &registry.options.log {
            log(&exchange);
        }
    }
    response
}

impl Registry {
    /// What a fault does before the request is looked at.
    async fn fail_early(&self, asked: &Asked, fault: &Fault, alive: &mut bool) -> Option<Response> {
        match fault {
            Fault::TooManyRequests { retry_after } => Some(
                Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TOOMANYREQUESTS",
                    "too many requests",
                )
                .header(RETRY_AFTER, retry_after.to_string())
                .response(),
            ),
            Fault::Status(status) => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Some(Problem::new(status, "UNKNOWN", "out of order").response())
            }
            Fault::Reset => {
                *alive = false;
                Some(Answer::new(StatusCode::OK).empty())
            }
            Fault::ExpiredToken => {
                if let Some(token) = asked.bearer() {
                    self.issued.revoke(token);
                }
                let scope = self.scope(asked);
                Some(self.bearer_challenge(asked, scope.as_deref(), Some("invalid_token")))
            }
            Fault::Stall { pause, close } if !has_body(asked) => {
                tokio::time::sleep(*pause).await;
                if *close {
                    *alive = false;
                    return Some(Answer::new(StatusCode::OK).empty());
                }
                None
            }
            Fault::Truncated | Fault::WrongBytes | Fault::LostAnswer | Fault::Stall { .. } => None,
        }
    }

    /// Notes the exchange, and damages the body where that was drawn or demanded.
    fn spoil(
        &self,
        asked: &Asked,
        drawn: Option<&Drawn>,
        mut response: Response,
        mut exchange: Exchange,
    ) -> Response {
        let served =
            response.status() == StatusCode::OK || response.status() == StatusCode::PARTIAL_CONTENT;
        let mut flips = Vec::new();
        let mut fate = None;
        if served && asked.reads() && matches!(asked.kind, Kind::Manifest | Kind::Blob) {
            let length = length_of(&response).unwrap_or_default();
            match self.broken(&response) {
                Some(Broken::Absent) => {
                    let (code, what) = if asked.kind == Kind::Blob {
                        ("BLOB_UNKNOWN", "blob unknown to repository")
                    } else {
                        ("MANIFEST_UNKNOWN", "manifest unknown to repository")
                    };
                    response = Problem::absent(code, what).response();
                    exchange.status = response.status().as_u16();
                }
                Some(Broken::WrongBytes) => {
                    let (first, size) = part_of(&response).unwrap_or((0, length));
                    if let Some(at) = (size / 2).checked_sub(first) {
                        flips.push((at, 1));
                    }
                }
                None => {}
            }
            if has_body(asked) && length > 0 {
                let after = length / 2;
                match drawn {
                    Some(Drawn {
                        fault: Fault::Truncated,
                        ..
                    }) => fate = Some(Fate::Truncate { after }),
                    Some(Drawn {
                        fault: Fault::Stall { pause, close },
                        ..
                    }) => {
                        fate = Some(Fate::Stall {
                            after,
                            pause: *pause,
                            close: *close,
                        });
                    }
                    Some(Drawn {
                        fault: Fault::WrongBytes,
                        detail,
                    }) => flips.push((detail % length, 1 << ((detail >> 60) & 7))),
                    _ => {}
                }
            }
        }
        self.journal.note(&exchange);
        let report = Report {
            exchange,
            log: self.options.log.clone(),
        };
        let plain = flips.is_empty() && fate.is_none() && report.log.is_none();
        if plain || response.body().size_hint().exact() == Some(0) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let outgoing = Outgoing {
            body: body.into_data_stream(),
            rest: None,
            fate,
            flips,
            report,
        };
        Response::from_parts(parts, Body::from_stream(outgoing.stream()))
    }

    fn broken(&self, response: &Response) -> Option<Broken> {
        let digest = response.headers().get(&CONTENT_DIGEST)?.to_str().ok()?;
        self.misfortune.as_ref()?.broken(&digest.parse().ok()?)
    }

    async fn answer(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
    ) -> Result<Response, Problem> {
        let Some(route) = Route::parse(&asked.path) else {
            return self.answer_beside(asked).await;
        };
        self.authorise(asked).await?;
        if self.options.read_only && !asked.reads() {
            return Err(
                Problem::unsupported("the registry is read-only").header(ALLOW, "GET, HEAD")
            );
        }
        if let Some(name) = repository_of(route)
            && !is_name(name)
        {
            return Err(Problem::bad("NAME_INVALID", "invalid repository name")
                .detail(json!({ "name": name })));
        }
        let method = asked.method.as_str();
        match (route, method) {
            (Route::Base, "GET" | "HEAD") => Ok(json_response(
                StatusCode::OK,
                "application/json",
                &json!({}),
            )),
            (Route::Catalog, "GET") => self.catalog(asked),
            (Route::Tags { repository }, "GET") => self.tags(asked, repository),
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "GET" | "HEAD",
            ) => self.manifest(asked, repository, reference).await,
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "PUT",
            ) => {
                self.put_manifest(asked, intake, repository, reference)
                    .await
            }
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "DELETE",
            ) => self.delete_manifest(repository, reference).await,
            (Route::Blob { repository, digest }, "GET" | "HEAD") => {
                self.blob(asked, repository, digest).await
            }
            (Route::Blob { repository, digest }, "DELETE") => {
                self.delete_blob(repository, digest).await
            }
            (Route::Uploads { repository }, "POST") => {
                self.start_upload(asked, intake, repository).await
            }
            (Route::Upload { repository, id }, "GET" | "HEAD") => {
                self.upload_status(repository, id)
            }
            (Route::Upload { repository, id }, "PATCH") => {
                self.append_upload(asked, intake, repository, id).await
            }
            (Route::Upload { repository, id }, "PUT") => {
                self.finish_upload(asked, intake, repository, id).await
            }
            (Route::Upload { repository, id }, "DELETE") => {
                self.cancel_upload(repository, id).await
            }
            (Route::Referrers { repository, digest }, "GET") if self.options.referrers => {
                self.referrers(asked, repository, digest)
            }
            (Route::Referrers { .. }, _) if !self.options.referrers => Err(no_endpoint()),
            (route, _) => {
                Err(Problem::unsupported("the operation is unsupported")
                    .header(ALLOW, allowed(route)))
            }
        }
    }

    /// The endpoints beside the distribution API.
    async fn answer_beside(&self, asked: &Asked) -> Result<Response, Problem> {
        let text = |text: &'static str| {
            Ok(Answer::new(StatusCode::OK)
                .header(CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(CACHE_CONTROL, "no-cache")
                .body(Body::from(text), text.len() as u64))
        };
        match (asked.path.as_str(), asked.reads()) {
            ("/", true) if super::page::is_wanted(asked) => {
                if let Some(users) = &self.users {
                    self.admit(users, asked).await?;
                }
                Ok(self.front_page())
            }
            ("/", true) => text("imgbuild registry\n"),
            (HEALTH_PATH, true) => text("ok\n"),
            (TOKEN_PATH, true) if self.options.tokens.is_some() => self.token(asked).await,
            ("/" | HEALTH_PATH, false) => {
                Err(Problem::unsupported("the operation is unsupported").header(ALLOW, "GET, HEAD"))
            }
            _ => Err(no_endpoint()),
        }
    }
}

fn has_body(asked: &Asked) -> bool {
    asked.method == Method::GET && matches!(asked.kind, Kind::Manifest | Kind::Blob)
}

fn length_of(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_LENGTH)?.to_str().ok()?;
    text.parse().ok()
}

/// Offset of a part's first byte, and the size of the whole.
fn part_of(response: &Response) -> Option<(u64, u64)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

const fn allowed(route: Route<'_>) -> &'static str {
    match route {
        Route::Base => "GET, HEAD",
        Route::Catalog | Route::Tags { .. } | Route::Referrers { .. } => "GET",
        Route::Manifest { .. } => "GET, HEAD, PUT, DELETE",
        Route::Blob { .. } => "GET, HEAD, DELETE",
        Route::Uploads { .. } => "POST",
        Route::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
    }
}
