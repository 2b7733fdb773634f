//! The plan as a page to look at, and as a Mermaid diagram: the graph collapsed by who asked.
//!
//! [`html`] is one file that needs nothing else: no network, no library, no script to read it (a script only sorts and
//! filters). Every block of the lock is a line with its size; it opens to what hangs below it. [`mermaid`] draws the
//! same with one box per block and one per group of blobs that the same blocks share, for a page that renders it.
//!
//! With [`Since`], what the base does not have is marked new. Bytes are in decimal units, and exact as far as manifests
//! were read; the page says how many were not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::diff::{bytes, plural};
use super::graph::Plan;
use super::why::trace;
use crate::digest::Digest;
use crate::step::Origin;
use crate::store::Blob;

/// Most blocks that a diagram has; a renderer gives up on thousands. The rest is one box.
const BOXES: usize = 60;

/// Most groups of shared blobs that a diagram has.
const GROUPS: usize = 30;

/// What is there already.
#[derive(Clone, Copy, Debug)]
pub struct Since<'a> {
    /// How people call it.
    pub name: &'a str,
    /// What it has.
    pub blobs: &'a BTreeSet<Digest>,
}

/// A blob where a block needs it.
struct Row {
    depth: usize,
    role: String,
    blob: Blob,
}

/// A block, and everything below it.
#[derive(Default)]
struct Owner {
    name: String,
    rows: Vec<Row>,
    blobs: BTreeSet<Blob>,
}

impl Owner {
    fn sum(&self, counts: impl Fn(&Blob) -> bool) -> u64 {
        self.blobs
            .iter()
            .filter(|blob| counts(blob))
            .map(|blob| blob.size)
            .sum()
    }
}

/// What both forms are made from.
struct Summary {
    owners: Vec<Owner>,
    /// The places of the owners that need a blob.
    users: BTreeMap<Blob, BTreeSet<usize>>,
    unread: usize,
}

impl Summary {
    fn of(plan: &Plan) -> Self {
        let mut owners: Vec<Owner> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut users: BTreeMap<Blob, BTreeSet<usize>> = BTreeMap::new();
        for trace in trace(plan, &|_| true) {
            let place = *places.entry(trace.owner.clone()).or_insert_with(|| {
                owners.push(Owner {
                    name: trace.owner.clone(),
                    ..Owner::default()
                });
                owners.len() - 1
            });
            let depth = trace.hops.len();
            let Some(hop) = trace.hops.into_iter().next_back() else {
                continue;
            };
            let role = if depth == 1 {
                origin(plan, &hop.blob).unwrap_or(hop.role)
            } else {
                hop.role
            };
            let owner = &mut owners[place];
            owner.blobs.insert(hop.blob);
            users.entry(hop.blob).or_default().insert(place);
            owner.rows.push(Row {
                depth,
                role,
                blob: hop.blob,
            });
        }
        Self {
            owners,
            users,
            unread: plan.unread().len(),
        }
    }

    fn is_alone(&self, blob: &Blob) -> bool {
        self.users.get(blob).is_some_and(|users| users.len() == 1)
    }

    fn total(&self) -> u64 {
        self.users.keys().map(|blob| blob.size).sum()
    }
}

/// Where a pin comes from.
fn origin(plan: &Plan, blob: &Blob) -> Option<String> {
    let fetch = &plan.get(&blob.digest)?.fetch;
    Some(match fetch.origins.first()? {
        Origin::Repository(repository) => repository.to_string(),
        Origin::Layout(path) => format!("oci://{path}"),
        Origin::Url(url) => url.clone(),
        Origin::Signature(path) => path.clone(),
    })
}

fn is_new(blob: &Blob, since: Option<Since<'_>>) -> bool {
    since.is_some_and(|since| !since.blobs.contains(&blob.digest))
}

