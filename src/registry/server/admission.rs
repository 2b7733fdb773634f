//! Who may do what: passwords with each request, or tokens.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use serde_json::json;

use super::TOKEN_PATH;
use super::answer::Registry;
use super::message::{Asked, Problem, json_response, no_endpoint, repository_of};
use super::users::{Bearing, Credentials, Scope, Users};
use crate::registry::route::Route;

const BASIC: &str = "Basic realm=\"imgbuild\"";

impl Registry {
    /// What the request needs, as a scope; none for the base.
    pub(super) fn wanted(asked: &Asked) -> Option<Scope> {
        let action = match asked.method.as_str() {
            "GET" | "HEAD" => "pull",
            "DELETE" => "delete",
            _ => "push",
        };
        match Route::parse(&asked.path)? {
            Route::Base => None,
            Route::Catalog => Some(Scope::catalog()),
            Route::Uploads { repository } | Route::Upload { repository, .. } => {
                Some(Scope::repository(repository, "push"))
            }
            route => Some(Scope::repository(repository_of(route)?, action)),
        }
    }

    /// What a client should ask a token for; one to push is good to pull.
    pub(super) fn scope(&self, asked: &Asked) -> Option<String> {
        self.options.tokens.as_ref()?;
        let Scope { kind, name, action } = Self::wanted(asked)?;
        let action = if action == "push" {
            "pull,push"
        } else {
            &action
        };
        Some(format!("{kind}:{name}:{action}"))
    }

    pub(super) async fn authorise(&self, asked: &Asked) -> Result<(), Problem> {
        if self.options.tokens.is_some() {
            let wanted = Self::wanted(asked);
            let bearing = match (asked.bearer(), &wanted) {
                (None, _) => None,
                (Some(token), Some(wanted)) => Some(self.issued.bears(token, wanted)),
                (Some(token), None) if self.issued.knows(token) => Some(Bearing::Granted),
                (Some(_), None) => Some(Bearing::Unknown),
            };
            let error = match bearing {
                Some(Bearing::Granted) => return Ok(()),
                Some(Bearing::Insufficient) => Some("insufficient_scope"),
                Some(Bearing::Unknown) => Some("invalid_token"),
                None => None,
            };
            let challenge = self.challenge(asked, self.scope(asked).as_deref(), error);
            return Err(unauthorized(&challenge));
        }
        let Some(users) = &self.users else {
            return Ok(());
        };
        self.admit(users, asked).await
    }

    pub(super) async fn admit(&self, users: &Arc<Users>, asked: &Asked) -> Result<(), Problem> {
        let credentials = asked.header(&AUTHORIZATION).and_then(Credentials::parse);
        let admitted = match credentials {
            Some(credentials) => users.admit(credentials).await,
            None => false,
        };
        if admitted {
            Ok(())
        } else {
            Err(unauthorized(BASIC))
        }
    }

    fn challenge(&self, asked: &Asked, scope: Option<&str>, error: Option<&str>) -> String {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let plain = |text: &&str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".:[]-_".contains(&byte))
        };
        let host = asked
            .authority
            .as_deref()
            .or_else(|| asked.header(&HOST))
            .filter(plain)
            .map_or_else(|| self.address.to_string(), str::to_owned);
        let service = self
            .options
            .tokens
            .as_ref()
            .map_or("", |tokens| tokens.service.as_str());
        let mut text =
            format!("Bearer realm=\"{scheme}://{host}{TOKEN_PATH}\",service=\"{service}\"");
        for (name, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                let _ = write!(text, ",{name}=\"{value}\"");
            }
        }
        text
    }

    pub(super) fn bearer_challenge(
        &self,
        asked: &Asked,
        scope: Option<&str>,
        error: Option<&str>,
    ) -> Response {
        unauthorized(&self.challenge(asked, scope, error)).response()
    }

    pub(super) async fn token(&self, asked: &Asked) -> Result<Response, Problem> {
        let Some(tokens) = &self.options.tokens else {
            return Err(no_endpoint());
        };
        if let Some(service) = asked.query("service")
            && service != tokens.service
        {
            return Err(Problem::bad(
                "DENIED",
                "tokens for another service are not given here",
            ));
        }
        let mut scopes = BTreeSet::new();
        for (name, value) in &asked.query {
            if name == "scope" {
                scopes.append(&mut Scope::parse_list(value));
            }
        }
        if let Some(users) = &self.users {
            if tokens.anonymous_pull && asked.header(&AUTHORIZATION).is_none() {
                scopes.retain(|scope| scope.kind == "repository" && scope.action == "pull");
            } else {
                self.admit(users, asked).await?;
            }
        }
        let token = self.uploads.fresh();
        self.issued.grant(token.clone(), scopes, tokens.lifetime);
        Ok(json_response(
            StatusCode::OK,
            "application/json",
            &json!({
                "token": token,
                "access_token": token,
                "expires_in": tokens.lifetime.as_secs(),
            }),
        ))
    }
}

fn unauthorized(challenge: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required",
    )
    .header(WWW_AUTHENTICATE, challenge)
}
