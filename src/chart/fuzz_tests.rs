//! Fuzz targets of everything here that reads what strangers wrote: templates, indexes, YAML, paths, ranges, archives.
//!
//! A case takes files of real charts (`tests/data/charts`, and `../shared/data/helm` where that is) and damages them in
//! one to four ways: characters, pieces of other files, and tokens that readers stumble over. Nothing may panic, and
//! what a chart takes stays below its [`Limits`].
//!
//! The number of a case is its seed. `IMGBUILD_FUZZ` is how many cases each target has (a small number by default), and
//! `IMGBUILD_FUZZ_FROM` the first of them: `IMGBUILD_FUZZ=1 IMGBUILD_FUZZ_FROM=4711 cargo test chart::fuzz` repeats one.
//! Cases are counted rather than timed, so that a run is the same everywhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::jsonpath;
use super::overrides::{Place, overrides};
use super::pack::archive;
use super::semver::{Constraint, Version};
use super::survey::{Wish, survey};
use super::template::parse::parse;
use super::{Chart, Index, Limits, LoadLimits, RenderOptions, find_images, render, yaml};

/// Cases per target unless the environment says otherwise.
const CASES: u64 = 150;

/// Files larger than this are no part of the corpus: a case is about readers, not about sizes.
const LARGEST: usize = 24_000;

fn cases(share: u64) -> Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let first = number("IMGBUILD_FUZZ_FROM").unwrap_or(0);
    let count = number("IMGBUILD_FUZZ").unwrap_or(CASES * share);
    first..first + count
}

/// A generator of numbers (splitmix64): small, and the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end.max(1) as u64)).unwrap()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// What templates stumble over.
const TEMPLATE_TOKENS: [&str; 44] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "{{/*",
    "*/}}",
    "{{ end }}",
    "{{ else }}",
    "{{ if . }}",
    "{{ with $ }}",
    "{{ range $i, $e := . }}",
    "{{ range 99999999 }}",
    "{{ break }}",
    "{{ define \"x\" }}",
    "{{ template \"x\" . }}",
    "{{ include \"x\" . }}",
    "{{ block \"x\" . }}",
    "(",
    ")",
    "|",
    ":=",
    "=",
    "$",
    "$x",
    ".",
    "..",
    ".a.b.c",
    "\"",
    "`",
    "'",
    "\\",
    "0x",
    "1e999",
    "99999999999999999999",
    "-9223372036854775808",
    "nil",
    "{{ repeat 999999999 \"a\" }}",
    "{{ tpl (toYaml .) . }}",
    "{{ printf \"%*d%v%!\" 9 . }}",
    "{{ index . 9 9 }}",
    "{{ slice . 9 1 }}",
    "{{ until -1 }}",
    "{{ regexMatch \"(((((\" . }}",
    "{{ mustToJson $ }}",
];

/// What YAML stumbles over.
const YAML_TOKENS: [&str; 30] = [
    "---",
    "...",
    "- ",
    ": ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!<x> ",
    "|",
    ">-9",
    "|+2",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "#",
    "\t",
    "\u{feff}",
    "\u{0}",
    "0x",
    "1e999",
    "~",
    "\n",
    "\r\n",
    "  ",
];

/// What ranges of versions and paths stumble over.
const WORDS: [&str; 28] = [
    "^",
    "~",
    ">",
    ">=",
    "<",
    "!=",
    "=",
    "||",
    ",",
    " - ",
    "x",
    "*",
    "v",
    ".",
    "-",
    "+",
    "1",
    "0",
    "99999999999999999999",
    "1.2.3",
    "-rc.1",
    "{",
    "}",
    "[*]",
    "[?(@.a==",
    "[-1:]",
    "..",
    "'a'",
];

/// Damages a text in one to four ways; pieces come from `other`.
fn scratch(text: &str, other: &str, tokens: &[&str], dice: &mut Dice) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let other: Vec<char> = other.chars().collect();
    for _ in 0..=dice.below(4) {
        let at = dice.below(letters.len() + 1);
        let end = (at + 1 + dice.below(40)).min(letters.len());
        match dice.below(8) {
            0 => drop(letters.drain(at..end)),
            1 => {
                let copy = letters[at.min(end)..end].to_vec();
                letters.splice(at..at, copy);
            }
            2 => letters.truncate(at),
            3 if at < letters.len() => {
                letters[at] = *dice.of(&[
                    '{',
                    '}',
                    '"',
                    '\\',
                    '\n',
                    ' ',
                    ':',
                    '-',
                    '\u{0}',
                    '\u{1f600}',
                ]);
            }
            4 if !other.is_empty() => {
                let from = dice.below(other.len());
                let to = (from + 1 + dice.below(60)).min(other.len());
                letters.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let token = *dice.of(tokens);
                letters.splice(at..at, token.chars());
            }
        }
    }
    letters.into_iter().collect()
}

