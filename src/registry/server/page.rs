//! The page that a browser gets: what is here, and how to pull it. One document without scripts or anything else to load.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::answer::Registry;
use super::message::{Answer, Asked};

/// Most repositories on the page; the API has them all.
const REPOSITORIES: usize = 5000;

/// Most tags of one repository on the page.
const TAGS: usize = 500;

const STYLE: &str = ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.4rem}summary{cursor:pointer;padding:.3rem 0;overflow-wrap:anywhere}summary span{color:#666;font-size:.85em}\
details{border-bottom:1px solid #ddd}ul{margin:.2rem 0 .8rem;padding-left:1.4rem}li{overflow-wrap:anywhere}\
code{font:13px/1.5 ui-monospace,monospace}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}details{border-color:#444}summary span{color:#aaa}}";

/// Whether a request comes from a browser.
pub(super) fn is_wanted(asked: &Asked) -> bool {
    asked
        .header(&ACCEPT)
        .is_some_and(|accept| accept.contains("text/html"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Registry {
    /// Repositories and their tags.
    pub(super) fn front_page(&self) -> Response {
        let names = self.repositories.names(None);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>imgbuild registry</title>\n<style>{STYLE}</style>\n<h1>imgbuild registry</h1>\n<p>{}{}</p>\n",
            match names.len() {
                0 => "Nothing is here yet.".to_owned(),
                1 => "1 repository.".to_owned(),
                more => format!("{more} repositories."),
            },
            if self.options.read_only {
                " It is read-only."
            } else {
                ""
            }
        );
        for name in names.iter().take(REPOSITORIES) {
            let tags = self.repositories.tags(name, None).unwrap_or_default();
            let noun = if tags.len() == 1 { "tag" } else { "tags" };
            let _ = write!(
                page,
                "<details><summary><code>{}</code> <span>{} {noun}</span></summary><ul>",
                escaped(name),
                tags.len()
            );
            for tag in tags.iter().take(TAGS) {
                let _ = write!(page, "<li><code>{}:{}</code>", escaped(name), escaped(tag));
            }
            if tags.len() > TAGS {
                let _ = write!(page, "<li>and {} more", tags.len() - TAGS);
            }
            page.push_str("</ul></details>\n");
        }
        if names.len() > REPOSITORIES {
            let _ = writeln!(page, "<p>And {} more.</p>", names.len() - REPOSITORIES);
        }
        let length = page.len() as u64;
        Answer::new(StatusCode::OK)
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .header(CACHE_CONTROL, "no-cache")
            .header(
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'",
            )
            .body(Body::from(page), length)
    }
}
