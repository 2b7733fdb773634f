//! The client against a stock registry, where one is installed, and against servers that misbehave.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::oci::{OCI_INDEX, OCI_MANIFEST};
use crate::registry::auth::Credentials;
use crate::registry::conf::Registries;
use crate::registry::retry::Retry;
use crate::registry::settings::{Environment, Files, Limits};
use crate::registry::trust::Trust;
use crate::store::memory::Memory;
use crate::store::{self, Sink, TransferError, transfer};

/// Bytes that do not repeat within any buffer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn quick(hosts: &[&str]) -> Settings {
    Settings {
        insecure: hosts.iter().map(|host| (*host).to_owned()).collect(),
        retry: Retry {
            attempts: 4,
            base: Duration::from_millis(2),
            cap: Duration::from_millis(20),
            patience: Duration::from_secs(5),
        },
        idle_timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}

fn image(config: &Blob, layers: &[Blob], subject: Option<&Descriptor>) -> Vec<u8> {
    let entry = |blob: &Blob, media_type: &str| serde_json::json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size});
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry(config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers
            .iter()
            .map(|layer| entry(layer, "application/vnd.oci.image.layer.v1.tar"))
            .collect::<Vec<_>>(),
    });
    if let Some(subject) = subject {
        manifest["subject"] = serde_json::to_value(subject).unwrap();
    }
    serde_json::to_vec(&manifest).unwrap()
}

/// A stock registry in a folder of its own; ended when dropped.
struct Stock {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const STOCK: &str = "/usr/bin/docker-registry";

impl Stock {
    fn start(more: &str) -> Option<Self> {
        if !Path::new(STOCK).exists() {
            println!("skipped: {STOCK} is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = folder.path().join("config.yml");
        let more = more.replace("FOLDER", &folder.path().display().to_string());
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
                folder.path().join("storage").display()
            ),
        )
        .unwrap();
        let child = Command::new(STOCK)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stock = Self {
            child,
            host: format!("127.0.0.1:{port}"),
            folder,
        };
        for _ in 0..500 {
            if TcpStream::connect(&stock.host).is_ok() {
                return Some(stock);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the registry did not come up");
    }

    fn client(&self) -> Client {
        Client::new(quick(&[&self.host])).unwrap()
    }

    fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.host, path).unwrap()
    }
}

#[test]
fn an_image_goes_to_a_stock_registry_and_comes_back() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let repository = stock.repository("a/b");
    let memory = Memory::default();
    let config = memory.insert(b"{}");
    let large = memory.insert(&noise((3 << 20) + 17));
    let exact = memory.insert(&noise(2 << 20));
    let push = client.push(&repository).unwrap();
    for blob in [&config, &large, &exact] {
        assert!(!push.holds(blob).unwrap(), "nothing is there yet");
        assert_eq!(
            transfer(&memory, &push, blob, &|_| ()).unwrap(),
            crate::store::Moved::Written(blob.size),
            "all of it is sent"
        );
        assert!(push.holds(blob).unwrap(), "what was sent is there");
        assert!(
            stock
                .client()
                .push(&repository)
                .unwrap()
                .holds(blob)
                .unwrap(),
            "it is there for others too"
        );
    }
    let bytes = image(&config, &[large, exact], None);
    let tag: Tag = "v1".parse().unwrap();
    assert_eq!(push.head_tag(&tag).unwrap(), None, "no such tag yet");
    let put = push.put_manifest(&bytes, OCI_MANIFEST, Some(&tag)).unwrap();
    assert_eq!(
        put.digest,
        Digest::of(&bytes),
        "the digest is that of the bytes"
    );
    push.put_manifest(&bytes, OCI_MANIFEST, Some(&"v0".parse().unwrap()))
        .unwrap();

    let client = stock.client();
    let found = client
        .resolve(&repository.clone().with_tag(tag.clone()))
        .unwrap()
        .unwrap();
    assert_eq!(found.bytes, bytes, "the manifest comes back as it went");
    assert_eq!(
        found.descriptor,
        descriptor(OCI_MANIFEST, put.digest, bytes.len() as u64),
        "with what it is"
    );
    assert_eq!(
        client
            .head_manifest(&repository.clone().with_digest(put.digest))
            .unwrap(),
        Some(found.descriptor.clone()),
        "HEAD says the same"
    );
    assert_eq!(
        push.head_tag(&tag).unwrap(),
        Some(found.descriptor.clone()),
        "so does the side that pushed"
    );
    assert_eq!(
        client.tags(&repository).unwrap().unwrap(),
        ["v0", "v1"].map(|tag| tag.parse().unwrap()),
        "both tags, sorted"
    );
    let here = Memory::default();
    transfer(
        &client.manifests(&repository),
        &here,
        &Blob::from(&found.descriptor),
        &|_| (),
    )
    .unwrap();
    for blob in [&config, &large, &exact] {
        transfer(&client.blobs(&repository), &here, blob, &|_| ()).unwrap();
        assert!(here.holds(blob).unwrap(), "the blob came back");
    }
    let mut tail = Vec::new();
    client
        .blobs(&repository)
        .open(&large, large.size - 5)
        .unwrap()
        .unwrap()
        .read_to_end(&mut tail)
        .unwrap();
    let all = store::read(&memory, &large, u64::MAX).unwrap();
    assert_eq!(
        tail,
        all[all.len() - 5..],
        "the end of a blob can be had alone"
    );
}

#[test]
fn what_is_not_there_is_absent_and_no_error() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let nowhere = stock.repository("no/where");
    let digest = Digest::of(b"nothing");
    let blob = Blob::of(b"nothing");
    assert_eq!(
        client
            .resolve(&nowhere.clone().with_tag("x".parse().unwrap()))
            .unwrap(),
        None,
        "no such tag"
    );
    assert_eq!(
        client
            .head_manifest(&nowhere.clone().with_digest(digest))
            .unwrap(),
        None,
        "no such manifest"
    );
    assert_eq!(client.tags(&nowhere).unwrap(), None, "no such repository");
    assert_eq!(
        client.referrers(&nowhere, digest).unwrap(),
        [],
        "no referrers"
    );
    assert!(
        client.blobs(&nowhere).open(&blob, 0).unwrap().is_none(),
        "no blob"
    );
    assert!(
        client.manifests(&nowhere).open(&blob, 0).unwrap().is_none(),
        "no manifest"
    );
    let push = client.push(&nowhere).unwrap();
    assert!(!push.holds(&blob).unwrap(), "no blob to push beside");
    assert!(
        !push.mount(&blob, "also/nowhere").unwrap(),
        "nothing to mount"
    );
    assert!(!push.delete_manifest(digest).unwrap(), "nothing to delete");
    assert_eq!(push.head_manifest(digest).unwrap(), None, "nothing there");
}