/// A chart's files as texts.
type Files = BTreeMap<String, String>;

/// Real charts, without what is no text or too large.
fn corpus() -> Vec<Files> {
    let mut charts = Vec::new();
    for path in [
        "tests/data/charts/subchart",
        "../shared/data/helm/stefanprodan+podinfo/charts/podinfo",
        "../shared/data/helm/kubernetes+ingress-nginx/charts/ingress-nginx",
        "../shared/data/helm/cert-manager+cert-manager/deploy/charts/cert-manager",
        "../shared/data/helm/external-secrets+external-secrets/deploy/charts/external-secrets",
        "../shared/data/helm/istio+istio/manifests/charts/gateway",
    ] {
        let root = Path::new(path);
        if !root.join("Chart.yaml").exists() {
            println!("skipped: {path} is absent");
            continue;
        }
        let files: Files = walkdir::WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().strip_prefix(root).unwrap();
                let is_wanted = entry.file_type().is_file()
                    && !path.starts_with("charts")
                    && !path.starts_with("ci")
                    && path.extension().is_none_or(|end| end != "tgz");
                let text = is_wanted.then(|| std::fs::read_to_string(entry.path()).ok())??;
                (text.len() <= LARGEST).then(|| (path.display().to_string(), text))
            })
            .collect();
        if files.contains_key("Chart.yaml") {
            charts.push(files);
        }
    }
    assert!(!charts.is_empty(), "there is a corpus");
    charts
}

/// The templates of a corpus that give documents, with the number of their chart.
fn templates(charts: &[Files]) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    for (number, files) in charts.iter().enumerate() {
        let names = files.keys().filter(|path| path.starts_with("templates/"));
        out.extend(names.map(|path| (number, path.as_str())));
    }
    out
}

/// What one case may take: enough for any template of the corpus.
const LIMITS: Limits = Limits {
    steps: 200_000,
    memory: 8 << 20,
};

fn options() -> RenderOptions {
    RenderOptions {
        limits: LIMITS,
        ..RenderOptions::default()
    }
}

#[test]
fn no_template_stops_the_lexer_or_the_parser() {
    let charts = corpus();
    let all = templates(&charts);
    for case in cases(8) {
        let dice = &mut Dice(case);
        let (chart, path) = *dice.of(&all);
        let (other, piece) = *dice.of(&all);
        let text = scratch(
            &charts[chart][path],
            &charts[other][piece],
            &TEMPLATE_TOKENS,
            dice,
        );
        let _ = parse(&path.into(), &text.into());
    }
}

#[test]
fn no_template_stops_the_evaluator_or_takes_more_than_it_may() {
    let charts = corpus();
    let all = templates(&charts);
    for case in cases(2) {
        let dice = &mut Dice(case);
        let (chart, path) = *dice.of(&all);
        let (other, piece) = *dice.of(&all);
        let source = &charts[chart];
        // The template with its helpers, which are damaged in one case out of four.
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (name, text) in source {
            let is_helper = name.starts_with("templates/") && name.contains("/_");
            let is_ours = name == path;
            if !is_helper && !is_ours && name != "Chart.yaml" && name != "values.yaml" {
                continue;
            }
            let is_damaged = is_ours || is_helper && dice.below(4) == 0;
            let text = if is_damaged {
                scratch(text, &charts[other][piece], &TEMPLATE_TOKENS, dice)
            } else if name == "values.yaml" && dice.below(3) == 0 {
                scratch(text, "", &YAML_TOKENS, dice)
            } else {
                text.clone()
            };
            files.insert(name.clone(), text.into_bytes());
        }
        let Ok(chart) = Chart::from_files(files, LoadLimits::default()) else {
            continue;
        };
        let Ok(rendered) = render(&chart, &options()) else {
            continue;
        };
        let written: usize = rendered
            .documents
            .iter()
            .map(|document| document.text.len())
            .sum();
        assert!(
            written as u64 <= LIMITS.memory,
            "case {case}: {written} bytes are more than a chart may write"
        );
        let _ = find_images(&rendered, &["{..image}".to_owned()]);
    }
}

