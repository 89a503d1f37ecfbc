//! The corpus as files: a JSON file for each case, beside the document that it is about.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use attestation::{Document, Policy, Roots};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::rules;

/// What a case expects of a good document.
pub(crate) const ACCEPTED: &str = "accepted";
/// The good root, and AWS's, as the corpus names them.
pub(crate) const TEST_ROOT: &str = "roots/test.pem";
pub(crate) const AWS_ROOT: &str = "roots/aws.pem";
/// Cases whose names differ only in what file names leave out.
const MAX_NAMESAKES: usize = 100;
/// The good root and another one.
pub(crate) const TWO_ROOTS: &str = "roots/two-partitions.pem";

/// Generated documents that look like real ones.
const USUAL: [&str; 2] = ["the good document", "two roots are pinned: of the first"];

/// The contents of files, by their path in the corpus.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A document that breaks one rule, or a good one, and what it is held against.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The rule that refuses it, or [`ACCEPTED`].
    pub(crate) rule: String,
    pub(crate) document: Vec<u8>,
    /// A root to pin in place of the one in `root_file`, DER.
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) root_file: &'static str,
    pub(crate) policy: String,
    /// What a verifier that knows one image only is told; without one, the policy's.
    pub(crate) expectations: Option<String>,
    pub(crate) time_ms: u64,
    /// The real document that it is, unchanged.
    pub(crate) aws: Option<String>,
}

/// A policy, and the same in words of no verifier in particular.
pub(crate) struct Demands {
    pub(crate) policy: Option<Policy>,
    pub(crate) expectations: Value,
}

/// A case as its file states it. `attestation/corpus/README.md` describes the fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    pub(crate) name: String,
    pub(crate) expected: String,
    pub(crate) rule: Option<String>,
    pub(crate) category: String,
    pub(crate) needs: Vec<String>,
    pub(crate) demand: String,
    pub(crate) source: String,
    pub(crate) document: String,
    pub(crate) root: String,
    pub(crate) may_be_declined: bool,
    pub(crate) time_ms: u64,
    pub(crate) policy: String,
    pub(crate) expectations: String,
    pub(crate) claims: Option<Value>,
}

impl CaseFile {
    /// The rule, or [`ACCEPTED`].
    pub(crate) fn outcome(&self) -> &str {
        self.rule.as_deref().unwrap_or(ACCEPTED)
    }
}

/// The folder that is committed.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from("corpus")
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|own| own == extension)
}

/// Every case of the committed corpus, by the path of its file.
pub(crate) fn read() -> BTreeMap<String, CaseFile> {
    let mut cases = BTreeMap::new();
    for path in paths() {
        let is_case = path.starts_with("cases/") || path.starts_with("aws/");
        if is_case && has_extension(&path, "json") {
            let text = std::fs::read_to_string(folder().join(&path)).unwrap();
            cases.insert(path, serde_json::from_str(&text).unwrap());
        }
    }
    cases
}

/// The committed files that the generator writes: all but AWS's documents.
pub(crate) fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders: Vec<PathBuf> = ["aws", "cases", "expectations", "policies", "roots"]
        .map(|name| folder().join(name))
        .into();
    while let Some(next) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(next) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder()).unwrap().to_owned();
                let path = path.into_os_string().into_string().unwrap();
                let is_aws_document = path.starts_with("aws/") && has_extension(&path, "cbor");
                if !is_aws_document {
                    paths.push(path);
                }
            }
        }
    }
    paths.sort();
    paths
}

/// All files of the corpus but AWS's documents.
pub(crate) fn files(
    roots: &BTreeMap<&'static str, Vec<Vec<u8>>>,
    demands: &BTreeMap<String, Demands>,
    cases: &[Case],
) -> Files {
    let mut files = Files::new();
    for (path, certificates) in roots {
        let text: String = certificates.iter().map(|der| pem(der)).collect();
        files.insert((*path).to_owned(), text.into_bytes());
    }
    for (name, demands) in demands {
        if let Some(policy) = &demands.policy {
            let text: Value = serde_json::from_str(&policy.to_json().unwrap()).unwrap();
            files.insert(format!("policies/{name}.json"), pretty(&text));
        }
        let path = format!("expectations/{name}.json");
        files.insert(path, pretty(&demands.expectations));
    }
    for case in cases {
        let (folder, own) = match &case.aws {
            Some(_) => ("aws".to_owned(), None),
            None => (format!("cases/{}", case.rule), Some(&case.document)),
        };
        let stem = (1..=MAX_NAMESAKES)
            .map(|number| format!("{folder}/{}", slug(&case.name, number)))
            .find(|stem| !files.contains_key(&format!("{stem}.json")))
            .unwrap();
        if let Some(document) = own {
            files.insert(format!("{stem}.cbor"), document.clone());
        }
        if let Some(root) = &case.root {
            files.insert(format!("{stem}.root.pem"), pem(root).into_bytes());
        }
        let file = case.file(&stem, &roots[case.root_file], demands);
        files.insert(format!("{stem}.json"), pretty(&file));
    }
    files
}