#[test]
fn a_blob_is_sent_once_to_a_registry_whoever_asks_and_then_mounted() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let memory = Memory::default();
    let blob = memory.insert(&noise(1_500_000));
    let sent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let (client, memory, sent, stock) = (&client, &memory, &sent, &stock);
            scope.spawn(move || {
                let push = client
                    .push(&stock.repository(&format!("team/{}", worker % 4)))
                    .unwrap();
                let how = push.send(memory, &blob, Try::Ask(None), &|_| ()).unwrap();
                sent.lock().unwrap().push(how);
            });
        }
    });
    let sent = sent.into_inner().unwrap();
    let count = |how| sent.iter().filter(|other| **other == how).count();
    assert_eq!(count(Sent::Uploaded(blob.size)), 1, "one upload for all");
    assert_eq!(
        count(Sent::Mounted),
        3,
        "one mount for each other repository"
    );
    assert_eq!(count(Sent::Present), 12, "nothing for the rest");
    let requests = client.requests();
    assert_eq!(
        (
            requests.upload_starts,
            requests.upload_ends,
            requests.mounts
        ),
        (1, 1, 3),
        "and no more requests than that"
    );
    assert_eq!(requests.repeated, 0, "a blob on its way is not asked for");
    for path in ["team/0", "team/1", "team/2", "team/3"] {
        assert!(
            stock
                .client()
                .push(&stock.repository(path))
                .unwrap()
                .holds(&blob)
                .unwrap(),
            "{path} has it"
        );
    }
    let other = client.push(&stock.repository("team/5")).unwrap();
    assert_eq!(
        transfer(&memory, &other, &blob, &|_| ()).unwrap(),
        crate::store::Moved::Written(blob.size),
        "a plain transfer goes by itself too"
    );
    assert_eq!(client.requests().upload_starts, 1, "and mounts");
    assert!(
        stock
            .client()
            .push(&stock.repository("team/6"))
            .unwrap()
            .mount(&blob, "team/0")
            .unwrap(),
        "a mount that was asked for"
    );
}

#[test]
fn a_wrong_blob_never_lands() {
    struct Liar(Vec<u8>);
    impl Source for Liar {
        fn open(&self, _: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
            let start = usize::try_from(from).unwrap();
            Ok(Some(Box::new(&self.0[start..])))
        }
    }
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let push = client.push(&stock.repository("a")).unwrap();
    for size in [10, 700_000, 3 << 20] {
        let good = noise(size);
        let mut bad = good.clone();
        bad[size - 1] ^= 1;
        let promise = Blob::of(&good);
        for (what, bytes) in [
            ("wrong", bad),
            ("short", good[..size - 1].to_vec()),
            ("long", [good.as_slice(), b"x"].concat()),
        ] {
            let error = transfer(&Liar(bytes), &push, &promise, &|_| ()).unwrap_err();
            assert!(
                matches!(error, TransferError::Damaged { .. }),
                "a {what} blob of {size} must be damage: {error:?}"
            );
            assert!(
                !stock
                    .client()
                    .push(&stock.repository("a"))
                    .unwrap()
                    .holds(&promise)
                    .unwrap(),
                "a {what} blob of {size} must leave no trace"
            );
        }
        transfer(&Liar(good), &push, &promise, &|_| ()).unwrap();
    }
}

#[test]
fn referrers_are_listed_by_the_tag_that_stands_in_for_the_api() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let repository = stock.repository("signed");
    let push = client.push(&repository).unwrap();
    let memory = Memory::default();
    let config = memory.insert(b"{}");
    push.send(&memory, &config, Try::Ask(None), &|_| ())
        .unwrap();
    let bytes = image(&config, &[], None);
    let subject = push.put_manifest(&bytes, OCI_MANIFEST, None).unwrap();
    let about = descriptor(OCI_MANIFEST, subject.digest, bytes.len() as u64);
    let mut expected = Vec::new();
    for text in ["one", "two"] {
        let layer = memory.insert(text.as_bytes());
        push.send(&memory, &layer, Try::Ask(None), &|_| ()).unwrap();
        let bytes = image(&config, &[layer], Some(&about));
        let put = push.put_manifest(&bytes, OCI_MANIFEST, None).unwrap();
        assert_eq!(put.subject, None, "this registry keeps no lists");
        let found = descriptor(OCI_MANIFEST, put.digest, bytes.len() as u64);
        for _ in 0..2 {
            push.refer(subject.digest, &found).unwrap();
        }
        expected.push(found);
    }
    expected.sort_by_key(|descriptor| descriptor.digest);
    assert_eq!(
        client.referrers(&repository, subject.digest).unwrap(),
        expected,
        "each of them once"
    );
}

#[test]
fn what_is_tried_first_decides_what_is_asked() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let memory = Memory::default();
    let blob = memory.insert(b"shared");
    let push = |client: &Client, path: &str| client.push(&stock.repository(path)).unwrap();
    let asked = |client: &Client, path: &str, first: Try<'_>| {
        // The first request of all finds out how the host is spoken to.
        let push = push(client, path);
        push.head_tag(&"none".parse().unwrap()).unwrap();
        let sent = push.send(&memory, &blob, first, &|_| ()).unwrap();
        let made = client.requests();
        (
            sent,
            made.blob_heads + made.mounts + made.upload_starts + made.upload_ends,
            made,
        )
    };
    // Each client is new, so it knows of nothing but what it is told.
    for (path, first, expected) in [
        ("a", Try::Send, (Sent::Uploaded(6), 2)),
        ("b", Try::Link("a"), (Sent::Mounted, 1)),
        ("b", Try::Ask(None), (Sent::Present, 1)),
        ("b", Try::Link("a"), (Sent::Mounted, 1)),
        // Not there, so an upload is opened, found needless, and ended.
        ("b", Try::Link("nowhere"), (Sent::Present, 3)),
        ("c", Try::Link("nowhere"), (Sent::Uploaded(6), 3)),
        ("d", Try::Ask(Some("a")), (Sent::Mounted, 2)),
        ("e", Try::Ask(None), (Sent::Uploaded(6), 3)),
        ("e", Try::Send, (Sent::Uploaded(6), 2)),
    ] {
        let (sent, count, made) = asked(&stock.client(), path, first);
        assert_eq!((sent, count), expected, "{first:?} into {path}: {made:?}");
    }
}

#[test]
fn a_manifest_is_deleted_with_its_tags() {
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let repository = stock.repository("a");
    let push = client.push(&repository).unwrap();
    let memory = Memory::default();
    let config = memory.insert(b"{}");
    let bytes = image(&config, &[], None);
    let tag: Tag = "x".parse().unwrap();
    let error = push
        .put_manifest(&bytes, OCI_MANIFEST, Some(&tag))
        .unwrap_err();
    assert!(
        matches!(
            &error,
            RegistryError::Server { status: 400, .. } | RegistryError::NotFound { .. }
        ) && error.to_string().contains("BLOB_UNKNOWN"),
        "a manifest without its blobs is refused with the registry's words: {error:?}"
    );
    push.send(&memory, &config, Try::Ask(None), &|_| ())
        .unwrap();
    let put = push.put_manifest(&bytes, OCI_MANIFEST, Some(&tag)).unwrap();
    assert!(push.delete_manifest(put.digest).unwrap(), "it was there");
    assert_eq!(push.head_tag(&tag).unwrap(), None, "its tag is gone");
    assert!(!push.delete_manifest(put.digest).unwrap(), "and it is gone");
}

