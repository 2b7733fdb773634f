//! Whom a cluster believes, and who it is: certificate authorities and pull secrets.
//!
//! The ConfigMap that `image.config.openshift.io/cluster` names as `additionalTrustedCA` has one key per registry, with
//! `..` in place of the `:` before a port, and PEM certificates as its value; a further key serves the update service.
//! A pull secret is the JSON of `~/.docker/config.json`: `{"auths": {"host[/path]": {"auth": …}}}`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::canon::Value;
use crate::hint::Hint;

/// The key that the update service looks for.
const UPDATE_SERVICE: &str = "updateservice-registry";

/// The name of the ConfigMap.
pub const TRUST_NAME: &str = "mirror-registry-trust";

/// Why a pull secret or a certificate cannot be used. Nothing of its content is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No JSON, or JSON of another form.
    #[error("{file} is no pull secret: {reason}")]
    Secret {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate in it.
    #[error("{file} has no PEM certificate")]
    Certificate {
        /// The file.
        file: String,
    },
    /// A private key in it.
    #[error("{file} has a private key, which must not be handed to a cluster")]
    PrivateKey {
        /// The file.
        file: String,
    },
}

impl Hint for TrustError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Secret { .. } => Some(
                "a pull secret is {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}, as `podman login --authfile` writes it"
                    .to_owned(),
            ),
            Self::Certificate { .. } => Some("give the certificate authority as PEM".to_owned()),
            Self::PrivateKey { .. } => Some("give the certificate alone".to_owned()),
        }
    }
}

/// Joins PEM files into one chain. Texts come with the names of their files.
///
/// # Errors
/// If one has no certificate, or has a private key.
pub fn bundle(files: &[(String, String)]) -> Result<String, TrustError> {
    let mut out = String::new();
    for (file, text) in files {
        if text.contains("PRIVATE KEY-----") {
            return Err(TrustError::PrivateKey { file: file.clone() });
        }
        let mut found = false;
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if line == "-----BEGIN CERTIFICATE-----" {
                inside = true;
            }
            if inside {
                out.push_str(line);
                out.push('\n');
            }
            if line == "-----END CERTIFICATE-----" && inside {
                inside = false;
                found = true;
            }
        }
        if !found || inside {
            return Err(TrustError::Certificate { file: file.clone() });
        }
    }
    Ok(out)
}

/// The ConfigMap with the authorities of a registry (`HOST[:PORT]`), and the image config that names it.
#[must_use]
pub fn documents(registry: &str, authorities: &str) -> Vec<Value> {
    let key = registry.replacen(':', "..", 1);
    let data = Value::map([
        (key.as_str(), authorities.into()),
        (UPDATE_SERVICE, authorities.into()),
    ]);
    vec![
        Value::map([
            ("apiVersion", "v1".into()),
            ("kind", "ConfigMap".into()),
            (
                "metadata",
                Value::map([
                    ("name", TRUST_NAME.into()),
                    ("namespace", "openshift-config".into()),
                ]),
            ),
            ("data", data),
        ]),
        Value::map([
            ("apiVersion", "config.openshift.io/v1".into()),
            ("kind", "Image".into()),
            ("metadata", Value::map([("name", "cluster".into())])),
            (
                "spec",
                Value::map([(
                    "additionalTrustedCA",
                    Value::map([("name", TRUST_NAME.into())]),
                )]),
            ),
        ]),
    ]
}

