//! The pages that people open: readable on a phone and on a desk, in light and dark, without an error, in a real browser.
//!
//! Chromium opens each page in frames of both widths and looks at it as a reader would: whether anything stands out to
//! the right, and whether every text differs enough from what is behind it (WCAG 2.2, 1.4.3). Where there is no
//! Chromium the tests skip, and say so.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use imgbuild::digest::Digest;
use imgbuild::plan::graph::{Plan, Root};
use imgbuild::plan::page;
use imgbuild::reference::Repository;
use imgbuild::step::{Content as Kind, Fetch, Origin};
use imgbuild::store::Blob;

use crate::site::content::{Content, many};
use crate::site::{Connected, folder};

/// What opens the page in frames, looks, and writes down what it saw.
const HARNESS: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const seen = { scheme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light', problems: [], looked: 0 };
const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
const parse = text => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
function ground(element, view) {
  for (let at = element; at; at = at.parentElement) {
    const c = parse(view.getComputedStyle(at).backgroundColor);
    if (c[3] > 0) return c;
  }
  const follows = view.getComputedStyle(element.ownerDocument.documentElement).colorScheme.includes('dark');
  return seen.scheme === 'dark' && follows ? [18, 18, 18, 1] : [255, 255, 255, 1];
}
function look(frame, width) {
  const doc = frame.contentDocument, view = frame.contentWindow;
  for (const one of doc.querySelectorAll('details')) one.open = true;
  const root = doc.documentElement;
  if (root.scrollWidth > width) seen.problems.push(width + ': the page is ' + root.scrollWidth + ' wide');
  const pairs = new Set();
  for (const element of [...doc.body.querySelectorAll('*')].slice(0, 4000)) {
    const text = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!text || ['STYLE', 'SCRIPT', 'OPTION', 'TITLE'].includes(element.tagName) || element.closest('[hidden]')) continue;
    seen.looked++;
    const style = view.getComputedStyle(element);
    const ink = parse(style.color), behind = ground(element, view);
    const [a, b] = [light(ink), light(behind)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) pairs.add(style.color + ' on ' + behind + ' (' + ratio.toFixed(1) + ')');
    if (parseFloat(style.fontSize) < 10) pairs.add('a text of ' + style.fontSize);
  }
  for (const pair of pairs) seen.problems.push(width + ': ' + pair);
}
const widths = [375, 1440];
let open = widths.length;
for (const width of widths) {
  const frame = document.createElement('iframe');
  frame.style.cssText = 'border:0;height:900px;width:' + width + 'px';
  frame.onload = () => {
    try { look(frame, width); } catch (error) { seen.problems.push(String(error)); }
    if (!--open) { const out = document.createElement('pre'); out.id = 'seen'; out.textContent = 'SEEN' + JSON.stringify(seen) + 'NEES'; document.body.append(out); }
  };
  frame.src = 'page.html';
  document.body.append(frame);
}
</script>"#;

/// Chromium, if it is installed.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
        })
        .find(|path| path.is_file())
}

/// Opens a page in both schemes; everything that is wrong with it.
fn problems(chromium: &Path, page: &str) -> Vec<String> {
    let room = folder("page");
    fs::write(room.path().join("page.html"), page).unwrap();
    fs::write(room.path().join("harness.html"), HARNESS).unwrap();
    let mut found = Vec::new();
    // As blink numbers them.
    for (scheme, number) in [("light", 1), ("dark", 0)] {
        let output = Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-extensions",
            ])
            .args([
                "--allow-file-access-from-files",
                "--disable-web-security",
                "--enable-logging=stderr",
            ])
            .arg(format!("--blink-settings=preferredColorScheme={number}"))
            .arg(format!(
                "--user-data-dir={}",
                room.path().join(scheme).display()
            ))
            .args([
                "--window-size=1500,1000",
                "--virtual-time-budget=60000",
                "--dump-dom",
            ])
            .arg(format!(
                "file://{}",
                room.path().join("harness.html").display()
            ))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        found.extend(
            log.lines()
                .filter(|line| line.contains("CONSOLE"))
                .map(|line| format!("{scheme}: {line}")),
        );
        let dom = String::from_utf8_lossy(&output.stdout);
        let seen = dom
            .rsplit_once("SEEN")
            .and_then(|(_, rest)| rest.split_once("NEES"))
            .unwrap_or_else(|| panic!("the page was not seen:\n{dom}\n{log}"))
            .0
            .replace("&gt;", ">")
            .replace("&lt;", "<")
            .replace("&amp;", "&");
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(
            seen["scheme"], scheme,
            "the browser shows what was asked for"
        );
        assert!(seen["looked"].as_u64() > Some(4), "there is text: {seen}");
        for problem in seen["problems"].as_array().unwrap() {
            found.push(format!("{scheme}, {}", problem.as_str().unwrap()));
        }
    }
    found
}