#[test]
fn skopeo_reads_what_was_pushed_and_writes_what_is_read() {
    if !Path::new("/usr/bin/skopeo").exists() {
        println!("skipped: skopeo is not installed");
        return;
    }
    let Some(stock) = Stock::start("") else {
        return;
    };
    let client = stock.client();
    let repository = stock.repository("x/y");
    let push = client.push(&repository).unwrap();
    let memory = Memory::default();
    let config = memory.insert(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#);
    let layer = memory.insert(&noise(1_200_000));
    for blob in [&config, &layer] {
        push.send(&memory, blob, Try::Ask(None), &|_| ()).unwrap();
    }
    let bytes = image(&config, &[layer], None);
    let put = push
        .put_manifest(&bytes, OCI_MANIFEST, Some(&"v1".parse().unwrap()))
        .unwrap();
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("/usr/bin/skopeo")
            .arg("--insecure-policy")
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "skopeo {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let folder = format!("dir:{}", stock.folder.path().join("copy").display());
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        &format!("docker://{repository}:v1"),
        &folder,
    ]);
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &folder,
        &format!("docker://{}:again", stock.repository("z")),
    ]);
    let found = client
        .resolve(&stock.repository("z").with_tag("again".parse().unwrap()))
        .unwrap()
        .unwrap();
    assert_eq!(
        found.descriptor.digest, put.digest,
        "the same manifest went round"
    );
}

#[test]
fn basic_credentials_are_found_used_and_missed() {
    let Some(stock) =
        Stock::start("auth:\n  htpasswd:\n    realm: test\n    path: FOLDER/htpasswd\n")
    else {
        return;
    };
    fs::write(
        stock.folder.path().join("htpasswd"),
        format!("user:{}\n", bcrypt::hash("secret", 4).unwrap()),
    )
    .unwrap();
    let with = |login: Option<&str>| {
        let mut settings = quick(&[&stock.host]);
        if let Some(login) = login {
            use base64::Engine;
            let path = stock.folder.path().join("auth.json");
            fs::write(
                &path,
                format!(
                    r#"{{"auths":{{"{}/team":{{"auth":"{}"}}}}}}"#,
                    stock.host,
                    base64::engine::general_purpose::STANDARD.encode(login)
                ),
            )
            .unwrap();
            settings.credentials = Credentials::find(
                &Environment::default(),
                Some(&path),
                vec!["containers-auth.json".to_owned()],
            )
            .unwrap();
        }
        Client::new(settings).unwrap()
    };
    let memory = Memory::default();
    let blob = memory.insert(b"hello");
    let good = with(Some("user:secret"));
    let push = good.push(&stock.repository("team/a")).unwrap();
    assert_eq!(
        push.send(&memory, &blob, Try::Ask(None), &|_| ()).unwrap(),
        Sent::Uploaded(5),
        "with credentials it goes"
    );
    assert_eq!(
        good.requests().errors,
        2,
        "the challenge was learnt from one 401 (and the HEAD was one 404)"
    );
    let denied = |client: &Client, path: &str| {
        let error = client.tags(&stock.repository(path)).unwrap_err();
        let RegistryError::Unauthorized { credentials, .. } = &error else {
            panic!("{error:?} must be a denial");
        };
        assert!(
            !format!("{error:?} {error} {:?}", crate::hint::Hint::hint(&error))
                .contains("wrong-secret"),
            "a password must not be shown"
        );
        credentials.clone()
    };
    assert_eq!(
        denied(&with(None), "team/a"),
        None,
        "no credentials, and it says so"
    );
    assert_eq!(
        denied(&good, "other"),
        None,
        "those of a namespace are for it alone"
    );
    assert!(
        denied(&with(Some("user:wrong-secret")), "team/a")
            .is_some_and(|origin| origin.contains("auth.json") && origin.contains("/team")),
        "wrong credentials are named by file and entry"
    );
}

#[test]
fn a_registry_behind_tls_is_trusted_through_certs_d() {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let keys = tempfile::tempdir().unwrap();
    fs::write(keys.path().join("cert.pem"), issued.cert.pem()).unwrap();
    fs::write(
        keys.path().join("key.pem"),
        issued.signing_key.serialize_pem(),
    )
    .unwrap();
    let Some(stock) = Stock::start(&format!(
        "  tls:\n    certificate: {0}/cert.pem\n    key: {0}/key.pem\n",
        keys.path().display()
    )) else {
        return;
    };
    let ask = |settings: Settings| {
        Client::new(settings)
            .unwrap()
            .tags(&stock.repository("none"))
    };
    let error = ask(quick(&[])).unwrap_err();
    assert!(
        matches!(
            &error,
            RegistryError::Tls {
                problem: TlsProblem::UnknownAuthority,
                ..
            }
        ),
        "{error:?} must be about the authority"
    );
    let hint = crate::hint::Hint::hint(&error).unwrap();
    assert!(
        hint.contains(&format!("certs.d/{}/ca.crt", stock.host)),
        "{hint} must say where the authority goes"
    );
    let own = keys.path().join("certs.d").join(&stock.host);
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("ca.crt"), issued.cert.pem()).unwrap();
    let mut settings = quick(&[]);
    settings.trust = Trust::find(&Environment::default(), &[keys.path().join("certs.d")], &[]);
    assert_eq!(ask(settings).unwrap(), None, "the authority is believed");
    let client = Client::new(quick(&[&stock.host])).unwrap();
    assert_eq!(
        client.tags(&stock.repository("none")).unwrap(),
        None,
        "an insecure host is believed anyway"
    );
    let memory = Memory::default();
    let blob = memory.insert(&noise(2_000_000));
    client
        .push(&stock.repository("a"))
        .unwrap()
        .send(&memory, &blob, Try::Ask(None), &|_| ())
        .unwrap();
    transfer(
        &client.blobs(&stock.repository("a")),
        &Memory::default(),
        &blob,
        &|_| (),
    )
    .unwrap();
}

// --- servers that misbehave ---

/// One request, as a [`Fault`] server saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What it answers: bytes for the wire, and whether the connection lives on.
struct Answer {
    bytes: Vec<u8>,
    close: bool,
}

fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    let sets_length = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !sets_length {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    Answer {
        bytes: [text.as_bytes(), b"\r\n", body].concat(),
        close: false,
    }
}

fn closing(mut answer: Answer) -> Answer {
    answer.close = true;
    answer
}

