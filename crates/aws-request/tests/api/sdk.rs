//! Calls with SDK crates that fail.

use aws_config::BehaviorVersion;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_request::{ConfigError, Error, Service, check, http_client};
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;

use crate::server::{Server, answer, config};

fn client(url: &str) -> Builder {
    let config = config(url)
        .into_builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client())
        .build();
    Builder::from(&config)
}

async fn failure(config: Builder) -> Error {
    let client = Client::from_conf(config.build());
    let call = client.create_log_group().log_group_name("g").send();
    Error::of_call(Service::Logs, "CreateLogGroup", &call.await.unwrap_err())
}

#[tokio::test]
async fn sdk_refusal_has_the_services_words_in_one_line() {
    let body = r#"{"__type":"AccessDeniedException","message":"not\r\nyou"}"#;
    let server = Server::start(vec![answer(400, "x-amzn-requestid: R1\r\n", body)]).await;
    let error = failure(client(server.url())).await;
    assert!(error.is_denied());
    assert_eq!(
        error.to_string(),
        "CloudWatch Logs CreateLogGroup was refused with HTTP status 400 AccessDeniedException: not you (request R1)"
    );
}

#[tokio::test]
async fn sdk_answer_of_another_kind_is_refused() {
    let server = Server::start(vec![answer(200, "", "<html>")]).await;
    let client = Client::from_conf(client(server.url()).build());
    let call = client.filter_log_events().log_group_name("g").send();
    let error = Error::of_call(Service::Logs, "FilterLogEvents", &call.await.unwrap_err());
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn sdk_answer_that_breaks_off_is_no_answer() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{".to_vec();
    let server = Server::start(vec![half]).await;
    let error = failure(client(server.url())).await;
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn sdk_unreachable_service_is_named_with_its_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = failure(client(&url)).await;
    let text = error.to_string();
    assert!(error.is_transient() && !error.is_timeout(), "{text}");
    let begin = format!("CloudWatch Logs CreateLogGroup at {url}: ");
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.contains("onnection refused"), "{text}");
}

#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no role")))
    }
}

#[tokio::test]
async fn sdk_call_without_credentials_says_what_to_do() {
    let provider = SharedCredentialsProvider::new(Nobody);
    let config = client("http://127.0.0.1:1").credentials_provider(provider);
    let error = failure(config).await;
    assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("no role"), "{text}");
    assert!(text.contains("set AWS_PROFILE"), "{text}");
}

#[test]
fn sdk_client_without_region_or_endpoint_is_refused_at_once() {
    let config = config("http://127.0.0.1:1");
    assert!(check(&config, Service::Logs).is_ok());
    let without = config.clone().into_builder().region(None).build();
    assert!(matches!(
        check(&without, Service::Logs),
        Err(ConfigError::NoRegion)
    ));
    let bad = config.into_builder().endpoint_url("logs.example").build();
    assert!(matches!(
        check(&bad, Service::Logs),
        Err(ConfigError::Endpoint { .. })
    ));
}
