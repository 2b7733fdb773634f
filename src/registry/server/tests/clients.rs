//! Real clients, and the distribution project's registry as the oracle.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::*;

/// An OCI layout of many kinds of image, from the tests of regclient.
const LAYOUT: &str = "../shared/data/images/regclient+regclient/testdata/testrepo";

/// Whether `program` can be run; says so if not.
fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn layout() -> Option<PathBuf> {
    let path = PathBuf::from(LAYOUT);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {LAYOUT} is not there");
    None
}

/// The tags of a layout and the digests they point at, but for the tags that stand in for referrers: skopeo cannot
/// copy such an index unchanged, not even between layouts.
fn tags_of(layout: &Path) -> BTreeMap<String, Digest> {
    let text = std::fs::read(layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    let manifests = index["manifests"].as_array().unwrap().iter();
    manifests
        .filter_map(|entry| {
            let tag = entry["annotations"][crate::oci::REF_NAME].as_str()?;
            if tag.starts_with("sha256-") {
                return None;
            }
            Some((tag.to_owned(), entry["digest"].as_str()?.parse().unwrap()))
        })
        .collect()
}

fn blob_of(layout: &Path, digest: &Digest) -> Vec<u8> {
    std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap()
}

fn skopeo(arguments: &[&str]) -> Output {
    Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .unwrap()
}

fn well(output: &Output, what: &str) -> Vec<u8> {
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout.clone()
}

/// Copies every tagged image of the layout in and out again, with these options of skopeo.
fn round_trip(site: &Site, layout: &Path, options: &dyn Fn(&str) -> Vec<String>) {
    let base = format!("docker://{}/some/where", site.server.address());
    let tags = tags_of(layout);
    assert!(!tags.is_empty(), "the layout has tagged images");
    let out = tempfile::tempdir().unwrap();
    let run = |command: &[&str], sides: &[&str], names: &[&str]| {
        let extra: Vec<String> = sides.iter().flat_map(|side| options(side)).collect();
        let mut arguments: Vec<&str> = command.to_vec();
        arguments.extend(extra.iter().map(String::as_str));
        arguments.extend(names);
        skopeo(&arguments)
    };
    for (tag, digest) in &tags {
        let here = format!("oci:{}:{tag}", layout.display());
        let there = format!("{base}:{tag}");
        let pushed = run(
            &["copy", "--all", "--preserve-digests"],
            &["dest-"],
            &[&here, &there],
        );
        well(&pushed, &format!("{tag} is pushed"));
        let raw = run(&["inspect", "--raw"], &[""], &[&there]);
        assert_eq!(
            well(&raw, &format!("{tag} is inspected")),
            blob_of(layout, digest),
            "{tag}: the manifest is the one that was pushed"
        );
        let back = format!("oci:{}:{tag}", out.path().display());
        let pulled = run(
            &["copy", "--all", "--preserve-digests"],
            &["src-"],
            &[&there, &back],
        );
        well(&pulled, &format!("{tag} is pulled"));
    }
    assert_eq!(tags_of(out.path()), tags, "what comes out is what went in");
    let repository = run(&["list-tags"], &[""], &[&base]);
    let listed: Value = serde_json::from_slice(&well(&repository, "tags are listed")).unwrap();
    let names: Vec<&String> = tags.keys().collect();
    assert_eq!(listed["Tags"], json!(names), "every tag is listed");
    let (tag, _) = tags.iter().next().unwrap();
    let there = format!("{base}:{tag}");
    well(&run(&["delete"], &[""], &[&there]), "an image is deleted");
    assert!(
        !run(&["inspect", "--raw"], &[""], &[&there])
            .status
            .success(),
        "a deleted image is gone"
    );
}

#[test]
fn skopeo_copies_a_layout_in_and_out() {
    let Some(layout) = layout().filter(|_| is_installed("skopeo")) else {
        return;
    };
    let spool = tempfile::tempdir().unwrap();
    for options in [
        Options::default(),
        Options {
            spool: Some(spool.path().to_owned()),
            page_limit: Some(2),
            ..Options::default()
        },
    ] {
        let site = Site::new(options);
        round_trip(&site, &layout, &|side| {
            vec![format!("--{side}tls-verify=false")]
        });
    }
}

#[test]
fn skopeo_logs_in_with_a_password_or_a_token() {
    let Some(layout) = layout().filter(|_| is_installed("skopeo")) else {
        return;
    };
    let users: Htpasswd = format!("ann:{}", bcrypt::hash("secret", 4).unwrap())
        .parse()
        .unwrap();
    for tokens in [None, Some(Tokens::default())] {
        let site = Site::new(Options {
            users: Some(users.clone()),
            tokens,
            ..Options::default()
        });
        round_trip(&site, &layout, &|side| {
            vec![
                format!("--{side}tls-verify=false"),
                format!("--{side}creds=ann:secret"),
            ]
        });
        let stranger = skopeo(&[
            "list-tags",
            "--tls-verify=false",
            "--creds=bob:secret",
            &format!("docker://{}/some/where", site.server.address()),
        ]);
        assert!(!stranger.status.success(), "a stranger does not get in");
    }
}

fn certificate() -> (Tls, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let tls = Tls {
        certificate: pem.clone().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    };
    (tls, pem)
}

#[test]
fn skopeo_trusts_the_certificate_it_is_given() {
    let Some(layout) = layout().filter(|_| is_installed("skopeo")) else {
        return;
    };
    let (tls, pem) = certificate();
    let site = Site::new(Options {
        tls: Some(tls),
        ..Options::default()
    });
    let trusted = tempfile::tempdir().unwrap();
    std::fs::write(trusted.path().join("ca.crt"), pem).unwrap();
    round_trip(&site, &layout, &|side| {
        vec![format!("--{side}cert-dir={}", trusted.path().display())]
    });
}

#[test]
fn tls_and_both_versions_of_http_are_spoken() {
    let (tls, pem) = certificate();
    let site = Site::new(Options {
        tls: Some(tls),
        ..Options::default()
    });
    let bytes = vec![7; 3_000_000];
    let digest = Digest::of(&bytes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (protocol, version) in [
        ("h2", http::Version::HTTP_2),
        ("http/1.1", http::Version::HTTP_11),
    ] {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .build()
            .unwrap();
        let base = format!("{}/v2/a", site.server.url());
        runtime.block_on(async {
            let pushed = client
                .post(format!("{base}/blobs/uploads/?digest={digest}"))
                .body(bytes.clone())
                .send()
                .await
                .unwrap();
            assert_eq!(
                (pushed.status().as_u16(), pushed.version()),
                (201, version),
                "{protocol}: a blob is pushed"
            );
            let pulled = client
                .get(format!("{base}/blobs/{digest}"))
                .send()
                .await
                .unwrap();
            assert!(
                pulled.bytes().await.unwrap() == bytes,
                "{protocol}: and pulled"
            );
        });
    }
    let mut plain = TcpStream::connect(site.server.address()).unwrap();
    plain.write_all(&request("GET", "/v2/", &[], b"")).unwrap();
    let heard = Heard::read(plain);
    assert!(
        !heard.is_ok_and(|heard| heard.status == 200),
        "nothing is said without TLS"
    );
}

/// The distribution project's registry, running.
struct Oracle {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Oracle {
    fn start() -> Option<Self> {
        if !is_installed("docker-registry") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let config = folder.path().join("config.yml");
        let text = json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": {
                "filesystem": { "rootdirectory": folder.path().join("data") },
                "delete": { "enabled": true },
            },
            "http": { "addr": address.to_string(), "relativeurls": true },
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let oracle = Self {
            child,
            address,
            _folder: folder,
        };
        for _ in 0..500 {
            if send(address, "GET", "/v2/", &[], b"").is_ok_and(|heard| heard.status == 200) {
                return Some(oracle);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("docker-registry does not answer");
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request of a script. `@` in a path stands for the location of the upload that was started last.
type Line<'a> = (&'a str, String, Vec<(&'a str, String)>, &'a [u8]);

/// What of each answer both registries must agree on.
fn run(address: SocketAddr, script: &[Line<'_>]) -> Vec<(String, String)> {
    let mut location = String::new();
    let mut told = Vec::new();
    for (method, path, headers, body) in script {
        let path = match path.strip_prefix('@') {
            Some("") => location.clone(),
            Some(rest) => format!("{location}&{rest}"),
            None => path.clone(),
        };
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let heard = send(address, method, &path, &headers, body).unwrap();
        let mut text = heard.status.to_string();
        let is_upload = heard.header("location").contains("/uploads/");
        if is_upload {
            heard.header("location").clone_into(&mut location);
        }
        for name in [
            "docker-content-digest",
            "docker-distribution-api-version",
            "content-range",
            "accept-ranges",
            "range",
            "etag",
            "link",
        ] {
            let _ = write!(text, " {name}={}", heard.header(name));
        }
        if heard.status < 300 && *method == "GET" {
            let _ = write!(
                text,
                " type={} body={:?}",
                heard.header("content-type").split(';').next().unwrap(),
                String::from_utf8_lossy(&heard.body).trim_end()
            );
        }
        if !is_upload {
            let _ = write!(text, " location={}", heard.header("location"));
        }
        if heard.status >= 400 && !heard.body.is_empty() && heard.body[0] == b'{' {
            let _ = write!(text, " code={}", heard.code());
        }
        let line = format!("{method} {}", path.split('?').next().unwrap());
        told.push((
            if is_upload {
                (*method).to_owned()
            } else {
                line
            },
            text,
        ));
    }
    told
}

#[test]
fn the_distribution_projects_registry_answers_the_same() {
    let Some(oracle) = Oracle::start() else {
        return;
    };
    let site = Site::plain();
    let manifest = image(b"layer");
    let digest = Digest::of(&manifest);
    let (config, layer, absent) = (
        Digest::of(b"{}"),
        Digest::of(b"layer"),
        Digest::of(b"absent"),
    );
    let none = Vec::new;
    let typed = |media_type: &str| vec![("Content-Type", media_type.to_owned())];
    let accept = || vec![("Accept", OCI_MANIFEST.to_owned())];
    let range = |text: &str| vec![("Range", text.to_owned())];
    let start = || {
        (
            "POST",
            "/v2/a/b/blobs/uploads/".to_owned(),
            none(),
            &b""[..],
        )
    };
    let manifests = "/v2/a/b/manifests";
    let blobs = "/v2/a/b/blobs";
    let script: Vec<Line<'_>> = vec![
        ("GET", "/v2/".into(), none(), b""),
        start(),
        ("GET", "@".into(), none(), b""),
        ("PATCH", "@".into(), none(), b"la"),
        ("GET", "@".into(), none(), b""),
        ("PATCH", "@".into(), none(), b"ye"),
        ("PUT", format!("@digest={layer}"), none(), b"r"),
        start(),
        ("PUT", format!("@digest={config}"), none(), b"{}"),
        start(),
        ("PUT", format!("@digest={absent}"), none(), b"present"),
        start(),
        ("DELETE", "@".into(), none(), b""),
        ("GET", "@".into(), none(), b""),
        ("HEAD", format!("{blobs}/{layer}"), none(), b""),
        ("GET", format!("{blobs}/{layer}"), none(), b""),
        ("GET", format!("{blobs}/{layer}"), range("bytes=1-3"), b""),
        ("GET", format!("{blobs}/{layer}"), range("bytes=2-"), b""),
        ("GET", format!("{blobs}/{layer}"), range("bytes=-2"), b""),
        ("HEAD", format!("{blobs}/{absent}"), none(), b""),
        ("GET", format!("{blobs}/{absent}"), none(), b""),
        (
            "PUT",
            format!("{manifests}/v1"),
            typed(OCI_MANIFEST),
            &manifest,
        ),
        (
            "PUT",
            format!("{manifests}/v2"),
            typed(OCI_MANIFEST),
            &manifest,
        ),
        (
            "PUT",
            format!("{manifests}/{digest}"),
            typed(OCI_MANIFEST),
            &manifest,
        ),
        (
            "PUT",
            format!("{manifests}/{absent}"),
            typed(OCI_MANIFEST),
            &manifest,
        ),
        ("PUT", format!("{manifests}/v3"), typed(OCI_MANIFEST), b"{"),
        (
            "PUT",
            "/v2/other/manifests/v1".into(),
            typed(OCI_MANIFEST),
            &manifest,
        ),
        ("GET", format!("{manifests}/v1"), accept(), b""),
        ("HEAD", format!("{manifests}/v1"), accept(), b""),
        ("GET", format!("{manifests}/{digest}"), accept(), b""),
        ("GET", format!("{manifests}/{absent}"), accept(), b""),
        ("GET", format!("{manifests}/v9"), accept(), b""),
        ("GET", "/v2/a/b/tags/list".into(), none(), b""),
        ("GET", "/v2/nobody/tags/list".into(), none(), b""),
        ("GET", "/v2/_catalog".into(), none(), b""),
        (
            "POST",
            format!("/v2/c/blobs/uploads/?mount={layer}&from=a/b"),
            none(),
            b"",
        ),
        ("HEAD", format!("/v2/c/blobs/{layer}"), none(), b""),
        (
            "POST",
            format!("/v2/c/blobs/uploads/?mount={absent}&from=a/b"),
            none(),
            b"",
        ),
        ("DELETE", format!("{manifests}/{absent}"), none(), b""),
        ("DELETE", format!("{manifests}/{digest}"), none(), b""),
        ("GET", format!("{manifests}/{digest}"), accept(), b""),
        ("GET", format!("{manifests}/v1"), accept(), b""),
        ("DELETE", format!("{blobs}/{absent}"), none(), b""),
        ("DELETE", format!("{blobs}/{layer}"), none(), b""),
        ("HEAD", format!("{blobs}/{layer}"), none(), b""),
    ];
    let theirs = run(oracle.address, &script);
    let ours = run(site.server.address(), &script);
    let differing: Vec<_> = theirs
        .iter()
        .zip(&ours)
        .filter(|(theirs, ours)| theirs.1 != ours.1)
        .map(|(theirs, ours)| format!("{}\n  theirs {}\n  ours   {}", ours.0, theirs.1, ours.1))
        .collect();
    assert!(
        differing.is_empty(),
        "the two registries differ:\n{}",
        differing.join("\n")
    );
}
