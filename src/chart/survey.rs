//! What a chart needs, as a document: the images, how each was found, and whether they are all.
//!
//! A survey is a pure function of the chart's file and a [`Wish`], so it can be remembered by their digests. As JSON it
//! reads
//!
//! ```json
//! {"name":"podinfo","version":"6.5.4","templates":9,
//!  "images":[{"reference":"ghcr.io/a/b:1","by":"pod spec","place":"podinfo/templates/deployment.yaml Deployment/x"}],
//!  "failures":[{"template":"…","file":"…","line":3,"message":"…","refused":false}]}
//! ```
//!
//! `images` holds what the chart needs ([`Found::needed`](super::Found::needed)), sorted by reference.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::images::{How, ImagePathError, find_images};
use super::load::{Chart, ChartError, LoadLimits};
use super::render::{
    Capabilities, Failure, RenderError, RenderOptions, Rendered, ValuesLayer, render,
};
use crate::hint::Hint;

/// How a chart is to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Values, later ones over earlier ones.
    pub values: Vec<ValuesLayer>,
    /// What the cluster can do.
    pub capabilities: Capabilities,
    /// Further JSONPath expressions that find images.
    pub image_paths: Vec<String>,
}

impl Wish {
    /// How to render for it.
    #[must_use]
    pub fn options(&self) -> RenderOptions {
        RenderOptions {
            values: self.values.clone(),
            capabilities: self.capabilities.clone(),
            ..RenderOptions::default()
        }
    }
}

/// Why a chart cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The file is no chart.
    #[error("it is no chart that can be read")]
    Chart(#[from] ChartError),
    /// The values or the capabilities are wrong.
    #[error("it cannot be rendered")]
    Render(#[from] RenderError),
    /// An image path is wrong.
    #[error("it cannot be searched")]
    Path(#[from] ImagePathError),
}

impl Hint for SurveyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Chart(source) => source.hint(),
            Self::Render(source) => source.hint(),
            Self::Path(source) => source.hint(),
        }
    }
}

/// What a chart needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// What the chart calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How many templates gave a document.
    pub templates: usize,
    /// The images it needs, sorted by reference.
    pub images: Vec<Needed>,
    /// What could not be looked at.
    pub failures: Vec<Failed>,
}

/// An image that a chart needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// The reference as the chart writes it.
    pub reference: String,
    /// How it was found, as [`How::name`] says it.
    pub by: String,
    /// Where.
    pub place: String,
}

/// A template that gave nothing, or nothing that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The template that was rendered.
    pub template: String,
    /// The file at fault.
    pub file: String,
    /// The line in that file, from 1; 0 where there is none.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// Whether the chart itself refused its values.
    pub refused: bool,
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        Self {
            template: failure.template.clone(),
            file: failure.file.clone(),
            line: failure.line,
            message: failure.message.clone(),
            refused: failure.refused,
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.template)?;
        if self.file != self.template {
            write!(formatter, " ({})", self.file)?;
        }
        if self.line > 0 {
            write!(formatter, ", line {}", self.line)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

impl Survey {
    /// Whether every template rendered and every document could be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }

    /// How many images were found in each way, in the order of [`How::ALL`]; ways that found none are left out.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        How::ALL
            .into_iter()
            .map(|how| {
                let found = self.images.iter().filter(|image| image.by == how.name());
                (how.name(), found.count())
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The verdict in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let counts: Vec<String> = self
            .counts()
            .into_iter()
            .map(|(how, count)| format!("{count} by {how}"))
            .collect();
        let images = match (self.images.len(), counts.len()) {
            (0, _) => "no images".to_owned(),
            (1, _) => format!("1 image, by {}", self.images[0].by),
            (all, 1) => format!("{all} images, all by {}", self.images[0].by),
            (all, _) => format!("{all} images, {}", counts.join(", ")),
        };
        let (name, version) = (&self.name, &self.version);
        match self.failures.len() {
            0 => format!("chart {name} {version} rendered whole: {images}"),
            failed => format!(
                "chart {name} {version} rendered in part, {failed} of {} failed: {images}",
                self.templates + failed
            ),
        }
    }

    /// The survey as bytes, the same for equal surveys.
    ///
    /// # Panics
    /// Never: all keys are text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("all keys are text")
    }

    /// Reads what [`Survey::to_bytes`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Renders the chart in a file and looks for its images.
///
/// # Errors
/// If the file is no chart, or the wish is wrong in itself. Templates that fail are part of the answer.
pub fn survey(file: impl Read, wish: &Wish) -> Result<Survey, SurveyError> {
    let chart = Chart::from_archive(file, LoadLimits::default())?;
    let rendered = render(&chart, &wish.options())?;
    survey_of(&chart, &rendered, &wish.image_paths).map_err(SurveyError::from)
}

/// The survey of a chart that was rendered already.
///
/// # Errors
/// If an image path is malformed.
pub fn survey_of(
    chart: &Chart,
    rendered: &Rendered,
    image_paths: &[String],
) -> Result<Survey, ImagePathError> {
    let found = find_images(rendered, image_paths)?;
    let failures = match &found.verdict {
        super::Verdict::Whole => Vec::new(),
        super::Verdict::Partial(failures) => failures.iter().map(Failed::from).collect(),
    };
    Ok(Survey {
        name: chart.metadata().name.clone(),
        version: chart.metadata().version.clone(),
        templates: rendered.documents.len(),
        images: found
            .needed()
            .map(|image| Needed {
                reference: image.reference.clone(),
                by: image.by.name().to_owned(),
                place: image.place.clone(),
            })
            .collect(),
        failures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::pack::archive;
    use std::collections::BTreeMap;

    fn file(template: &str) -> Vec<u8> {
        let files = BTreeMap::from(
            [
                ("Chart.yaml", "name: small\nversion: 1.0.0\n"),
                ("values.yaml", "image: {repository: r.test/a, tag: 1}\n"),
                ("templates/a.yaml", template),
                ("templates/b.yaml", "kind: Service"),
            ]
            .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())),
        );
        archive("small", &files).unwrap()
    }

    #[test]
    fn a_survey_says_how_complete_it_is_and_survives_writing() {
        let whole = survey(
            file("spec: {containers: [{image: 'r.test/p:1'}]}").as_slice(),
            &Wish::default(),
        )
        .unwrap();
        assert_eq!(
            whole.verdict(),
            "chart small 1.0.0 rendered whole: 1 image, by pod spec"
        );
        let part = survey(file("{{ fail \"no\" }}").as_slice(), &Wish::default()).unwrap();
        assert_eq!(
            part.verdict(),
            "chart small 1.0.0 rendered in part, 1 of 2 failed: 1 image, by values"
        );
        assert_eq!(
            part.failures[0].to_string(),
            "small/templates/a.yaml, line 1: no",
            "a failure says where"
        );
        for one in [whole, part] {
            assert_eq!(
                Survey::from_bytes(&one.to_bytes()).unwrap(),
                one,
                "what is remembered is what was seen"
            );
        }
        assert!(
            survey(&b"none"[..], &Wish::default()).is_err(),
            "a file that is no chart is an error"
        );
    }
}
