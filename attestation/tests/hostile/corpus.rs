//! The cases as a file: each document as what it takes from the good one and
//! what is its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A document that breaks one rule, or a good one in another form.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The rule that refuses it, or [`ACCEPTED`].
    pub(crate) rule: String,
    pub(crate) document: Vec<u8>,
    /// A root to pin besides the good one, DER.
    pub(crate) root: Option<Vec<u8>>,
}

pub(crate) const ACCEPTED: &str = "accepted";

/// The good root and document, and all cases.
pub(crate) struct Corpus {
    pub(crate) root: Vec<u8>,
    pub(crate) base: Vec<u8>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CorpusFile {
    root: String,
    base: String,
    cases: Vec<CaseEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseEntry {
    name: String,
    rule: String,
    document: Vec<Piece>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Piece {
    /// Offset and length in the good document.
    Base(usize, usize),
    /// Base64.
    Own(String),
}

/// Bytes that must agree before they are taken from the good document.
const WINDOW: usize = 16;

pub(crate) fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/cases.json")
}

impl Corpus {
    pub(crate) fn read() -> Self {
        Self::read_from(&path())
    }

    pub(crate) fn read_from(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let file: CorpusFile = serde_json::from_str(&text).unwrap();
        let base = STANDARD.decode(file.base).unwrap();
        let cases = file
            .cases
            .into_iter()
            .map(|entry| Case {
                name: entry.name,
                rule: entry.rule,
                document: join(&base, &entry.document),
                root: entry.root.map(|root| STANDARD.decode(root).unwrap()),
            })
            .collect();
        Self {
            root: STANDARD.decode(file.root).unwrap(),
            base,
            cases,
        }
    }

    /// The file's text: one line for each case.
    pub(crate) fn to_text(&self) -> String {
        let index = windows(&self.base);
        let lines: Vec<String> = self
            .cases
            .iter()
            .map(|case| {
                let entry = CaseEntry {
                    name: case.name.clone(),
                    rule: case.rule.clone(),
                    document: split(&self.base, &index, &case.document),
                    root: case.root.as_ref().map(|root| STANDARD.encode(root)),
                };
                serde_json::to_string(&entry).unwrap()
            })
            .collect();
        format!(
            "{{\n\"root\": \"{}\",\n\"base\": \"{}\",\n\"cases\": [\n{}\n]\n}}\n",
            STANDARD.encode(&self.root),
            STANDARD.encode(&self.base),
            lines.join(",\n")
        )
    }
}

fn windows(base: &[u8]) -> HashMap<&[u8], usize> {
    let mut index = HashMap::new();
    for (offset, window) in base.windows(WINDOW).enumerate() {
        index.entry(window).or_insert(offset);
    }
    index
}

fn split(base: &[u8], index: &HashMap<&[u8], usize>, document: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut own = Vec::new();
    let mut rest = document;
    while let Some((&first, after)) = rest.split_first() {
        let found = rest.get(..WINDOW).and_then(|window| index.get(window));
        let Some(&offset) = found else {
            own.push(first);
            rest = after;
            continue;
        };
        let same = std::iter::zip(rest, &base[offset..]).take_while(|(one, other)| one == other);
        let length = same.count();
        if !own.is_empty() {
            pieces.push(Piece::Own(STANDARD.encode(std::mem::take(&mut own))));
        }
        pieces.push(Piece::Base(offset, length));
        rest = &rest[length..];
    }
    if !own.is_empty() {
        pieces.push(Piece::Own(STANDARD.encode(own)));
    }
    pieces
}

fn join(base: &[u8], pieces: &[Piece]) -> Vec<u8> {
    let mut document = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Base(offset, length) => document.extend(&base[*offset..offset + length]),
            Piece::Own(text) => document.extend(STANDARD.decode(text).unwrap()),
        }
    }
    document
}