/// Opens a page that must be good; it is kept where `IMGBUILD_PAGES` says, for people to look at.
#[track_caller]
fn is_readable(name: &str, page: &str) {
    if let Some(folder) = std::env::var_os("IMGBUILD_PAGES") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(Path::new(&folder).join(format!("{name}.html")), page).unwrap();
    }
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no chromium to open the {name} with");
        return;
    };
    let found = problems(&chromium, page);
    assert!(
        found.is_empty(),
        "the {name} is not readable:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_page_that_is_not_readable_is_found_out() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no chromium");
        return;
    };
    let text = "<p>a text</p>".repeat(6);
    let page = format!(
        "<!doctype html><meta charset=utf-8><style>:root{{color-scheme:light dark}}.a{{width:600px}}.b{{color:#888;background:#999}}</style>{text}<div class=a>wide</div><p class=b>faint</p><script>nothing()</script>"
    );
    let found = problems(&chromium, &page).join("\n");
    for says in ["375: the page is 6", "(1.2)", "nothing is not defined"] {
        assert!(found.contains(says), "{says:?} must be found:\n{found}");
    }
    assert!(
        !found.contains("1440: the page"),
        "it fits a desk:\n{found}"
    );
}

/// A plan of so many images with eight nodes each.
fn plan(images: u64) -> Plan {
    let blob = |text: String, size: u64| Blob {
        digest: Digest::of(text.as_bytes()),
        size,
    };
    let mut roots = Vec::new();
    let mut manifests = Vec::new();
    for image in 0..images {
        let layers: Vec<Value> = (0..6)
            .map(|layer| {
                // Lower layers are shared by more images.
                let group = image / 4_u64.pow(5 - layer);
                let blob = blob(format!("layer {layer} {group}"), 1000 * (u64::from(layer) + 1) * (group % 97 + 1));
                json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob.digest, "size": blob.size })
            })
            .collect();
        let config = blob(format!("config {image}"), 700);
        let bytes = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size },
            "layers": layers,
        }))
        .unwrap();
        let repository: Repository = format!(
            "registry.example.test/a-team-with-a-long-name/an-operator-with-an-even-longer-name-{}/component-{image}",
            image % 9
        )
        .parse()
        .unwrap();
        roots.push(Root {
            owner: format!(
                "package operator-{} in registry.example.test/catalog/index:v4.16",
                image / 12
            ),
            fetch: Fetch {
                blob: Blob::of(&bytes),
                content: Kind::Manifest {
                    media_type: None,
                    platforms: Vec::new(),
                },
                origins: vec![Origin::Repository(repository)],
            },
        });
        manifests.push(bytes);
    }
    let mut plan = Plan::of(roots).unwrap();
    for bytes in manifests {
        plan.read(&Digest::of(&bytes), &bytes).unwrap();
    }
    plan
}

#[test]
fn a_plan_of_five_thousand_nodes_is_readable() {
    let plan = plan(1600);
    let closure = plan.closure().unwrap();
    let nodes = closure.manifests.len() + closure.blobs.len();
    assert!(nodes >= 5000, "{nodes} nodes");
    let old = closure
        .sorted()
        .iter()
        .step_by(3)
        .map(|blob| blob.digest)
        .collect();
    let since = page::Since {
        name: "prod#41",
        blobs: &old,
    };
    is_readable(
        "plan",
        &page::html(&plan, &Digest::of(b"lock"), Some(since)),
    );
}

#[test]
fn approval_papers_and_the_front_of_a_registry_are_readable() {
    let upstream = Content::default();
    many(&upstream, 30, 500);
    let registry = upstream.served();
    let site = Connected::to(&registry);
    site.wants(upstream.names());
    site.lock();
    site.export("out", "");
    site.imgbuild("dossier 1 -o papers").done();
    let paper = site
        .names("papers")
        .into_iter()
        .find(|name| Path::new(name).extension().is_some_and(|end| end == "html"))
        .expect("there is a page among the papers");
    is_readable("dossier", &site.read(Path::new("papers").join(paper)));

    let mut stream = TcpStream::connect(registry.address()).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
        registry.address()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    is_readable("registry", body);
}
