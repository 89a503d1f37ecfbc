//! What a service says when it refuses.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::endpoint::Service;
use crate::error::{Error, one_line};
use crate::{json, xml};

impl Error {
    /// What a service has said in JSON or in XML with a status that is no success.
    pub fn refused(
        service: Service,
        operation: &'static str,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let (code, message) = if body.trim_ascii_start().starts_with(b"<") {
            xml::error(body)
        } else {
            json::error(body)
        };
        // Names a type as `code`, `code:url` or `namespace#code`.
        let code = header("x-amzn-errortype").or(code).unwrap_or_default();
        let code = code.split(':').next().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        let mut message = message.unwrap_or_default();
        if let Some(region) = header("x-amz-bucket-region").filter(|_| status == 301) {
            message = format!("the bucket is in region {region}; use that region");
        }
        Self::Refused {
            service,
            operation,
            status,
            code: one_line(code),
            message: one_line(&message),
            request_id: header("x-amzn-requestid").or_else(|| header("x-amz-request-id")),
            retry_after: header(RETRY_AFTER.as_str())
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_words_stay_in_their_line() {
        for body in [
            r#"{"__type":"a#Odd\n\u001b[31m","message":"two\r\nlines"}"#,
            "<Error><Code>Odd&#10;&#27;[31m</Code><Message>two\r\nlines</Message></Error>",
        ] {
            let error = Error::refused(
                Service::S3,
                "GetObject",
                400,
                &HeaderMap::new(),
                body.as_bytes(),
            );
            assert_eq!(
                error.to_string(),
                r"S3 GetObject was refused with HTTP status 400 Odd \u{1b}[31m: two lines"
            );
        }
    }
}
