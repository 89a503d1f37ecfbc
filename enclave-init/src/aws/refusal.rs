//! What a service says when it refuses a call.

use std::fmt;

use hyper::StatusCode;
use plain_text::plain;
use serde::Deserialize;

use super::client::Answer;

/// What services call failures that pass by themselves.
const TRANSIENT: [&str; 14] = [
    "DependencyTimeoutException",
    "ExpiredTokenException",
    "InternalServerError",
    "InternalServiceError",
    "KMSInternalException",
    "KeyUnavailableException",
    "RequestLimitExceeded",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "ThrottlingException",
    "TooManyRequestsException",
    // Two enclaves that create one parameter at the same time.
    "TooManyUpdates",
];

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

impl Words {
    /// Those of S3's errors, which are XML.
    fn of_s3(body: &[u8]) -> Option<Self> {
        let text = str::from_utf8(body).ok()?;
        let element = |start: &str, end: &str| {
            let (_, rest) = text.split_once(start)?;
            let (content, _) = rest.split_once(end)?;
            Some(content.to_owned())
        };
        let name = element("<Code>", "</Code>")?;
        let message = element("<Message>", "</Message>");
        Some(Self {
            name: Some(name),
            message,
        })
    }
}

impl Answer {
    /// What it says, if it refuses the call.
    pub(crate) fn refusal(&self) -> Refusal {
        let words = serde_json::from_slice(&self.body).ok();
        let words: Option<Words> = words.or_else(|| Words::of_s3(&self.body));
        let (name, message) = words.map_or((None, None), |words| (words.name, words.message));
        Refusal {
            // Some services write a name space before the name.
            name: name.map(|name| name.rsplit('#').next().unwrap_or_default().to_owned()),
            message,
            status: self.status,
        }
    }

    /// Whether the same call may be answered otherwise later, if this refuses it.
    pub(crate) fn is_transient(&self) -> bool {
        let refusal = self.refusal();
        self.status.is_server_error()
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || refusal.name.is_some_and(|name| TRANSIENT.contains(&&*name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_refusals_are_read_of_json_and_of_s3s_xml() {
        let refusal = |body: &str| {
            let answer = Answer {
                status: StatusCode::FORBIDDEN,
                headers: hyper::HeaderMap::new(),
                body: body.as_bytes().to_vec().into(),
            };
            answer.refusal().to_string()
        };
        for (body, text) in [
            (r#"{"__type":"a.b#Denied","Message":"no"}"#, "Denied: no"),
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>It is\nnot there</Message></Error>",
                "NoSuchKey: It is\\nnot there",
            ),
            ("<Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
            (
                "<Code>x",
                "it answered with status 403 Forbidden and no reason",
            ),
            ("", "it answered with status 403 Forbidden and no reason"),
        ] {
            assert_eq!(refusal(body), text, "{body}");
        }
    }
}