/// A server that answers as a test wants.
struct Fault {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    address: std::net::SocketAddr,
    stop: Arc<AtomicUsize>,
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Fault {
    fn start(handle: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicUsize::new(0));
        let handle = Arc::new(handle);
        let (log, stopped) = (seen.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) != 0 {
                    return;
                }
                let (handle, log) = (handle.clone(), log.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &log, handle.as_ref());
                });
            }
        });
        Self {
            host: address.to_string(),
            seen,
            address,
            stop,
        }
    }

    fn seen(&self, method: &str, part: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.method == method && seen.path.contains(part))
            .count()
    }

    fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.host, path).unwrap()
    }

    fn client(&self) -> Client {
        Client::new(quick(&[&self.host])).unwrap()
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Seen>>,
    handle: &(dyn Fn(&Seen, usize) -> Answer + Send + Sync),
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        if lines.fill_buf()?.first() == Some(&0x16) {
            // A TLS hello; answered as a server of plain HTTP answers it.
            out.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return out.shutdown(Shutdown::Both);
        }
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or_default().to_owned(),
        );
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => {
                    headers.insert(name.to_lowercase(), value.to_owned());
                }
                None => break,
            }
        }
        let length = headers
            .get("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        let seen = Seen {
            method,
            path,
            headers,
            body,
        };
        let number = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len()
        };
        let answer = handle(&seen, number);
        if seen.method == "HEAD" {
            let end = answer
                .bytes
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .unwrap();
            out.write_all(&answer.bytes[..end + 4])?;
        } else {
            out.write_all(&answer.bytes)?;
        }
        if answer.close {
            return out.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    for (status, headers) in [
        (429, vec![("Retry-After", "0")]),
        (
            429,
            vec![
                ("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),
                ("Date", "Wed, 21 Oct 2015 07:28:00 GMT"),
            ],
        ),
        (429, vec![]),
        (500, vec![]),
        (502, vec![]),
        (503, vec![("Retry-After", "0")]),
        (504, vec![]),
    ] {
        let tries = AtomicUsize::new(0);
        let fault = Fault::start(move |_, _| {
            if tries.fetch_add(1, Ordering::SeqCst) < 2 {
                answer(status, &headers, b"")
            } else {
                answer(200, &[], br#"{"name":"a","tags":["x"]}"#)
            }
        });
        let client = fault.client();
        assert_eq!(
            client.tags(&fault.repository("a")).unwrap().unwrap().len(),
            1,
            "{status} passes"
        );
        assert_eq!(client.requests().repeated, 2, "after two more attempts");
    }
}

#[test]
fn a_server_that_stays_broken_is_given_up_with_its_words() {
    for (status, body, part) in [
        (
            500,
            r#"{"errors":[{"code":"UNKNOWN","message":"disk full"}]}"#,
            "UNKNOWN: disk full",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#,
            "TOOMANYREQUESTS",
        ),
        (503, "<html>down</html>", "503"),
    ] {
        let fault = Fault::start(move |_, _| answer(status, &[], body.as_bytes()));
        let client = fault.client();
        let error = client.tags(&fault.repository("a")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(part)
                && text.contains(&fault.host)
                && text.contains("4 attempts")
                && !text.contains("<html>"),
            "{text}"
        );
        assert!(error.is_temporary(), "it may work later");
        assert_eq!(
            fault.seen("GET", "/tags/list"),
            4,
            "no more than it is allowed"
        );
    }
    let fault = Fault::start(|_, _| answer(429, &[("Retry-After", "86400")], b""));
    let error = fault.client().tags(&fault.repository("a")).unwrap_err();
    assert!(
        matches!(&error, RegistryError::TooMany { retry_after: Some(after), .. } if after.as_secs() == 86400),
        "{error:?}"
    );
    assert_eq!(fault.seen("GET", "/tags/list"), 1, "nobody waits a day");
    let fault = Fault::start(|_, _| answer(418, &[], b"short and stout"));
    let error = fault.client().tags(&fault.repository("a")).unwrap_err();
    assert!(
        error.to_string().contains("short and stout") && !error.is_temporary(),
        "{error}"
    );
    assert_eq!(
        fault.seen("GET", "/tags/list"),
        1,
        "that is no reason to ask again"
    );
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_broke() {
    let bytes = noise(100_000);
    let blob = Blob::of(&bytes);
    let cut = [30_000, 55_000, 90_000];
    for ranges in [true, false] {
        let (all, turn) = (bytes.clone(), AtomicUsize::new(0));
        let fault = Fault::start(move |seen, _| {
            let turn = turn.fetch_add(1, Ordering::SeqCst);
            let end = cut.get(turn).copied().unwrap_or(all.len());
            let start: usize = seen
                .header("range")
                .strip_prefix("bytes=")
                .and_then(|text| text.strip_suffix('-'))
                .map_or(0, |text| text.parse().unwrap());
            let range = format!("bytes {start}-{}/{}", all.len() - 1, all.len());
            if ranges && start > 0 {
                assert_eq!(
                    seen.header("if-range"),
                    "\"tag\"",
                    "the tag goes with the range"
                );
                let length = (all.len() - start).to_string();
                closing(answer(
                    206,
                    &[
                        ("Content-Range", &range),
                        ("Content-Length", &length),
                        ("ETag", "\"tag\""),
                    ],
                    &all[start..end],
                ))
            } else {
                let length = all.len().to_string();
                closing(answer(
                    200,
                    &[("Content-Length", &length), ("ETag", "\"tag\"")],
                    &all[..end],
                ))
            }
        });
        let memory = Memory::default();
        let passed = Mutex::new(0);
        transfer(
            &fault.client().blobs(&fault.repository("a")),
            &memory,
            &blob,
            &|count| *passed.lock().unwrap() += count,
        )
        .unwrap();
        assert_eq!(
            *passed.lock().unwrap(),
            blob.size,
            "each byte comes once, whether the server knows ranges ({ranges}) or not"
        );
        assert_eq!(fault.seen("GET", "/blobs/"), 4, "one request for each part");
    }
}

#[test]
fn a_blob_of_another_size_or_range_is_refused_with_its_place() {
    let bytes = noise(1000);
    let blob = Blob::of(&bytes);
    let open = |fault: &Fault, from: u64| {
        let client = fault.client();
        let source = client.blobs(&fault.repository("a/b"));
        let mut out = Vec::new();
        match source.open(&blob, from) {
            Ok(reader) => reader.unwrap().read_to_end(&mut out).map(|_| out),
            Err(error) => Err(error),
        }
    };
    let check = |error: io::Error, fault: &Fault, part: &str| {
        let text = error.to_string();
        assert!(
            text.contains(&blob.digest.to_string())
                && text.contains(&fault.host)
                && text.contains(part),
            "{text} must name the blob, the place and {part:?}"
        );
    };
    let all = bytes.clone();
    let fault = Fault::start(move |_, _| answer(200, &[], &[all.as_slice(), b"x"].concat()));
    check(open(&fault, 0).unwrap_err(), &fault, "1001");
    let all = bytes.clone();
    let fault = Fault::start(move |_, _| {
        let mut answer = answer(200, &[("Transfer-Encoding", "chunked"), ("X", "y")], b"");
        let head = String::from_utf8(answer.bytes)
            .unwrap()
            .replace("Content-Length: 0\r\n", "");
        answer.bytes = [
            head.as_bytes(),
            b"3e9\r\n",
            all.as_slice(),
            b"x\r\n0\r\n\r\n",
        ]
        .concat();
        answer
    });
    check(open(&fault, 0).unwrap_err(), &fault, "more");
    for range in [
        "bytes 499-999/1000",
        "bytes 500-999/2000",
        "bytes 500-899/1000",
        "none",
    ] {
        let all = bytes.clone();
        let fault = Fault::start(move |_, _| answer(206, &[("Content-Range", range)], &all[500..]));
        check(open(&fault, 500).unwrap_err(), &fault, range);
    }
    let all = bytes.clone();
    let fault = Fault::start(move |_, _| {
        answer(206, &[("Content-Range", "bytes 500-999/1000")], &all[500..])
    });
    assert_eq!(
        open(&fault, 500).unwrap(),
        bytes[500..],
        "the right range is taken"
    );
}

#[test]
fn a_mirror_that_fails_or_lacks_it_makes_way_for_the_next() {
    let bytes = noise(5000);
    let blob = Blob::of(&bytes);
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
    let about = Blob::of(&manifest);
    let serve = |body: Vec<u8>, manifest: Vec<u8>| {
        move |seen: &Seen, _: usize| {
            if seen.path.contains("/blobs/") {
                answer(200, &[], &body)
            } else {
                answer(200, &[("Content-Type", OCI_INDEX)], &manifest)
            }
        }
    };
    let absent = Fault::start(|_, _| answer(404, &[], b""));
    let broken = Fault::start(|_, _| answer(500, &[], b""));
    let half = {
        let all = bytes.clone();
        Fault::start(move |seen, _| {
            if seen.path.contains("/blobs/") {
                closing(answer(200, &[("Content-Length", "5000")], &all[..2000]))
            } else {
                answer(200, &[], b"not the manifest")
            }
        })
    };
    let good = {
        let all = bytes.clone();
        let manifest = manifest.clone();
        Fault::start(move |seen, number| {
            if let Some(start) = seen.header("range").strip_prefix("bytes=") {
                let start: usize = start.trim_end_matches('-').parse().unwrap();
                let range = format!("bytes {start}-4999/5000");
                return answer(206, &[("Content-Range", &range)], &all[start..]);
            }
            serve(all.clone(), manifest.clone())(seen, number)
        })
    };
    let conf = format!(
        "[[registry]]\nlocation = \"up.test/stream\"\nblocked = true\n{}",
        [&absent, &broken, &half, &good]
            .map(|fault| format!(
                "[[registry.mirror]]\nlocation = \"{}/here\"\ninsecure = true\n",
                fault.host
            ))
            .concat()
    );
    let registries = Registries::parse(&conf, Path::new("registries.conf")).unwrap();
    let settings = Settings {
        registries,
        ..quick(&[])
    };
    let client = Client::new(settings).unwrap();
    let source = repository("up.test/stream/x");
    let memory = Memory::default();
    transfer(&client.blobs(&source), &memory, &blob, &|_| ()).unwrap();
    assert_eq!(
        good.seen.lock().unwrap()[0].header("range"),
        "bytes=2000-",
        "the next mirror goes on where the last one broke"
    );
    transfer(&client.manifests(&source), &memory, &about, &|_| ()).unwrap();
    assert_eq!(
        client
            .resolve(&source.clone().with_digest(about.digest))
            .unwrap()
            .unwrap()
            .bytes,
        manifest,
        "wrong bytes make way too"
    );
    assert_eq!(
        good.seen("GET", "/v2/here/x/"),
        3,
        "asked by its name there"
    );

    let error = client.direct().tags(&source).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Blocked { .. }),
        "a direct client asks no mirror: {error:?}"
    );
    assert_eq!(
        broken.seen("GET", "/blobs/"),
        2,
        "a mirror with others behind it is not waited for long"
    );

    let conf = "[[registry]]\nlocation = \"up.test\"\nblocked = true\n";
    let settings = Settings {
        registries: Registries::parse(conf, Path::new("registries.conf")).unwrap(),
        ..quick(&[])
    };
    let client = Client::new(settings).unwrap();
    let error = client.tags(&source).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Blocked { .. })
            && error.to_string().contains("\"up.test\" in registries.conf"),
        "{error}"
    );
    let error = client.push(&source).unwrap_err();
    assert!(matches!(&error, RegistryError::Blocked { .. }), "{error}");
}

