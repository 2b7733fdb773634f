//! Charts of the world, rendered and compared with what Helm made of them.
//!
//! The charts and their golden renders stand beside the project (`../shared/data/helm`, see its README); where they
//! are absent the tests say so and pass. Documents are compared as parsed YAML. What cannot be compared is listed
//! at the suite it concerns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imgbuild::chart::{
    Capabilities, Chart, Document, How, LoadLimits, RenderOptions, Rendered, ValuesLayer,
    find_images, render, yaml,
};
use serde_json::Value as Json;

fn data(path: &str) -> Option<PathBuf> {
    let path = Path::new("../shared/data/helm").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

fn load(path: &Path) -> Chart {
    Chart::from_directory(path, LoadLimits::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

fn layer(path: &Path) -> ValuesLayer {
    ValuesLayer {
        name: path.display().to_string(),
        text: std::fs::read(path).unwrap(),
    }
}

fn parsed<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Json> {
    texts
        .into_iter()
        .flat_map(yaml::parse_stream)
        .map(|document| document.content.unwrap())
        .collect()
}

fn golden_files(directory: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

fn name(document: &Json) -> String {
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Json::as_str)
            .unwrap_or("")
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

fn images_of(rendered: &Rendered) -> BTreeSet<String> {
    find_images(rendered, &[])
        .unwrap()
        .images
        .into_iter()
        .filter(|image| image.by != How::Values)
        .map(|image| image.reference)
        .collect()
}

/// How many documents of the goldens came out equal, over some cases.
#[derive(Default)]
struct Tally {
    equal: usize,
    all: usize,
    surplus: usize,
    cases: usize,
    wrong_images: Vec<String>,
}

impl Tally {
    /// Compares one case; `selected` says which of our documents the golden could hold.
    fn compare(
        &mut self,
        case: &str,
        rendered: &Rendered,
        golden: &[String],
        mut redact: impl FnMut(&mut Json),
        selected: impl Fn(&Json) -> bool,
    ) {
        self.cases += 1;
        let mut ours = parsed(rendered.documents.iter().map(|document| &*document.text));
        let mut theirs = parsed(golden.iter().map(String::as_str));
        ours.iter_mut().for_each(&mut redact);
        theirs.iter_mut().for_each(&mut redact);
        ours.retain(&selected);
        let (mut equal, all) = (0, theirs.len());
        for document in &theirs {
            if let Some(at) = ours.iter().position(|other| other == document) {
                ours.remove(at);
                equal += 1;
                continue;
            }
            println!("  {case}: {} differs", name(document));
            if let Some(other) = ours.iter().find(|other| name(other) == name(document)) {
                differences(document, other, &mut String::new(), &mut 0);
            }
        }
        for surplus in &ours {
            if !theirs.iter().any(|document| name(document) == name(surplus)) {
                println!("  {case}: {} is not in the golden render", name(surplus));
                self.surplus += 1;
            }
        }
        for failure in &rendered.failures {
            println!("  {case}: {failure:?}");
        }
        println!("{case}: {equal}/{all} documents equal");
        self.equal += equal;
        self.all += all;

        let as_rendered = |documents: Vec<Document>| Rendered {
            documents,
            ..Rendered::default()
        };
        let whole = |documents: &[Json]| {
            as_rendered(
                documents
                    .iter()
                    .map(|document| Document {
                        template: "golden.yaml".to_owned(),
                        text: document.to_string(),
                    })
                    .collect(),
            )
        };
        let mut ours = parsed(rendered.documents.iter().map(|document| &*document.text));
        ours.retain(&selected);
        if images_of(&whole(&ours)) != images_of(&whole(&theirs)) {
            self.wrong_images.push(case.to_owned());
        }
    }

    fn finish(&self, suite: &str) {
        println!(
            "{suite}: {} cases, {}/{} documents equal, {} surplus, images differ in {:?}",
            self.cases, self.equal, self.all, self.surplus, self.wrong_images
        );
        assert!(self.all > 0, "{suite} has documents to compare");
        assert!(
            self.equal * 100 >= self.all * 95,
            "at least 95 % of the documents of {suite} are equal"
        );
        assert_eq!(
            self.wrong_images,
            Vec::<String>::new(),
            "every case of {suite} has the images of its golden render"
        );
    }
}

/// Prints the first places where two documents differ.
fn differences(golden: &Json, ours: &Json, path: &mut String, printed: &mut usize) {
    if golden == ours || *printed > 6 {
        return;
    }
    let length = path.len();
    match (golden, ours) {
        (Json::Object(golden), Json::Object(ours)) => {
            let keys: BTreeSet<&String> = golden.keys().chain(ours.keys()).collect();
            for key in keys {
                path.push('.');
                path.push_str(key);
                let null = Json::Null;
                differences(
                    golden.get(key).unwrap_or(&null),
                    ours.get(key).unwrap_or(&null),
                    path,
                    printed,
                );
                path.truncate(length);
            }
        }
        (Json::Array(golden), Json::Array(ours)) if golden.len() == ours.len() => {
            for (index, (golden, ours)) in golden.iter().zip(ours).enumerate() {
                path.push_str(&format!("[{index}]"));
                differences(golden, ours, path, printed);
                path.truncate(length);
            }
        }
        (Json::String(golden), Json::String(ours)) => {
            *printed += 1;
            let at = golden
                .lines()
                .zip(ours.lines())
                .find(|(golden, ours)| golden != ours);
            println!("    {path}: golden {:?}, ours {:?}", at.map(|at| at.0), at.map(|at| at.1));
        }
        _ => {
            *printed += 1;
            println!("    {path}: golden {golden}, ours {ours}");
        }
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    directories
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn open_telemetry_charts_render_as_with_helm() {
    let Some(charts) = data("open-telemetry+opentelemetry-helm-charts/charts") else {
        return;
    };
    let mut tally = Tally::default();
    for chart in directories(&charts) {
        if !chart.join("examples").exists() || !chart.join("Chart.yaml").exists() {
            continue;
        }
        for example in directories(&chart.join("examples")) {
            let mut values: Vec<PathBuf> = std::fs::read_dir(&example)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    let name = base_name(path);
                    name.starts_with("values") && name.ends_with(".yaml")
                })
                .collect();
            values.sort();
            if values.len() != 1 || !example.join("rendered").exists() {
                continue;
            }
            let options = RenderOptions {
                name: "example".to_owned(),
                values: values.iter().map(|path| layer(path)).collect(),
                capabilities: Capabilities {
                    kube_version: "1.29".to_owned(),
                    api_versions: Vec::new(),
                },
                ..RenderOptions::default()
            };
            let rendered = render(&load(&chart), &options).unwrap();
            let case = format!("{}/{}", base_name(&chart), base_name(&example));
            let golden = golden_files(&example.join("rendered"));
            tally.compare(&case, &rendered, &golden, |_| {}, |_| true);
        }
    }
    tally.finish("open-telemetry");
}

/// Certificates are random, and the project itself redacts them; checksums of them differ accordingly.
fn redact_certificates(document: &mut Json) {
    match document {
        Json::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                // Scripts of the chart are not in the data either.
                let absent = matches!(key.as_str(), "caBundle" | "tls.crt" | "tls.key" | "ca.crt")
                    || key == "script" && value.is_string();
                if absent {
                    *value = Json::Null;
                } else {
                    redact_certificates(value);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(redact_certificates),
        _ => {}
    }
}

#[test]
fn the_splunk_collector_renders_as_with_helm() {
    let Some(root) = data("signalfx+splunk-otel-collector-chart") else {
        return;
    };
    let chart = load(&root.join("helm-charts/splunk-otel-collector"));
    let mut tally = Tally::default();
    for example in directories(&root.join("examples")) {
        let case = base_name(&example);
        let golden = example.join("rendered_manifests");
        let values = std::fs::read_dir(&example)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| base_name(path).ends_with("values.yaml"));
        let Some(values) = values.filter(|_| golden.exists()) else {
            println!("{case}: no values or no golden render");
            continue;
        };
        let options = RenderOptions {
            name: "default".to_owned(),
            values: vec![layer(&values)],
            ..RenderOptions::default()
        };
        let rendered = render(&chart, &options).unwrap();
        // Charts that are fetched before they are packed are not in the data: nor is what they render to.
        let absent: Vec<String> = chart
            .missing_dependencies()
            .iter()
            .map(|dependency| format!("/charts/{}/", dependency.alias))
            .collect();
        let golden: Vec<String> = golden_files(&golden)
            .iter()
            .flat_map(|text| text.split("\n---\n"))
            .filter(|part| !absent.iter().any(|path| part.contains(path)))
            // Calls a template of the operator's chart, which is one of those.
            .filter(|part| !part.contains("operator/instrumentation-hook-job.yaml"))
            .map(str::to_owned)
            .collect();
        tally.compare(&case, &rendered, &golden, redact_certificates, |_| true);
    }
    tally.finish("splunk");
}

#[test]
fn istio_charts_render_as_with_helm() {
    let (Some(cases), Some(root)) = (data("istio-render-cases.json"), data("istio+istio")) else {
        return;
    };
    let cases: Json = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
    let testdata = root.join("operator/pkg/helm/testdata");
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let chart = root.join("manifests/charts").join(text("chartName"));
        let input = testdata.join(format!("input/{}.yaml", text("desc")));
        let golden = testdata.join(format!("output/{}.golden.yaml", text("desc")));
        if !chart.exists() || !input.exists() || !golden.exists() {
            continue;
        }
        let overlay = yaml::parse(&std::fs::read_to_string(&input).unwrap()).unwrap();
        let values = overlay.pointer("/spec/values").cloned().unwrap_or_default();
        let options = RenderOptions {
            name: text("releaseName"),
            namespace: text("namespace"),
            upgrade: case["isUpgrade"] == Json::Bool(true),
            values: vec![ValuesLayer {
                name: input.display().to_string(),
                text: values.to_string().into_bytes(),
            }],
            capabilities: Capabilities {
                kube_version: "1.32.0".to_owned(),
                api_versions: Vec::new(),
            },
            ..RenderOptions::default()
        };
        let rendered = render(&load(&chart), &options).unwrap();
        let select = text("diffSelect");
        let select: Vec<&str> = select.split(':').collect();
        let fits = |document: &Json| {
            let part = |pointer: &str| {
                document
                    .pointer(pointer)
                    .and_then(Json::as_str)
                    .unwrap_or("")
                    .to_owned()
            };
            [part("/kind"), part("/metadata/namespace"), part("/metadata/name")]
                .iter()
                .zip(&select)
                .all(|(found, wanted)| *wanted == "*" || found == wanted)
        };
        let golden = vec![std::fs::read_to_string(&golden).unwrap()];
        tally.compare(&text("desc"), &rendered, &golden, |_| {}, fits);
    }
    tally.finish("istio");
}