#[test]
fn no_index_stops_the_reader() {
    let mut corpus = vec![
        "apiVersion: v1\nentries:\n  app:\n  - {version: 1.2.0, urls: [charts/app-1.2.0.tgz], digest: abc}\n  - &b\n    version: v1.10.0-rc.1+x\n    appVersion: 2\n    deprecated: true\n    urls: ['https://elsewhere.example/app-1.10.0.tgz?x=1', null]\n  other: [*b]\ngenerated: 2026-01-01T00:00:00Z\n".to_owned(),
        "{\"apiVersion\":\"v1\",\"entries\":{\"a\":[{\"version\":\"1.0.0\",\"urls\":[\"a.tgz\"]}]}}".to_owned(),
    ];
    for file in ["repo/v1/testdata/server", "cmd/testdata/testserver"] {
        let path = format!("../shared/data/helm/helm+helm/pkg/{file}/index.yaml");
        corpus.extend(std::fs::read_to_string(path).ok());
    }
    let base = "https://charts.example.test/a/index.yaml?t=1"
        .parse()
        .unwrap();
    for case in cases(8) {
        let dice = &mut Dice(case);
        let (one, other): (&String, &String) = (dice.of(&corpus), dice.of(&corpus));
        let text = scratch(one, other, &YAML_TOKENS, dice);
        let Ok(index) = Index::parse(text.as_bytes()) else {
            continue;
        };
        let range = scratch(">=1.0.0 <2, ~3", "", &WORDS, dice);
        let names: Vec<String> = index.names().map(str::to_owned).collect();
        for name in names.iter().take(4) {
            for wanted in [None, Some(range.as_str())] {
                if let Ok(entry) = index.find(name, wanted) {
                    let _ = entry.url(&base);
                }
            }
        }
        let _ = index.find(&range, None);
    }
}

#[test]
fn no_text_stops_the_readers_of_yaml_paths_and_versions() {
    let charts = corpus();
    let texts: Vec<&String> = charts
        .iter()
        .flat_map(|files| ["values.yaml", "Chart.yaml"].map(|name| files.get(name)))
        .flatten()
        .collect();
    for case in cases(4) {
        let dice = &mut Dice(case);
        let (one, other): (&&String, &&String) = (dice.of(&texts), dice.of(&texts));
        let text = scratch(one, other, &YAML_TOKENS, dice);
        let document = yaml::parse(&text);
        for part in yaml::parse_stream(&text) {
            let _ = part.content;
        }
        let path = scratch("{.spec.containers[*].image}", "{..a['b']}", &WORDS, dice);
        if let (Ok(path), Ok(document)) = (jsonpath::Path::parse(&path), &document) {
            let _ = path.select(document).len();
        }
        let range = scratch("^1.2 || >=2.0.0-rc.1, <3 - 4.x", "~>0", &WORDS, dice);
        let version = scratch("1.2.3-rc.1+build.5", "v", &WORDS, dice);
        if let (Ok(range), Ok(version)) = (Constraint::parse(&range), Version::parse(&version)) {
            let _ = range.check(&version);
        }
    }
}

#[test]
fn no_archive_stops_a_survey_or_the_values_for_a_mirror() {
    let charts = corpus();
    let files: Vec<Vec<u8>> = charts
        .iter()
        .take(2)
        .map(|files| {
            let files = files
                .iter()
                .map(|(path, text)| (path.clone(), text.clone().into_bytes()))
                .collect();
            archive("chart", &files).unwrap()
        })
        .collect();
    let place = |_: &str| {
        Some(Place {
            registry: "mirror.test".to_owned(),
            path: "a/b".to_owned(),
        })
    };
    for case in cases(1) {
        let dice = &mut Dice(case);
        let mut bytes = dice.of(&files).clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len());
            let end = (at + dice.below(2000)).min(bytes.len());
            match dice.below(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => bytes[at..end].fill(0),
                _ if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
                _ => {}
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(found) = survey(bytes.as_slice(), &Wish::default()) {
            assert!(
                super::Survey::from_bytes(&found.to_bytes()).is_ok_and(|again| again == found),
                "case {case}: a survey survives writing"
            );
            let _ = overrides(bytes.as_slice(), &Wish::default(), &place);
        }
    }
}
