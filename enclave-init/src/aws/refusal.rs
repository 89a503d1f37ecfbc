//! What a service says when it refuses a call.

use std::fmt;

use hyper::StatusCode;
use plain_text::plain;
use serde::Deserialize;

use super::client::Answer;

/// Why a service has refused a call, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What SDKs know the error by.
    pub(crate) name: Option<String>,
    message: Option<String>,
    status: StatusCode,
}

/// An error's members: the message is KMS's in small letters, and IAM's in capitals.
#[derive(Deserialize)]
struct Words {
    #[serde(rename = "__type")]
    name: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

impl Answer {
    /// What it says, if it refuses the call.
    pub(crate) fn refusal(&self) -> Refusal {
        let words: Option<Words> = serde_json::from_slice(&self.body).ok();
        let (name, message) = words.map_or((None, None), |words| (words.name, words.message));
        Refusal {
            // Some services write a name space before the name.
            name: name.map(|name| name.rsplit('#').next().unwrap_or_default().to_owned()),
            message,
            status: self.status,
        }
    }
}

/// On one line.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (&self.name, &self.message) {
            (Some(name), Some(message)) => format!("{name}: {message}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => format!("it answered with status {} and no reason", self.status),
        };
        f.write_str(&plain(&text))
    }
}