/// The entries of a pull secret.
fn auths(file: &str, text: &str) -> Result<Map<String, Json>, TrustError> {
    let wrong = |reason: &str| TrustError::Secret {
        file: file.to_owned(),
        reason: reason.to_owned(),
    };
    // The parser's own words could quote the file.
    let json: Json = serde_json::from_str(text).map_err(|error| {
        wrong(&format!(
            "no JSON at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Some(Json::Object(auths)) = json.get("auths") else {
        return Err(wrong("it has no object \"auths\""));
    };
    for (host, entry) in auths {
        let is_usable = entry
            .as_object()
            .is_some_and(|entry| entry.get("auth").is_some_and(Json::is_string));
        if !is_usable {
            return Err(wrong(&format!("the entry {host:?} has no text \"auth\"")));
        }
    }
    Ok(auths.clone())
}

/// Merges pull secrets, each with the name of its file; a later entry replaces an earlier one of the same key. One line
/// of JSON, keys ascending.
///
/// # Errors
/// If one is no pull secret.
pub fn merge_pull_secrets(files: &[(String, String)]) -> Result<String, TrustError> {
    let mut all: BTreeMap<String, Json> = BTreeMap::new();
    for (file, text) in files {
        all.extend(auths(file, text)?);
    }
    Ok(format!("{}\n", serde_json::json!({ "auths": all })))
}

/// The login of a registry in a pull secret: the base64 text of `user:password`.
///
/// # Errors
/// If it is no pull secret.
pub fn login(file: &str, text: &str, registry: &str) -> Result<Option<String>, TrustError> {
    Ok(auths(file, text)?
        .get(registry)
        .and_then(|entry| entry["auth"].as_str().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_port_is_written_with_two_dots() {
        let documents = documents("reg.example.com:5000", PEM);
        let text = crate::openshift::cluster::yaml_stream(&documents).unwrap();
        let parts: Vec<serde_yaml::Value> = text
            .split("---\n")
            .skip(1)
            .filter_map(|part| serde_yaml::from_str(part).ok())
            .collect();
        assert!(!parts.is_empty(), "it is YAML:\n{text}");
        let map = crate::openshift::cluster::yaml_stream(&documents[..1]).unwrap();
        let map: serde_yaml::Value =
            serde_yaml::from_str(map.strip_prefix("---\n").unwrap()).unwrap();
        assert_eq!(
            map["data"]["reg.example.com..5000"].as_str(),
            Some(PEM),
            "certificates survive"
        );
        assert_eq!(map["data"][UPDATE_SERVICE].as_str(), Some(PEM));
        assert_eq!(
            map["metadata"]["namespace"].as_str(),
            Some("openshift-config")
        );
    }

    #[test]
    fn authorities_are_joined_and_keys_refused() {
        let file = |text: &str| ("ca.pem".to_owned(), text.to_owned());
        let noisy = format!("# mirror\r\n{}", PEM.replace('\n', "\r\n"));
        assert_eq!(
            bundle(&[file(PEM), file(&noisy)]).unwrap(),
            format!("{PEM}{PEM}"),
            "comments and line ends go"
        );
        assert!(matches!(
            bundle(&[file("nothing")]),
            Err(TrustError::Certificate { .. })
        ));
        assert!(matches!(
            bundle(&[file("-----BEGIN PRIVATE KEY-----\n")]),
            Err(TrustError::PrivateKey { .. })
        ));
    }

    #[test]
    fn secrets_are_merged_and_never_quoted() {
        let file = |text: &str| ("pull.json".to_owned(), text.to_owned());
        let base =
            file(r#"{"auths":{"quay.io":{"auth":"b2xk","email":"a@b"},"x.io":{"auth":"eA=="}}}"#);
        let ours = file(r#"{"auths":{"reg:5000":{"auth":"bmV3"},"quay.io":{"auth":"bmV3"}}}"#);
        let merged = merge_pull_secrets(&[base, ours]).unwrap();
        assert_eq!(
            merged,
            "{\"auths\":{\"quay.io\":{\"auth\":\"bmV3\"},\"reg:5000\":{\"auth\":\"bmV3\"},\"x.io\":{\"auth\":\"eA==\"}}}\n",
            "the later one wins"
        );
        assert_eq!(
            login("m", &merged, "reg:5000").unwrap().as_deref(),
            Some("bmV3")
        );
        for bad in [
            r#"{"auths":{"h":{"auth":c2VjcmV0}}}"#,
            r#"{"auths":{"h":"c2VjcmV0"}}"#,
            r#""c2VjcmV0""#,
        ] {
            let error = merge_pull_secrets(&[file(bad)]).unwrap_err().to_string();
            assert!(!error.contains("c2VjcmV0"), "{error} quotes a secret");
        }
    }
}
