//! Whom we believe, and who we are, on the level of TLS.
//!
//! ```text
//! certs.d/<host[:port]>/*.crt           certificate authorities, besides the system's
//! certs.d/<host[:port]>/<name>.cert     a client certificate, with
//! certs.d/<host[:port]>/<name>.key      its key
//! ```
//!
//! Follows containers-certs.d(5). Of several certs.d folders, the first that has a folder for the host counts. The
//! system's authorities are looked for where Go looks (`$SSL_CERT_FILE`, `$SSL_CERT_DIR`, the bundles of the
//! distributions), so a host that works for the tools beside us works here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::conf::listing;
use super::settings::{Environment, SettingsError};

/// Where distributions keep their bundle; the first that is there counts.
const BUNDLES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/cert.pem",
];

/// Where they keep single certificates, asked where there is no bundle.
const FOLDERS: [&str; 2] = ["etc/ssl/certs", "etc/pki/tls/certs"];

/// Certificates, looked up when the first host needs them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    folders: Vec<PathBuf>,
    authorities: Vec<PathBuf>,
    file: Option<PathBuf>,
    directories: Vec<PathBuf>,
    bundles: Vec<PathBuf>,
    fallbacks: Vec<PathBuf>,
    roots: Arc<OnceLock<Arc<RootCertStore>>>,
}

impl Trust {
    /// Notes where to look. `folders` are more certs.d folders, looked at first; `authorities` are PEM files whose
    /// certificates are trusted for every host.
    #[must_use]
    pub fn find(environment: &Environment, folders: &[PathBuf], authorities: &[PathBuf]) -> Self {
        let own = environment
            .config_home()
            .map(|folder| folder.join("containers/certs.d"));
        Self {
            folders: folders
                .iter()
                .cloned()
                .chain(own)
                .chain(
                    ["etc/containers/certs.d", "etc/docker/certs.d"]
                        .map(|path| environment.system(path)),
                )
                .collect(),
            authorities: authorities.to_vec(),
            file: environment.variable("SSL_CERT_FILE").map(PathBuf::from),
            directories: environment
                .variable("SSL_CERT_DIR")
                .map(|value| value.split(':').map(PathBuf::from).collect())
                .unwrap_or_default(),
            bundles: BUNDLES.map(|path| environment.system(path)).into(),
            fallbacks: FOLDERS.map(|path| environment.system(path)).into(),
            roots: Arc::default(),
        }
    }

    /// Where a certificate authority for `host` would be looked for first.
    #[must_use]
    pub fn advice(&self, host: &str) -> String {
        self.folders
            .iter()
            .find(|folder| folder.starts_with("/etc"))
            .or_else(|| self.folders.first())
            .map_or_else(
                || format!("/etc/containers/certs.d/{host}"),
                |folder| folder.join(host).display().to_string(),
            )
    }

    /// The configuration for `host` (`host[:port]`); `insecure` believes any certificate.
    pub(super) fn profile(
        &self,
        host: &str,
        insecure: bool,
        protocols: &[&[u8]],
    ) -> Result<ClientConfig, SettingsError> {
        let own = self.own(host)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError::Certificate {
                path: PathBuf::from(host),
                reason: error.to_string(),
            })?;
        let builder = if insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone { provider }))
        } else {
            let mut roots = self.system()?.as_ref().clone();
            for path in self.authorities.iter().chain(&own.authorities) {
                for certificate in certificates(path)? {
                    roots
                        .add(certificate)
                        .map_err(|error| SettingsError::Certificate {
                            path: path.clone(),
                            reason: format!("a certificate in it is unusable: {error}"),
                        })?;
                }
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match own.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(&certificate)?;
                let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
                    SettingsError::Certificate {
                        path: key.clone(),
                        reason: format!("expected a private key (PEM): {error}"),
                    }
                })?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| SettingsError::Certificate {
                        path: certificate,
                        reason: format!("it does not fit {}: {error}", key.display()),
                    })?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    fn system(&self) -> Result<Arc<RootCertStore>, SettingsError> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots.clone());
        }
        let mut roots = RootCertStore::empty();
        let mut add = |found: Vec<CertificateDer<'static>>| {
            // A bundle may hold what this TLS does not know; one odd entry must not cost the others.
            roots.add_parsable_certificates(found).0 > 0
        };
        let mut any = false;
        if let Some(file) = &self.file {
            any |= add(certificates(file)?);
        } else {
            for bundle in &self.bundles {
                if bundle.is_file() {
                    any |= add(certificates(bundle)?);
                    break;
                }
            }
        }
        let folders = if !self.directories.is_empty() {
            &self.directories
        } else if any || self.file.is_some() {
            &Vec::new()
        } else {
            &self.fallbacks
        };
        for folder in folders {
            for path in listing(folder)? {
                if path.is_file()
                    && let Ok(found) = certificates(&path)
                {
                    add(found);
                }
            }
        }
        Ok(self.roots.get_or_init(|| Arc::new(roots)).clone())
    }

    fn own(&self, host: &str) -> Result<Own, SettingsError> {
        let mut own = Own::default();
        let Some(folder) = self
            .folders
            .iter()
            .map(|folder| folder.join(host))
            .find(|folder| folder.is_dir())
        else {
            return Ok(own);
        };
        let paths = listing(&folder)?;
        let ends =
            |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
        for path in &paths {
            if ends(path, "crt") {
                own.authorities.push(path.clone());
            } else if ends(path, "cert") {
                let key = path.with_extension("key");
                if !paths.contains(&key) {
                    return Err(SettingsError::Certificate {
                        path: path.clone(),
                        reason: format!(
                            "a client certificate needs its key beside it: {} is missing",
                            key.display()
                        ),
                    });
                }
                own.client.get_or_insert((path.clone(), key));
            } else if ends(path, "key") && !paths.contains(&path.with_extension("cert")) {
                return Err(SettingsError::Certificate {
                    path: path.clone(),
                    reason: format!(
                        "a client key needs its certificate beside it: {} is missing (an authority is named *.crt)",
                        path.with_extension("cert").display()
                    ),
                });
            }
        }
        Ok(own)
    }
}

