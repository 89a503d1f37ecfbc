//! What goes wrong, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_endpoint::Object;
use aws_request::{Client, ConfigError, Error};
use bytes::Bytes;

use crate::server::{LIMIT, Server, answer, config};

fn object() -> Object {
    Object::new("bucket", "key").unwrap()
}

#[tokio::test]
async fn a_refusal_has_the_services_words_in_one_line() {
    let body = "<Error><Code>AccessDenied</Code><Message>not\r\nyou</Message></Error>";
    let server = Server::start(vec![answer(403, "x-amz-request-id: R1\r\n", body)]).await;
    let error = server
        .client()
        .s3()
        .get(&object(), 0, None)
        .await
        .unwrap_err();
    assert!(error.is_denied());
    assert_eq!(
        error.to_string(),
        "S3 GetObject was refused with HTTP status 403 AccessDenied: not you (request R1)"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_bucket_elsewhere_is_named() {
    let moved = answer(301, "x-amz-bucket-region: eu-central-1\r\n", "");
    let server = Server::start(vec![moved]).await;
    let error = server
        .client()
        .s3()
        .get(&object(), 0, None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the bucket is in region eu-central-1")
    );
}

#[tokio::test]
async fn throttling_is_waited_for_even_where_nothing_may_come_twice() {
    let throttled = answer(
        429,
        "x-amzn-errortype: TooManyRequestsException:http\r\n",
        "{}",
    );
    let server = Server::start(vec![throttled.clone(), throttled, answer(200, "", "1")]).await;
    let client = server.client();
    let invoked = client.lambda().invoke("f", Bytes::new(), false, LIMIT);
    assert_eq!(invoked.await.unwrap(), "1");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn what_may_have_run_is_not_run_again() {
    // The connection closes without an answer.
    let server = Server::start(vec![Vec::new()]).await;
    let client = server.client();
    let error = client
        .lambda()
        .invoke("f", Bytes::new(), false, LIMIT)
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("attempts"), "{error}");
    assert_eq!(server.asked().len(), 1);
    client.ssm().parameter("p").await.unwrap_err();
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn an_unreachable_service_is_named_with_its_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&config(&url)).unwrap();
    let error = client.ssm().parameter("p").await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Unreachable { attempts: 3, .. }),
        "{text}"
    );
    assert!(text.contains(&url), "{text}");
    assert!(text.contains("onnection refused"), "{text}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf".to_vec();
    let server = Server::start(vec![half]).await;
    let client = server.client();
    let mut download = client.s3().get(&object(), 0, None).await.unwrap();
    assert_eq!(download.next().await.unwrap().unwrap(), "half");
    let error = download.next().await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    // Held in memory it is asked for again.
    let error = client.ssm().parameter("p").await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn an_answer_has_an_end_in_memory() {
    let long = answer(200, "", &" ".repeat(2 * 1024 * 1024));
    let server = Server::start(vec![long]).await;
    let error = server.client().ssm().parameter("p").await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_of_another_kind_is_refused() {
    let server = Server::start(vec![answer(200, "", "<html>")]).await;
    let error = server.client().ssm().parameter("p").await.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let error = server.client().ec2().stop(&["i-1"]).await.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[derive(Debug, Clone, Default)]
struct Rotating(Arc<AtomicU32>);

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        future::ProvideCredentials::ready(Ok(Credentials::new(
            format!("AKID{number}"),
            "secret",
            None,
            None,
            "test",
        )))
    }
}

#[tokio::test]
async fn expired_credentials_are_asked_for_again_once() {
    let expired = answer(
        400,
        "",
        r#"{"__type":"ExpiredTokenException","message":"old"}"#,
    );
    let server = Server::start(vec![
        expired.clone(),
        answer(200, "", r#"{"Parameter":{"Value":"v"}}"#),
        expired,
    ])
    .await;
    let provider = Rotating::default();
    let config = server
        .config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
        .build();
    let client = Client::new(&config).unwrap();
    assert_eq!(client.ssm().parameter("p").await.unwrap(), "v");
    let asked = server.asked();
    assert!(asked[0].header("authorization").unwrap().contains("AKID0/"));
    assert!(asked[1].header("authorization").unwrap().contains("AKID1/"));
    let error = client.ssm().parameter("p").await.unwrap_err();
    assert_eq!(error.code(), Some("ExpiredTokenException"));
    assert_eq!(server.asked().len(), 4);
    assert_eq!(provider.0.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn clock_of_the_service_signs_where_this_hosts_is_wrong() {
    let body = r#"{"__type":"InvalidSignatureException","message":"Signature expired"}"#;
    let date = "date: Thu, 01 Jan 2015 00:00:00 GMT\r\n";
    let parameter = answer(200, "", r#"{"Parameter":{"Value":"v"}}"#);
    let server = Server::start(vec![answer(400, date, body), parameter]).await;
    let client = server.client();
    for _ in 0..2 {
        assert_eq!(client.ssm().parameter("p").await.unwrap(), "v");
    }
    let asked = server.asked();
    let times: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("x-amz-date").unwrap())
        .collect();
    assert_eq!(times.len(), 3);
    assert!(!times[0].starts_with("2015"), "{times:?}");
    assert!(times[1].starts_with("20150101T0000"), "{times:?}");
    assert!(times[2].starts_with("20150101T0000"), "{times:?}");

    // An answer to HEAD has no words.
    let head = format!("HTTP/1.1 403 X\r\nconnection: close\r\n{date}\r\n").into_bytes();
    let found = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start(vec![head, found]).await;
    assert_eq!(server.client().s3().head(&object()).await.unwrap().size, 3);
}

#[tokio::test]
async fn a_client_without_region_or_endpoint_is_refused_at_once() {
    let config = config("http://127.0.0.1:1");
    let without = config.clone().into_builder().region(None).build();
    assert!(matches!(Client::new(&without), Err(ConfigError::NoRegion)));
    for bad in ["ftp://host", "host", "http://host/path", "http://h?q"] {
        let config = config.clone().into_builder().endpoint_url(bad).build();
        let error = Client::new(&config).unwrap_err();
        assert!(matches!(error, ConfigError::Endpoint { .. }), "{bad}");
    }
}
