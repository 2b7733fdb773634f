//! The distribution API as one enum: what the client asks is what the server answers.
//!
//! ```text
//! /v2/                                     Base
//! /v2/_catalog                             Catalog
//! /v2/<repository>/tags/list               Tags
//! /v2/<repository>/manifests/<reference>   Manifest
//! /v2/<repository>/blobs/<digest>          Blob
//! /v2/<repository>/blobs/uploads/          Uploads
//! /v2/<repository>/blobs/uploads/<id>      Upload
//! /v2/<repository>/referrers/<digest>      Referrers
//! ```
//!
//! Follows the OCI distribution specification 1.1, section "Endpoints"; `_catalog` is Docker's.

use std::fmt;

/// One endpoint. Names are as the path has them, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Whether the API is there, and who may use it.
    Base,
    /// The names of the repositories.
    Catalog,
    /// The tags of a repository.
    Tags {
        /// The repository.
        repository: &'a str,
    },
    /// A manifest by tag or digest.
    Manifest {
        /// The repository.
        repository: &'a str,
        /// A tag or a digest.
        reference: &'a str,
    },
    /// A blob by digest.
    Blob {
        /// The repository.
        repository: &'a str,
        /// The digest.
        digest: &'a str,
    },
    /// Where an upload starts.
    Uploads {
        /// The repository.
        repository: &'a str,
    },
    /// An upload under way.
    Upload {
        /// The repository.
        repository: &'a str,
        /// What the server called it.
        id: &'a str,
    },
    /// The manifests that refer to another.
    Referrers {
        /// The repository.
        repository: &'a str,
        /// The subject's digest.
        digest: &'a str,
    },
}

impl<'a> Route<'a> {
    /// Reads the path of a request.
    #[must_use]
    pub fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        if rest.is_empty() || rest == "/" {
            return Some(Self::Base);
        }
        let rest = rest.strip_prefix('/')?;
        if rest == "_catalog" {
            return Some(Self::Catalog);
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags { repository });
        }
        if let Some(repository) = rest
            .strip_suffix("/blobs/uploads/")
            .or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Some(Self::Uploads { repository });
        }
        let (rest, last) = rest.rsplit_once('/')?;
        if last.is_empty() {
            return None;
        }
        if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Upload {
                repository,
                id: last,
            });
        }
        let (repository, verb) = rest.rsplit_once('/')?;
        match verb {
            "manifests" => Some(Self::Manifest {
                repository,
                reference: last,
            }),
            "blobs" => Some(Self::Blob {
                repository,
                digest: last,
            }),
            "referrers" => Some(Self::Referrers {
                repository,
                digest: last,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Route<'_> {
    /// Writes the path of the request.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("/v2/"),
            Self::Catalog => formatter.write_str("/v2/_catalog"),
            Self::Tags { repository } => write!(formatter, "/v2/{repository}/tags/list"),
            Self::Manifest {
                repository,
                reference,
            } => write!(formatter, "/v2/{repository}/manifests/{reference}"),
            Self::Blob { repository, digest } => {
                write!(formatter, "/v2/{repository}/blobs/{digest}")
            }
            Self::Uploads { repository } => write!(formatter, "/v2/{repository}/blobs/uploads/"),
            Self::Upload { repository, id } => {
                write!(formatter, "/v2/{repository}/blobs/uploads/{id}")
            }
            Self::Referrers { repository, digest } => {
                write!(formatter, "/v2/{repository}/referrers/{digest}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_printing() {
        for route in [
            Route::Base,
            Route::Catalog,
            Route::Tags { repository: "a/b" },
            Route::Manifest {
                repository: "a/manifests/b",
                reference: "v1",
            },
            Route::Blob {
                repository: "blobs/uploads",
                digest: "sha256:00",
            },
            Route::Uploads {
                repository: "a/blobs",
            },
            Route::Upload {
                repository: "a/b/c",
                id: "7",
            },
            Route::Referrers {
                repository: "a",
                digest: "sha256:00",
            },
        ] {
            assert_eq!(
                Route::parse(&route.to_string()),
                Some(route),
                "parsing must undo printing"
            );
        }
        for path in [
            "/",
            "/v3/",
            "/v2x",
            "/v2/a",
            "/v2/a/b/c",
            "/v2/a/manifests/",
        ] {
            assert_eq!(Route::parse(path), None, "{path} is no endpoint");
        }
    }
}