/// A registry with a token service: tokens `t1`, `t2`, … of which only those in `valid` are taken.
fn with_tokens(
    life: u64,
    valid: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> (Fault, Arc<AtomicUsize>) {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = issued.clone();
    let fault = Fault::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            std::thread::sleep(Duration::from_millis(20));
            let body = format!(r#"{{"token":"t{number}","expires_in":{life}}}"#);
            return answer(
                200,
                &[("Content-Type", "application/json")],
                body.as_bytes(),
            );
        }
        let token = seen.header("authorization").strip_prefix("Bearer ");
        if token.is_some_and(&valid) {
            answer(200, &[], br#"{"tags":["x"]}"#)
        } else {
            let challenge = format!(
                "Bearer realm=\"http://{}/token\",service=\"svc\",scope=\"repository:a:pull\"",
                seen.header("host")
            );
            answer(401, &[("WWW-Authenticate", &challenge)], b"")
        }
    });
    (fault, issued)
}

#[test]
fn one_token_serves_sixteen_threads() {
    let (fault, issued) = with_tokens(300, |_| true);
    let client = fault.client();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..4 {
                    client.tags(&fault.repository("a")).unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(issued.load(Ordering::SeqCst), 1, "one token for all");
    assert_eq!(client.requests().tokens, 1, "and counted as one");
    assert_eq!(client.requests().errors, 1, "the challenge is met once");
    assert_eq!(
        fault.seen("GET", "/v2/"),
        65,
        "64 requests and the first 401; no ping"
    );
    let log = fault.seen.lock().unwrap();
    let token = log
        .iter()
        .find(|seen| seen.path.starts_with("/token"))
        .unwrap();
    assert_eq!(
        token.path, "/token?service=svc&scope=repository%3Aa%3Apull",
        "the token is asked for what is needed"
    );
}

#[test]
fn a_token_that_ends_or_is_refused_is_renewed_within_bounds() {
    let (fault, issued) = with_tokens(300, |token| token != "t1");
    let client = fault.client();
    client.tags(&fault.repository("a")).unwrap().unwrap();
    assert_eq!(
        issued.load(Ordering::SeqCst),
        2,
        "a refused token is renewed"
    );
    client.tags(&fault.repository("a")).unwrap().unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 2, "and the new one kept");

    let (fault, issued) = with_tokens(300, |_| false);
    let error = fault.client().tags(&fault.repository("a")).unwrap_err();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error:?}"
    );
    assert_eq!(issued.load(Ordering::SeqCst), 3, "but only twice");

    let (fault, issued) = with_tokens(1, |_| true);
    let client = fault.client();
    client.tags(&fault.repository("a")).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    client.tags(&fault.repository("a")).unwrap().unwrap();
    assert_eq!(
        issued.load(Ordering::SeqCst),
        2,
        "a token that ended is renewed"
    );
    assert_eq!(client.requests().errors, 1, "before it is refused");
}

#[test]
fn a_mount_asks_for_both_repositories() {
    let (fault, _) = with_tokens(300, |_| true);
    let client = fault.client();
    let push = client.push(&fault.repository("to/here")).unwrap();
    // Answered with 200, which is no answer to a mount.
    let _ = push.mount(&Blob::of(b"x"), "from/there");
    let log = fault.seen.lock().unwrap();
    let token = log
        .iter()
        .find(|seen| seen.path.starts_with("/token"))
        .unwrap();
    assert_eq!(
        token.path,
        "/token?service=svc&scope=repository%3Afrom%2Fthere%3Apull&scope=repository%3Ato%2Fhere%3Apull%2Cpush",
        "both scopes"
    );
}

