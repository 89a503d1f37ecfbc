//! The instance metadata service, version 2, as far as the agent asks it.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::agent::{command, error_line, output};

/// Answers with what the paths lead to, but only those who show the token.
pub(crate) async fn serve(pages: &'static [(&str, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let request = String::from_utf8(request).unwrap().to_lowercase();
            let line = request.lines().next().unwrap_or_default().to_owned();
            let (status, body) = if line.starts_with("put /latest/api/token ") {
                (200, "the-token")
            } else if !request.contains("x-aws-ec2-metadata-token: the-token") {
                (401, "")
            } else {
                let page = pages
                    .iter()
                    .find(|(path, _)| line.starts_with(&format!("get {} ", path.to_lowercase())));
                page.map_or((404, ""), |(_, body)| (200, *body))
            };
            log.lock().unwrap().push(line);
            let answer = format!(
                "HTTP/1.1 {status} X\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (endpoint, asked)
}

/// Runs with that configuration, which names an image that is not there: the exit
/// code and the one line.
async fn run(endpoint: &str, source: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), "run");
    command
        .args(["--hypervisor", "sim", "--config", source])
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        .env("RUST_LOG", "error");
    let output = output(command).await;
    (output.status.code().unwrap(), error_line(&output))
}

const TAG: &str = "/latest/meta-data/tags/instance/EnclaveConfiguration";
const USER_DATA: &str = "/latest/user-data";
const DOCUMENT: &str =
    r#"{"enclaves":[{"name":"e","image":{"source":"file:/nonexistent/named.eif"}}]}"#;

#[tokio::test]
async fn metadata_tag_names_the_user_data_which_is_read_with_a_token() {
    let (endpoint, asked) = serve(&[(TAG, "imds:user-data\n"), (USER_DATA, DOCUMENT)]).await;
    let (code, error) = run(&endpoint, "imds:tags").await;
    assert_eq!(code, 3);
    assert!(error.contains("/nonexistent/named.eif"), "{error}");
    assert!(asked.lock().unwrap()[0].starts_with("put /latest/api/token"));
}

#[tokio::test]
async fn metadata_tag_that_names_no_configuration_is_quoted() {
    let (endpoint, _) = serve(&[(TAG, "somewhere")]).await;
    let (code, error) = run(&endpoint, "imds:tags").await;
    assert_eq!(code, 2);
    assert!(error.contains("has the value `somewhere`"), "{error}");
    let (endpoint, _) = serve(&[(TAG, "imds:tags")]).await;
    let (code, error) = run(&endpoint, "imds:tags").await;
    assert_eq!(code, 2);
    assert!(error.contains("leads back to the tag"), "{error}");
}

#[tokio::test]
async fn metadata_that_is_not_there_is_said() {
    let (endpoint, _) = serve(&[]).await;
    let (code, error) = run(&endpoint, "imds:tags").await;
    assert_eq!(code, 4);
    assert!(error.contains("InstanceMetadataTags=enabled"), "{error}");
    let (endpoint, _) = serve(&[(USER_DATA, "#!/bin/sh\necho for cloud-init\n")]).await;
    let (code, error) = run(&endpoint, "imds:user-data").await;
    assert_eq!(code, 4);
    assert!(error.contains("it is a script"), "{error}");
}

#[tokio::test]
async fn metadata_is_read_from_the_first_place_that_has_it() {
    // No test may depend on what this machine has in /etc.
    for file in ["/etc/enclaves/config.json", "/etc/enclaves/config.toml"] {
        assert!(!std::path::Path::new(file).exists(), "{file}");
    }
    let (endpoint, _) = serve(&[(USER_DATA, DOCUMENT)]).await;
    let (_, error) = run(&endpoint, "auto").await;
    assert!(error.contains("/nonexistent/named.eif"), "{error}");
    let wrong = json!({ "enclaves": [] }).to_string();
    let wrong: &'static str = Box::leak(wrong.into_boxed_str());
    let pages: &'static [(&str, &str)] =
        Box::leak(Box::new([(TAG, "imds:user-data"), (USER_DATA, wrong)]));
    let (endpoint, _) = serve(pages).await;
    let (code, error) = run(&endpoint, "auto").await;
    assert_eq!(code, 2);
    assert!(error.contains("imds:user-data cannot be used"), "{error}");
    let (endpoint, _) = serve(&[]).await;
    let (code, error) = run(&endpoint, "auto").await;
    assert_eq!(code, 4);
    assert!(error.contains("there is no configuration"), "{error}");
}