impl Case {
    fn file(&self, stem: &str, roots: &[Vec<u8>], demands: &BTreeMap<String, Demands>) -> CaseFile {
        let roots = match &self.root {
            Some(root) => pem(root),
            None => roots.iter().map(|der| pem(der)).collect(),
        };
        let accepted = self.rule == ACCEPTED;
        let about = rules::about(&self.rule);
        let expectations = self.expectations.as_ref().unwrap_or(&self.policy);
        let category = match about.category {
            _ if self.needs_skew() => "policy",
            // In a form that real documents do not have.
            _ if accepted && self.aws.is_none() && !USUAL.contains(&&*self.name) => "should",
            category => category,
        };
        CaseFile {
            name: self.name.clone(),
            expected: if accepted { ACCEPTED } else { "refused" }.to_owned(),
            rule: (!accepted).then(|| self.rule.clone()),
            category: category.to_owned(),
            needs: self.needs(&demands[expectations].expectations),
            demand: about.demand.to_owned(),
            source: about.source.to_owned(),
            document: match &self.aws {
                Some(id) => format!("aws/{id}.cbor"),
                None => format!("{stem}.cbor"),
            },
            root: match &self.root {
                Some(_) => format!("{stem}.root.pem"),
                None => self.root_file.to_owned(),
            },
            may_be_declined: self.document.is_empty()
                || Roots::usable_from_pem(roots.as_bytes()).is_err(),
            time_ms: self.time_ms,
            policy: format!("policies/{}.json", self.policy),
            expectations: format!("expectations/{expectations}.json"),
            claims: accepted.then(|| claims(&self.document)),
        }
    }

    /// A good document that only a verifier with a tolerance for clocks accepts: it, or one
    /// of its certificates, is ahead of the time of checking, or a certificate has expired.
    fn needs_skew(&self) -> bool {
        let outside = |certificate| {
            let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
            let validity = certificate.validity();
            let time = i64::try_from(self.time_ms).unwrap();
            validity.not_before.timestamp() * 1000 > time
                || validity.not_after.timestamp() * 1000 < time
        };
        self.rule == ACCEPTED
            && Document::parse(&self.document).is_ok_and(|document| {
                document.unverified_timestamp_ms() > self.time_ms
                    || document.unverified_certificates().any(outside)
            })
    }

    /// What a verifier has to be told, beside root and time, to be able to refuse this.
    /// One of several registers suffices.
    fn needs(&self, expectations: &Value) -> Vec<String> {
        if self.needs_skew() {
            return vec!["skew".to_owned()];
        }
        if self.root_file == TWO_ROOTS {
            return vec!["roots".to_owned()];
        }
        let registers = ["policy.image", "policy.debug", "policy.pcr"];
        if !registers.iter().any(|rule| self.rule.starts_with(rule)) {
            let needs = rules::needs(&self.rule).map(str::to_owned);
            return needs.into_iter().collect();
        }
        let document = Document::parse(&self.document).unwrap();
        let pcrs = expectations["pcrs"].as_object().unwrap();
        let mut needs = Vec::new();
        for (index, expected) in pcrs {
            let found = document.unverified_pcr(index.parse().unwrap());
            if found.map(hex::encode).as_deref() != expected.as_str() {
                needs.push(format!("pcr{index}"));
            }
        }
        if needs.is_empty() {
            needs.push("debug".to_owned());
        }
        needs
    }
}

/// What a good document says.
fn claims(document: &[u8]) -> Value {
    let document = Document::parse(document).unwrap();
    let pcrs: BTreeMap<String, String> = (0..32)
        .filter_map(|index| {
            let value = document.unverified_pcr(index)?;
            Some((index.to_string(), hex::encode(value)))
        })
        .collect();
    json!({
        "profile": document.unverified_profile(),
        "module_id": document.unverified_module_id(),
        "timestamp_ms": document.unverified_timestamp_ms(),
        "pcrs": pcrs,
        "public_key": document.unverified_public_key().map(hex::encode),
        "user_data": document.unverified_user_data().map(hex::encode),
        "nonce": document.unverified_nonce().map(hex::encode),
    })
}

/// A file's name for a case: what of its name is safe everywhere, and a number from the
/// second of that name on.
fn slug(name: &str, number: usize) -> String {
    let mut slug = String::new();
    for character in name.to_lowercase().chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_matches('-');
    match number {
        1 => slug.to_owned(),
        _ => format!("{slug}-{number}"),
    }
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        writeln!(text, "{line}").unwrap();
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap();
    text.push(b'\n');
    text
}