#[test]
fn an_identity_token_is_exchanged() {
    let issued = Fault::start(|seen, _| {
        if seen.path.starts_with("/token") {
            let body = String::from_utf8(seen.body.clone()).unwrap();
            assert!(
                seen.method == "POST"
                    && body.contains("grant_type=refresh_token")
                    && body.contains("refresh_token=refresh")
                    && body.contains("scope=repository%3Aa%3Apull"),
                "{body}"
            );
            return answer(200, &[], br#"{"access_token":"good"}"#);
        }
        if seen.header("authorization") == "Bearer good" {
            answer(200, &[], br#"{"tags":null}"#)
        } else {
            let challenge = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
            answer(401, &[("WWW-Authenticate", &challenge)], b"")
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    fs::write(
        &path,
        format!(
            r#"{{"auths":{{"{}":{{"identitytoken":"refresh"}}}}}}"#,
            issued.host
        ),
    )
    .unwrap();
    let mut settings = quick(&[&issued.host]);
    settings.credentials = Credentials::find(
        &Environment::default(),
        Some(&path),
        vec!["containers-auth.json".to_owned()],
    )
    .unwrap();
    let client = Client::new(settings).unwrap();
    assert_eq!(
        client.tags(&issued.repository("a")).unwrap(),
        Some(Vec::new()),
        "no tags are no error"
    );
}

#[test]
fn a_redirect_is_followed_without_our_credentials() {
    let bytes = noise(300);
    let blob = Blob::of(&bytes);
    let away = {
        let bytes = bytes.clone();
        Fault::start(move |seen, _| {
            assert_eq!(
                seen.header("authorization"),
                "",
                "no credentials for others"
            );
            answer(200, &[], &bytes)
        })
    };
    let target = format!("http://{}/signed?secret=1", away.host);
    let home = Fault::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            return answer(200, &[], br#"{"token":"t"}"#);
        }
        if seen.header("authorization").is_empty() {
            let challenge = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
            return answer(401, &[("WWW-Authenticate", &challenge)], b"");
        }
        answer(307, &[("Location", &target)], b"")
    });
    let client = Client::new(quick(&[&home.host, &away.host])).unwrap();
    transfer(
        &client.blobs(&home.repository("a")),
        &Memory::default(),
        &blob,
        &|_| (),
    )
    .unwrap();
    assert_eq!(client.requests().redirected, 1, "one redirect");
    assert_eq!(away.seen("GET", "/signed"), 1, "followed");

    let round = Fault::start(|_, _| answer(302, &[("Location", "/v2/again")], b""));
    let error = round.client().tags(&round.repository("a")).unwrap_err();
    assert!(
        error.to_string().contains("at most 10 redirects"),
        "{error}"
    );
}

#[test]
fn plain_http_is_spoken_only_where_it_is_allowed() {
    let fault = Fault::start(|_, _| answer(200, &[], br#"{"tags":["x"]}"#));
    let strict = Client::new(quick(&[])).unwrap();
    let error = strict.tags(&fault.repository("a")).unwrap_err();
    assert!(
        matches!(
            &error,
            RegistryError::Tls {
                problem: TlsProblem::PlainHttp,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        crate::hint::Hint::hint(&error)
            .unwrap()
            .contains("insecure"),
        "the hint says what to do"
    );
    assert_eq!(fault.seen("GET", ""), 0, "nothing went out in the clear");
    let client = fault.client();
    for _ in 0..3 {
        client.tags(&fault.repository("a")).unwrap().unwrap();
    }
    assert_eq!(
        client.requests().tags,
        4,
        "TLS is tried once, and what works is remembered"
    );
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let client = Client::new(quick(&[])).unwrap();
    let error = client
        .tags(&repository(&format!("127.0.0.1:{port}/a")))
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::Refused { .. }) && error.is_temporary(),
        "{error:?}"
    );
    let error = client.tags(&repository("registry.invalid/a")).unwrap_err();
    assert!(
        matches!(&error, RegistryError::UnknownHost { .. })
            && error.to_string().contains("\"registry.invalid\""),
        "{error:?}"
    );
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let fault = Fault::start(|_, number| {
        if number > 1 {
            std::thread::sleep(Duration::from_secs(2));
        }
        answer(200, &[("Content-Length", "5")], b"he")
    });
    let mut settings = quick(&[&fault.host]);
    settings.idle_timeout = Duration::from_millis(100);
    settings.connect_timeout = Duration::from_millis(100);
    settings.retry.attempts = 2;
    let client = Client::new(settings).unwrap();
    let error = transfer(
        &client.blobs(&fault.repository("a")),
        &Memory::default(),
        &Blob::of(b"hello"),
        &|_| (),
    )
    .unwrap_err();
    let TransferError::Io { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(
            RegistryError::in_error(&source),
            Some(RegistryError::Timeout { .. })
        ),
        "{source:?}"
    );
}

#[test]
fn a_manifest_that_lies_or_is_old_is_refused_by_name() {
    let body = br#"{"schemaVersion":2,"manifests":[]}"#;
    let other = Digest::of(b"other").to_string();
    let fault = Fault::start({
        let other = other.clone();
        move |_, _| {
            answer(
                200,
                &[
                    ("Docker-Content-Digest", &other),
                    ("Content-Type", OCI_INDEX),
                ],
                body,
            )
        }
    });
    let tag = |fault: &Fault| fault.repository("a").with_tag("x".parse().unwrap());
    let error = fault.client().resolve(&tag(&fault)).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Damaged { .. }) && error.to_string().contains(&other),
        "{error}"
    );
    let old = Fault::start(|_, _| {
        answer(
            200,
            &[(
                "Content-Type",
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
            )],
            br#"{"schemaVersion":1}"#,
        )
    });
    let error = old.client().resolve(&tag(&old)).unwrap_err();
    let RegistryError::Manifest { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("schema 1"), "{source}");
    let huge = Fault::start(|_, _| answer(200, &[("Content-Length", "5000000")], b""));
    let error = huge.client().resolve(&tag(&huge)).unwrap_err();
    assert!(
        error.to_string().contains("at most 4194304 bytes"),
        "{error}"
    );
    let accept = huge.seen.lock().unwrap()[0].header("accept").to_owned();
    for media_type in MANIFEST_TYPES {
        assert!(accept.contains(media_type), "{media_type} must be accepted");
    }
}

#[test]
fn a_list_is_followed_page_by_page() {
    let fault = Fault::start(|seen, _| {
        let (link, body) = match seen.path.split("last=").nth(1) {
            None => (
                "</v2/a/tags/list?n=1000&last=b>; rel=\"next\"",
                r#"{"tags":["b","a"]}"#,
            ),
            Some("b") => ("<?last=d>; rel=next", r#"{"tags":["c","d"]}"#),
            _ => ("", r#"{"tags":["e"]}"#),
        };
        answer(200, &[("Link", link)], body.as_bytes())
    });
    let tags = fault
        .client()
        .tags(&fault.repository("a"))
        .unwrap()
        .unwrap();
    assert_eq!(
        tags.iter().map(Tag::as_str).collect::<String>(),
        "abcde",
        "all pages, sorted"
    );
    let astray = Fault::start(|_, _| {
        answer(
            200,
            &[("Link", "<http://other.test/x>; rel=\"next\"")],
            br#"{"tags":[]}"#,
        )
    });
    let error = astray.client().tags(&astray.repository("a")).unwrap_err();
    assert!(error.to_string().contains("other.test"), "{error}");
}

#[test]
fn referrers_come_from_the_api_where_there_is_one() {
    let one = descriptor(OCI_MANIFEST, Digest::of(b"1"), 1);
    let body = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [one]});
    let fault = Fault::start(move |seen, _| {
        if seen.path.contains("/referrers/") {
            answer(
                200,
                &[("Content-Type", OCI_INDEX)],
                body.to_string().as_bytes(),
            )
        } else {
            answer(404, &[], b"")
        }
    });
    assert_eq!(
        fault
            .client()
            .referrers(&fault.repository("a"), Digest::of(b"x"))
            .unwrap(),
        [one],
        "the API is believed"
    );
    let odd = Fault::start(|seen, _| {
        if seen.path.contains("/referrers/") {
            answer(
                200,
                &[("Content-Type", "text/html")],
                b"<html>welcome</html>",
            )
        } else {
            answer(404, &[], b"")
        }
    });
    assert_eq!(
        odd.client()
            .referrers(&odd.repository("a"), Digest::of(b"x"))
            .unwrap(),
        [],
        "a page of its own is no list"
    );
    assert_eq!(
        odd.seen("GET", "/manifests/sha256-"),
        1,
        "then the tag is asked"
    );
}

/// A registry that takes uploads only in pieces, or breaks them.
struct Pieces {
    least: &'static str,
    refuse: (u16, &'static [u8]),
    breaks: AtomicUsize,
    got: Mutex<Vec<u8>>,
}

fn with_pieces(pieces: Arc<Pieces>) -> Fault {
    Fault::start(move |seen, _| {
        let mut got = pieces.got.lock().unwrap();
        let range = format!("0-{}", got.len().saturating_sub(1));
        match seen.method.as_str() {
            "HEAD" => answer(404, &[], b""),
            "POST" => {
                got.clear();
                answer(
                    202,
                    &[
                        ("Location", "/up/1?state=a"),
                        ("OCI-Chunk-Min-Length", pieces.least),
                    ],
                    b"",
                )
            }
            "PUT" if !seen.body.is_empty() => answer(pieces.refuse.0, &[], pieces.refuse.1),
            "PUT" => {
                assert!(
                    seen.path
                        .ends_with(&format!("digest=sha256%3A{}", Digest::of(&got).hex())),
                    "{} must name what came",
                    seen.path
                );
                answer(201, &[], b"")
            }
            "PATCH" => {
                let (first, last) = seen.header("content-range").split_once('-').unwrap();
                assert_eq!(
                    (
                        first.parse::<usize>().unwrap(),
                        last.parse::<usize>().unwrap() + 1
                    ),
                    (got.len(), got.len() + seen.body.len()),
                    "a piece starts where the last one ended"
                );
                if pieces.breaks.load(Ordering::SeqCst) > 0 {
                    let count = pieces.breaks.fetch_sub(1, Ordering::SeqCst);
                    // The first time some of it is lost, the second time only the answer.
                    let kept = if count == 2 {
                        seen.body.len() / 2
                    } else {
                        seen.body.len()
                    };
                    got.extend_from_slice(&seen.body[..kept]);
                    return Answer {
                        bytes: Vec::new(),
                        close: true,
                    };
                }
                got.extend_from_slice(&seen.body);
                answer(202, &[("Location", "/up/1?state=b")], b"")
            }
            "GET" => answer(
                204,
                &[("Location", "/up/1?state=c"), ("Range", &range)],
                b"",
            ),
            other => panic!("{other} {}", seen.path),
        }
    })
}

#[test]
fn an_upload_goes_in_pieces_where_the_registry_wants_that() {
    for (refuse, size) in [
        ((405, &b""[..]), 500_000),
        ((416, b""), 500_000),
        ((202, b""), 3 << 20),
        ((400, br#"{"errors":[{"code":"UNSUPPORTED"}]}"#), 20 << 20),
        ((405, b""), 16 << 20),
    ] {
        let pieces = Arc::new(Pieces {
            least: "1000000",
            refuse,
            breaks: AtomicUsize::new(2),
            got: Mutex::default(),
        });
        let fault = with_pieces(pieces.clone());
        let client = fault.client();
        let memory = Memory::default();
        let bytes = noise(size);
        let blob = memory.insert(&bytes);
        let push = client.push(&fault.repository("a")).unwrap();
        assert_eq!(
            push.send(&memory, &blob, Try::Ask(None), &|_| ()).unwrap(),
            Sent::Uploaded(blob.size),
            "{refuse:?}"
        );
        assert!(*pieces.got.lock().unwrap() == bytes, "all of it, in order");
        let refused = fault.seen.lock().unwrap();
        let whole = refused
            .iter()
            .filter(|seen| seen.method == "PUT" && !seen.body.is_empty())
            .count();
        assert_eq!(whole, 1, "the refusal is remembered");
    }
}

#[test]
fn an_upload_that_breaks_is_made_again() {
    for size in [1000, 3 << 20] {
        let tries = AtomicUsize::new(0);
        let bytes = noise(size);
        let expected = bytes.clone();
        let fault = Fault::start(move |seen, _| match seen.method.as_str() {
            "HEAD" => answer(404, &[], b""),
            "POST" => answer(202, &[("Location", "/up/1")], b""),
            "PUT" if tries.fetch_add(1, Ordering::SeqCst) < 2 => Answer {
                bytes: Vec::new(),
                close: true,
            },
            _ => {
                assert!(seen.body == expected, "all of it again");
                answer(201, &[], b"")
            }
        });
        let memory = Memory::default();
        let blob = memory.insert(&bytes);
        fault
            .client()
            .push(&fault.repository("a"))
            .unwrap()
            .send(&memory, &blob, Try::Ask(None), &|_| ())
            .unwrap();
        assert_eq!(fault.seen("PUT", "/up/1"), 3, "twice in vain");
    }
}

#[test]
fn a_registry_that_names_another_digest_for_a_manifest_is_caught() {
    let other = Digest::of(b"other").to_string();
    let fault = Fault::start(move |_, _| answer(201, &[("Docker-Content-Digest", &other)], b""));
    let error = fault
        .client()
        .push(&fault.repository("a"))
        .unwrap()
        .put_manifest(b"{}", OCI_MANIFEST, None)
        .unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_plain_file_is_got_with_its_tag_and_within_its_limit() {
    let fault = Fault::start(|seen, _| match seen.path.as_str() {
        "/moved/graph?channel=x" => {
            if seen.header("if-none-match") == "\"1\"" {
                answer(304, &[("ETag", "\"1\"")], b"")
            } else {
                assert_eq!(seen.header("accept"), "application/json", "as asked");
                answer(
                    200,
                    &[("ETag", "\"1\""), ("Content-Type", "application/json")],
                    b"{}",
                )
            }
        }
        "/private" => {
            // user:p@ss
            if seen.header("authorization") == "Basic dXNlcjpwQHNz" {
                answer(200, &[], b"yours")
            } else {
                answer(401, &[("WWW-Authenticate", "Basic")], b"")
            }
        }
        _ => answer(404, &[], b"gone"),
    });
    let mut settings = quick(&[]);
    settings.rewrites = [(
        "https://up.test".to_owned(),
        format!("http://{}/moved", fault.host),
    )]
    .into();
    let client = Client::new(settings).unwrap();
    let mut options = GetOptions {
        accept: Some("application/json".to_owned()),
        limit: Some(2),
        ..GetOptions::default()
    };
    let mut got = client
        .get("https://up.test/graph?channel=x", &options)
        .unwrap();
    let mut body = String::new();
    got.body.read_to_string(&mut body).unwrap();
    assert_eq!(
        (got.status, got.etag.as_deref(), got.length, body.as_str()),
        (200, Some("\"1\""), Some(2), "{}"),
        "the file"
    );
    options.if_none_match = got.etag;
    let got = client
        .get("https://up.test/graph?channel=x", &options)
        .unwrap();
    assert_eq!(got.status, 304, "nothing new");
    options = GetOptions {
        limit: Some(1),
        accept: Some("application/json".to_owned()),
        ..GetOptions::default()
    };
    let error = client
        .get("https://up.test/graph?channel=x", &options)
        .unwrap_err();
    assert!(error.to_string().contains("at most 1 bytes"), "{error}");
    let plain = GetOptions::default();
    assert_eq!(
        client
            .get(&format!("http://{}/none", fault.host), &plain)
            .unwrap()
            .status,
        404,
        "absent is a status"
    );
    let error = client
        .get(&format!("http://user:wrong@{}/private", fault.host), &plain)
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::Unauthorized { .. })
            && !format!("{error} {error:?}").contains("wrong"),
        "{error:?}"
    );
    let mut got = client
        .get(
            &format!("http://user:p%40ss@{}/private", fault.host),
            &plain,
        )
        .unwrap();
    body.clear();
    got.body.read_to_string(&mut body).unwrap();
    assert_eq!(body, "yours", "with the user and password of the URL");
    for url in ["ftp://a.test/x", "no url", "http://"] {
        let error = client.get(url, &plain).unwrap_err();
        assert!(
            matches!(&error, RegistryError::Url { .. }),
            "{url}: {error:?}"
        );
    }
    let one = client.file(
        &format!("http://{}/private", fault.host),
        Some(("user".to_owned(), Secret::new("p@ss"))),
    );
    transfer(&one, &Memory::default(), &Blob::of(b"yours"), &|_| ()).unwrap();
}

#[test]
fn a_foreign_layer_is_taken_from_the_first_url_that_has_it() {
    let fault = Fault::start(|seen, _| match seen.path.as_str() {
        "/here" => answer(200, &[], b"layer"),
        _ => answer(404, &[], b""),
    });
    let client = Client::new(quick(&[])).unwrap();
    let url = |path: &str| format!("http://{}/{path}", fault.host);
    let memory = Memory::default();
    let blob = Blob::of(b"layer");
    transfer(
        &client.urls(vec![url("none"), url("here"), url("never")]),
        &memory,
        &blob,
        &|_| (),
    )
    .unwrap();
    assert_eq!(fault.seen("GET", "/never"), 0, "the first is enough");
    assert!(
        client
            .urls(vec![url("none")])
            .open(&blob, 0)
            .unwrap()
            .is_none(),
        "none has it"
    );
}

#[test]
fn a_host_is_asked_by_no_more_connections_than_it_may() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (current, peak) = (now.clone(), most.clone());
    let fault = Fault::start(move |_, _| {
        let count = current.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(count, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        current.fetch_sub(1, Ordering::SeqCst);
        answer(200, &[], br#"{"tags":[]}"#)
    });
    let mut settings = quick(&[&fault.host]);
    settings.host_limits.insert(
        fault.host.clone(),
        Limits {
            connections: 3,
            requests_per_second: None,
        },
    );
    let client = Client::new(settings).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| client.tags(&fault.repository("a")).unwrap());
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3, "at most three at once");
}

#[test]
fn settings_are_read_from_what_an_environment_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    write(
        "home/.docker/config.json",
        r#"{"auths":{"a.test":{"auth":"dTpw"}}}"#,
    );
    let conf = write(
        "r.conf",
        "[[registry]]\nlocation = \"b.test\"\nblocked = true\n",
    );
    let environment = Environment {
        variables: [
            ("HOME", folder.path().join("home").display().to_string()),
            ("HTTPS_PROXY", "http://proxy.test:3128".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        root: folder.path().to_owned(),
        ..Environment::default()
    };
    let settings = Settings::from_environment(
        &environment,
        &Files {
            registries: Some(conf),
            insecure: ["c.test".to_owned()].into(),
            ..Files::default()
        },
    )
    .unwrap();
    assert!(
        settings.credentials.login("a.test", "x").unwrap().is_some(),
        "credentials"
    );
    assert!(
        settings
            .registries
            .destination(&repository("b.test/x"))
            .blocked
            .is_some(),
        "registries.conf"
    );
    assert!(
        settings.proxies.of(true, "a.test", 443).is_some(),
        "proxies"
    );
    assert!(settings.insecure.contains("c.test"), "what was told");
    assert!(
        !format!("{settings:?}").contains("dTpw"),
        "and nothing secret is shown"
    );
    let error = Settings::from_environment(
        &environment,
        &Files {
            rewrites: [("a".to_owned(), "b".to_owned())].into(),
            ..Files::default()
        },
    )
    .unwrap_err();
    assert!(error.to_string().contains("rewrite"), "{error}");
}

#[test]
fn a_proxy_is_asked_for_what_is_not_exempt() {
    let proxy = Fault::start(|seen, _| {
        if seen.method == "CONNECT" {
            return closing(answer(403, &[], b""));
        }
        // user:secret
        assert_eq!(
            seen.header("proxy-authorization"),
            "Basic dXNlcjpzZWNyZXQ=",
            "the proxy learns who asks"
        );
        answer(200, &[], seen.path.as_bytes())
    });
    let url = format!("http://user:secret@{}", proxy.host);
    let environment = Environment {
        variables: [("http_proxy", url.clone()), ("https_proxy", url)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Environment::default()
    };
    let mut settings = quick(&[]);
    settings.proxies = crate::registry::settings::Proxies::find(&environment).unwrap();
    settings.retry.attempts = 1;
    let client = Client::new(settings).unwrap();
    let mut got = client
        .get("http://up.test/x?y=1", &GetOptions::default())
        .unwrap();
    let mut body = String::new();
    got.body.read_to_string(&mut body).unwrap();
    assert_eq!(
        body, "http://up.test/x?y=1",
        "the whole URL goes to the proxy"
    );
    let error = client.tags(&repository("up.test/a")).unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("secret"),
        "{error:?} must not show the password of the proxy"
    );
    assert_eq!(
        proxy.seen("CONNECT", "up.test:443"),
        1,
        "TLS goes through a tunnel"
    );
}

#[test]
fn an_upload_is_not_led_into_the_clear() {
    let away = Fault::start(|_, _| answer(201, &[], b""));
    let target = format!("http://{}/up", away.host);
    let home = Fault::start(move |seen, _| match seen.method.as_str() {
        "POST" => answer(202, &[("Location", &target)], b""),
        _ => answer(404, &[], b""),
    });
    let memory = Memory::default();
    let blob = memory.insert(b"x");
    let push = home.client().push(&home.repository("a")).unwrap();
    let error = push
        .send(&memory, &blob, Try::Ask(None), &|_| ())
        .unwrap_err();
    let TransferError::Io { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        source.to_string().contains("a Location over https"),
        "{source}"
    );
    assert_eq!(away.seen("PUT", ""), 0, "nothing went there");
}

#[test]
fn a_client_that_is_stopped_waits_for_nothing() {
    let fault = Fault::start(|_, _| answer(503, &[("Retry-After", "4")], b""));
    let client = fault.client();
    let error = std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.tags(&fault.repository("a")).unwrap_err());
        while fault.seen("GET", "/tags/") == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        client.stop();
        asking.join().unwrap()
    });
    assert!(matches!(error, RegistryError::Stopped), "{error:?}");
    assert_eq!(fault.seen("GET", "/tags/"), 1, "nor asks again");
    let error = client.clone().tags(&fault.repository("a")).unwrap_err();
    assert!(
        matches!(error, RegistryError::Stopped) && !error.is_temporary(),
        "nor starts anything new: {error:?}"
    );
}