/// The configuration for plain HTTP, which is never used to believe anybody.
pub(super) fn nobody(protocols: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("the provider has the ciphers of its own default versions")
    .with_root_certificates(RootCertStore::empty())
    .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// What one host's folder in certs.d holds.
#[derive(Default)]
struct Own {
    authorities: Vec<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let bytes = std::fs::read(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| SettingsError::Certificate {
            path: path.to_owned(),
            reason: format!("expected certificates (PEM): {error}"),
        })?;
    if found.is_empty() {
        return Err(SettingsError::Certificate {
            path: path.to_owned(),
            reason: "expected certificates (PEM), found none".to_owned(),
        });
    }
    Ok(found)
}

/// Believes any certificate, for hosts that were marked insecure.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn trust(folder: &Path) -> Trust {
        Trust::find(
            &Environment {
                root: folder.to_owned(),
                ..Environment::default()
            },
            &[],
            &[],
        )
    }

    #[test]
    fn a_folder_of_a_host_is_read_as_the_manual_says() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("etc/containers/certs.d/a.test:5000");
        fs::create_dir_all(&own).unwrap();
        let issued = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        fs::write(own.join("ca.crt"), issued.cert.pem()).unwrap();
        fs::write(own.join("client.cert"), issued.cert.pem()).unwrap();
        let error = trust(folder.path())
            .profile("a.test:5000", false, &[])
            .unwrap_err();
        assert!(
            error.to_string().contains("client.key is missing"),
            "{error} must name the missing key"
        );
        fs::write(own.join("client.key"), issued.signing_key.serialize_pem()).unwrap();
        let profile = trust(folder.path())
            .profile("a.test:5000", false, &[b"h2"])
            .unwrap();
        assert!(
            profile.client_auth_cert_resolver.has_certs(),
            "the client certificate must be presented"
        );
        assert_eq!(
            profile.alpn_protocols,
            [b"h2".to_vec()],
            "protocols as asked"
        );
        let other = trust(folder.path()).profile("a.test", false, &[]).unwrap();
        assert!(
            !other.client_auth_cert_resolver.has_certs(),
            "another port is another host"
        );
        fs::write(own.join("ca.crt"), "no certificate").unwrap();
        let error = trust(folder.path())
            .profile("a.test:5000", false, &[])
            .unwrap_err();
        assert!(
            error.to_string().contains("ca.crt"),
            "{error} must name the file"
        );
    }

    #[test]
    fn a_named_bundle_that_is_missing_is_an_error() {
        let environment = Environment {
            variables: [("SSL_CERT_FILE".to_owned(), "/nowhere/ca.pem".to_owned())].into(),
            ..Environment::default()
        };
        let error = Trust::find(&environment, &[], &[])
            .profile("a.test", false, &[])
            .unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/ca.pem"),
            "{error} must name the file"
        );
    }
}