/// Text that HTML takes for nothing else, also within quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --panel: #f5f6f8; --ink: #1b1f24; --faint: #5b6470; --line: #d9dee4; --strong: #0b63ce; --weak: #a9c8ef; --new: #1a7f45; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --panel: #1d2127; --ink: #e6e9ed; --faint: #9aa4b0; --line: #333a43; --strong: #5aa2f5; --weak: #2d4a6d; --new: #5cc98a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; }
code, .digest { font-family: ui-monospace, monospace; font-size: .86em; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.figures { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; list-style: none; }
.figures li { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem; min-width: 7rem; flex: 1 1 7rem; }
.figures b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.tools { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; position: sticky; top: 0; background: var(--ground); padding: .5rem 0; z-index: 1; }
.tools input { flex: 1 1 14rem; min-width: 0; }
.tools input, .tools select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .6rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .2em; vertical-align: -.05em; margin-right: .3em; }
.owner { border-bottom: 1px solid var(--line); content-visibility: auto; contain-intrinsic-size: auto 3rem; }
.owner > summary { display: grid; grid-template-columns: minmax(0, 1fr) 8rem 19rem; gap: .2rem 1rem; align-items: center; padding: .5rem .2rem; cursor: pointer; list-style: none; }
.owner > summary::-webkit-details-marker { display: none; }
.owner > summary:hover, .owner[open] > summary { background: var(--panel); }
.owner > summary:focus-visible { outline: 2px solid var(--strong); outline-offset: -2px; }
.name { overflow-wrap: anywhere; padding-left: 1.1em; text-indent: -1.1em; }
.name::before { content: \"\\25b8\"; color: var(--faint); display: inline-block; width: 1.1em; text-indent: 0; }
[open] > summary .name::before { content: \"\\25be\"; }
.bar { display: flex; height: .7rem; border-radius: .35rem; background: var(--panel); overflow: hidden; }
.bar i { display: block; }
.strong { background: var(--strong); } .weak { background: var(--weak); } .new { background: var(--new); }
.sizes { text-align: right; font-variant-numeric: tabular-nums; }
.rows { margin: 0 0 .8rem; padding: 0; list-style: none; font-size: .93em; }
.rows li { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 .7rem; padding: .12rem .2rem .12rem calc(var(--depth) * 1.1rem + .3rem); }
.rows .size { min-width: 5.5em; font-variant-numeric: tabular-nums; }
.mark { color: var(--new); font-weight: 600; }
@media (max-width: 46rem) { .owner > summary { grid-template-columns: minmax(0, 1fr); } .sizes { text-align: left; padding-left: 1.1em; } .bar { margin-left: 1.1em; } }
@media print { .tools { display: none; } }
";

const SCRIPT: &str = "
const list = document.getElementById('owners'), all = [...list.children], note = document.getElementById('shown');
const word = document.getElementById('word'), order = document.getElementById('order');
function show() {
  const text = word.value.toLowerCase(), key = order.value;
  const sorted = key === 'lock' ? all : [...all].sort((a, b) => b.dataset[key] - a.dataset[key]);
  let shown = 0;
  for (const owner of sorted) { const fits = owner.dataset.name.includes(text); owner.hidden = !fits; shown += fits; }
  list.append(...sorted);
  note.textContent = shown === all.length ? '' : shown + ' of ' + all.length;
}
word.addEventListener('input', show); order.addEventListener('change', show);
document.getElementById('tools').hidden = false;
";

/// The plan of the lock called `lock`, as one page.
#[must_use]
pub fn html(plan: &Plan, lock: &Digest, since: Option<Since<'_>>) -> String {
    let summary = Summary::of(plan);
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Mirror plan</title>\n<style>",
    );
    out.push_str(STYLE);
    put(
        &mut out,
        format_args!(
            "</style>\n</head>\n<body>\n<h1>Mirror plan</h1>\n<p class=\"faint\">lock <code>{lock}</code></p>\n<ul class=\"figures\">\n"
        ),
    );
    let shared: u64 = summary
        .users
        .iter()
        .filter(|(_, users)| users.len() > 1)
        .map(|(blob, _)| blob.size)
        .sum();
    let mut figures = vec![
        (
            summary.owners.len().to_string(),
            "blocks of the lock".to_owned(),
        ),
        (
            summary.users.len().to_string(),
            "blobs, each once".to_owned(),
        ),
        (bytes(summary.total()), "in all".to_owned()),
        (bytes(shared), "needed by several blocks".to_owned()),
    ];
    if let Some(since) = since {
        let new: Vec<&Blob> = summary
            .users
            .keys()
            .filter(|blob| is_new(blob, Some(since)))
            .collect();
        let sum = new.iter().map(|blob| blob.size).sum();
        figures.push((
            bytes(sum),
            format!("new since {}, {}", since.name, plural(new.len(), "blob")),
        ));
    }
    for (figure, what) in figures {
        put(
            &mut out,
            format_args!(
                "<li><b>{figure}</b><span class=\"faint\">{}</span></li>\n",
                escaped(&what)
            ),
        );
    }
    out.push_str("</ul>\n");
    if summary.unread > 0 {
        put(
            &mut out,
            format_args!(
                "<p><b>Not complete:</b> {} not read, and what they name is missing here.</p>\n",
                if summary.unread == 1 {
                    "1 manifest is".to_owned()
                } else {
                    format!("{} manifests are", summary.unread)
                }
            ),
        );
    }
    let (key, by_new) = if since.is_some() {
        (
            "<span class=\"key new\"></span>new <span class=\"key weak\"></span>there already",
            "<option value=\"new\">most that is new first</option>",
        )
    } else {
        (
            "<span class=\"key strong\"></span>for this block alone <span class=\"key weak\"></span>shared",
            "",
        )
    };
    put(
        &mut out,
        format_args!(
            "<div class=\"tools\" id=\"tools\" hidden><input id=\"word\" type=\"search\" placeholder=\"Filter by name\" aria-label=\"Filter by name\"><select id=\"order\" aria-label=\"Order\"><option value=\"lock\">in the order of the lock</option><option value=\"bytes\">largest first</option><option value=\"alone\">most alone first</option>{by_new}</select><span class=\"faint\" id=\"shown\" aria-live=\"polite\"></span></div>\n<p class=\"faint\">{key}</p>\n<main id=\"owners\">\n"
        ),
    );
    let widest = summary
        .owners
        .iter()
        .map(|owner| owner.sum(|_| true))
        .max()
        .unwrap_or(0)
        .max(1);
    for owner in &summary.owners {
        owner_html(&summary, owner, widest, since, &mut out);
    }
    out.push_str("</main>\n<script>");
    out.push_str(SCRIPT);
    out.push_str("</script>\n</body>\n</html>\n");
    out
}

/// A share of a bar, in hundredths of a percent: whole numbers, so that every machine writes the same.
fn share(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

fn owner_html(
    summary: &Summary,
    owner: &Owner,
    widest: u64,
    since: Option<Since<'_>>,
    out: &mut String,
) {
    let all = owner.sum(|_| true);
    let alone = owner.sum(|blob| summary.is_alone(blob));
    let new = owner.sum(|blob| is_new(blob, since));
    let (first, class) = if since.is_some() {
        (new, "new")
    } else {
        (alone, "strong")
    };
    put(
        out,
        format_args!(
            "<details class=\"owner\" data-name=\"{}\" data-bytes=\"{all}\" data-alone=\"{alone}\" data-new=\"{new}\"><summary><span class=\"name\">{}</span><span class=\"bar\"><i class=\"{class}\" style=\"width:{}\"></i><i class=\"weak\" style=\"width:{}\"></i></span><span class=\"sizes\">{} <span class=\"faint\">{} alone",
            escaped(&owner.name.to_lowercase()),
            escaped(&owner.name),
            share(first, widest),
            share(all - first, widest),
            bytes(all),
            bytes(alone),
        ),
    );
    if new > 0 {
        put(out, format_args!(", {} new", bytes(new)));
    }
    out.push_str("</span></span></summary>\n<ul class=\"rows\">\n");
    for row in &owner.rows {
        let users = summary.users.get(&row.blob).map_or(0, BTreeSet::len);
        put(
            out,
            format_args!(
                "<li style=\"--depth:{}\"><span>{}</span><span class=\"digest\" title=\"{}\">{}</span><span class=\"size\">{}</span>",
                row.depth,
                escaped(&row.role),
                row.blob.digest,
                &row.blob.digest.hex()[..12],
                bytes(row.blob.size),
            ),
        );
        if is_new(&row.blob, since) {
            out.push_str("<span class=\"mark\">new</span>");
        }
        if users > 1 {
            put(
                out,
                format_args!("<span class=\"faint\">in {users} blocks</span>"),
            );
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ul></details>\n");
}

/// Text within a quoted Mermaid label.
fn label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' | ';' => {
                put(&mut out, format_args!("#{};", u32::from(letter)));
            }
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// The plan of the lock called `lock`, as a Mermaid flowchart: the largest blocks, and the largest groups of blobs that
/// the same blocks share.
#[must_use]
pub fn mermaid(plan: &Plan, lock: &Digest, since: Option<Since<'_>>) -> String {
    let summary = Summary::of(plan);
    let new_of = |sum: u64| match since {
        Some(since) if sum > 0 => {
            format!("<br/>{} new since {}", bytes(sum), label(since.name))
        }
        _ => String::new(),
    };
    let all_new = summary
        .users
        .keys()
        .filter(|blob| is_new(blob, since))
        .map(|blob| blob.size)
        .sum();
    let mut out = String::from("flowchart LR\n");
    put(
        &mut out,
        format_args!(
            "  lock[\"lock {}<br/>{} in {}{}\"]\n",
            &lock.hex()[..12],
            bytes(summary.total()),
            plural(summary.users.len(), "blob"),
            new_of(all_new)
        ),
    );
    let mut largest: Vec<usize> = (0..summary.owners.len()).collect();
    // What is new is what people look for.
    largest.sort_by_key(|place| {
        let owner = &summary.owners[*place];
        let new = owner.sum(|blob| is_new(blob, since));
        (Reverse(new), Reverse(owner.sum(|_| true)), *place)
    });
    let rest = largest.split_off(largest.len().min(BOXES));
    let drawn: BTreeSet<usize> = largest.into_iter().collect();
    for place in &drawn {
        let owner = &summary.owners[*place];
        put(
            &mut out,
            format_args!(
                "  b{place}[\"{}<br/>{}, {} alone{}\"]\n  lock --> b{place}\n",
                label(&owner.name),
                bytes(owner.sum(|_| true)),
                bytes(owner.sum(|blob| summary.is_alone(blob))),
                new_of(owner.sum(|blob| is_new(blob, since)))
            ),
        );
        if since.is_some() && owner.blobs.iter().any(|blob| is_new(blob, since)) {
            put(&mut out, format_args!("  class b{place} new\n"));
        }
    }
    if !rest.is_empty() {
        let blobs: BTreeSet<Blob> = rest
            .iter()
            .flat_map(|place| summary.owners[*place].blobs.iter().copied())
            .collect();
        put(
            &mut out,
            format_args!(
                "  rest[\"{} more<br/>{}\"]\n  lock --> rest\n",
                plural(rest.len(), "block"),
                bytes(blobs.iter().map(|blob| blob.size).sum())
            ),
        );
    }
    let mut groups: BTreeMap<Vec<usize>, (usize, u64)> = BTreeMap::new();
    for (blob, users) in &summary.users {
        let users: Vec<usize> = users.intersection(&drawn).copied().collect();
        if users.len() > 1 {
            let group = groups.entry(users).or_default();
            group.0 += 1;
            group.1 += blob.size;
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(users, (_, size))| (Reverse(*size), users.clone()));
    let dropped = groups.len().saturating_sub(GROUPS);
    groups.truncate(GROUPS);
    for (number, (users, (count, size))) in groups.into_iter().enumerate() {
        put(
            &mut out,
            format_args!(
                "  s{number}([\"shared: {}, {}\"])\n",
                plural(count, "blob"),
                bytes(size)
            ),
        );
        for place in users {
            put(&mut out, format_args!("  b{place} -.-> s{number}\n"));
        }
    }
    if dropped > 0 {
        put(
            &mut out,
            format_args!(
                "  %% {} of shared blobs, smaller ones, are not drawn\n",
                plural(dropped, "group")
            ),
        );
    }
    if since.is_some() {
        out.push_str("  classDef new stroke:#1a7f45,stroke-width:3px\n");
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::graph::Root;
    use crate::step::{Content, Fetch};
    use serde_json::json;

    /// A plan of images, each with one layer of its own and one that all share.
    fn plan(names: &[&str], read: bool) -> Plan {
        let blob = |text: &str| Blob::of(text.as_bytes());
        let layer = |text: &str| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob(text).digest, "size": text.len() });
        let images: Vec<String> = names
            .iter()
            .map(|name| {
                json!({
                    "schemaVersion": 2,
                    "mediaType": crate::oci::OCI_MANIFEST,
                    "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob("{}").digest, "size": 2 },
                    "layers": [layer("what all of them share"), layer(name)],
                })
                .to_string()
            })
            .collect();
        let roots = names
            .iter()
            .zip(&images)
            .map(|(name, image)| Root {
                owner: format!("image {name}"),
                fetch: Fetch {
                    blob: blob(image),
                    content: Content::Manifest {
                        media_type: None,
                        platforms: Vec::new(),
                    },
                    origins: vec![Origin::Layout((*name).to_owned())],
                },
            })
            .collect();
        let mut plan = Plan::of(roots).unwrap();
        for image in images.iter().filter(|_| read) {
            plan.read(&blob(image).digest, image.as_bytes()).unwrap();
        }
        plan
    }

    #[test]
    fn the_page_has_every_blob_under_its_block_and_takes_names_for_text() {
        let hostile = "<script>alert('x')</script>";
        let plan = plan(&["a", hostile], true);
        let lock = Digest::of(b"lock");
        let page = html(&plan, &lock, None);
        assert_eq!(
            page,
            html(&plan, &lock, None),
            "the same plan is the same page"
        );
        assert!(
            page.contains(&lock.to_string()),
            "the page says what it is of"
        );
        assert!(!page.contains("<script>alert"), "a name is never markup");
        for node in plan.nodes() {
            let digest = node.fetch.blob.digest;
            assert!(
                page.contains(&format!("title=\"{digest}\"")),
                "{digest} is on the page"
            );
        }
        assert_eq!(
            page.matches("in 2 blocks").count(),
            4,
            "the layer and the config are shared by both"
        );
        assert!(
            !page.contains("class=\"mark\""),
            "without a base nothing is new"
        );
        assert!(
            !page.contains("http"),
            "the page needs nothing from elsewhere"
        );
    }

    #[test]
    fn what_a_base_lacks_is_new() {
        let plan = plan(&["a", "b"], true);
        let has: BTreeSet<Digest> = plan
            .nodes()
            .map(|node| node.fetch.blob.digest)
            .filter(|digest| *digest != Digest::of(b"b"))
            .collect();
        let since = Since {
            name: "prod seq 3",
            blobs: &has,
        };
        let page = html(&plan, &Digest::of(b"lock"), Some(since));
        assert_eq!(
            page.matches("<span class=\"mark\">new").count(),
            1,
            "one layer is new"
        );
        assert!(
            page.contains("new since prod seq 3, 1 blob<"),
            "and the page says so"
        );
        let chart = mermaid(&plan, &Digest::of(b"lock"), Some(since));
        assert!(
            chart.contains("1 B new since prod seq 3"),
            "so does the diagram:\n{chart}"
        );
        assert_eq!(
            chart.matches("  class b").count(),
            1,
            "one block is marked:\n{chart}"
        );
        assert!(
            chart.contains("shared: 2 blobs, "),
            "what both share is one box:\n{chart}"
        );
    }

    #[test]
    fn what_was_not_read_is_said() {
        let page = html(&plan(&["a", "b"], false), &Digest::of(b"lock"), None);
        assert!(
            page.contains("2 manifests are not read"),
            "an incomplete page must not look whole"
        );
    }

    #[test]
    fn a_diagram_stays_small_and_its_labels_are_text() {
        let names: Vec<String> = (0..200)
            .map(|number| format!("n{number}\"]; x[\""))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chart = mermaid(&plan(&names, true), &Digest::of(b"lock"), None);
        assert!(
            chart.contains("rest[\"140 blocks more"),
            "what is not drawn is counted:\n{chart}"
        );
        assert!(!chart.contains("\"]; x[\""), "a name cannot end its label");
    }
}
