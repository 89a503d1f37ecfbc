//! AWS credentials that an enclave is handed, from the instance's metadata service.

use link::control::{FromAgent, FromInit};

use crate::agent::{Agent, Init};
use crate::image::Builder;
use crate::metadata::serve;

const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
const OF_ROLE: &str = "/latest/meta-data/iam/security-credentials/enclaves";
const REGION: &str = "/latest/meta-data/placement/region";
const DOCUMENT: &str = r#"{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"hush-secret","Token":"hush-session","Expiration":"2099-01-01T00:00:00Z"}"#;

/// Runs an image on an instance whose metadata service is at `endpoint`.
async fn run(image: Builder, endpoint: &str) -> (Agent, Init) {
    let environment = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.to_owned()),
        // What this machine has must not be found.
        ("AWS_CONFIG_FILE", "/nonexistent".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".to_owned()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::spawn_with(folder, image, &[], &environment);
    agent.until_init_waits().await;
    let init = agent.boot().await;
    (agent, init)
}

#[tokio::test]
async fn credentials_of_the_instances_role_are_handed_to_each_init_that_asks() {
    let (endpoint, asked) = serve(&[
        (ROLE, "enclaves"),
        (OF_ROLE, DOCUMENT),
        (REGION, "eu-west-1"),
    ])
    .await;
    let image = Builder::new(&[], &[]).aws_credentials();
    let (agent, mut init) = run(image, &endpoint).await;
    for _ in 0..3 {
        // Asking again on the same connection has no effect.
        init.send(FromInit::WantsCredentials).await;
        init.send(FromInit::WantsCredentials).await;
        let Some(FromAgent::Credentials(credentials)) = init.receive().await else {
            panic!("no credentials");
        };
        assert_eq!(&*credentials.access_key_id, "ASIAEXAMPLE");
        assert_eq!(&*credentials.secret_access_key, "hush-secret");
        assert_eq!(&*credentials.session_token, "hush-session");
        assert_eq!(credentials.expires_ms, 4_070_908_800_000);
        assert_eq!(&*credentials.region, "eu-west-1");
        init = Init::connect(&agent, 1).await;
    }
    let status = agent.status().await;
    assert_eq!(status["credentials"]["renewals"], 1, "{status}");
    assert_eq!(status["credentials"]["failures"], 0);
    assert!(status["credentials"]["left_s"].as_u64().unwrap() > 3_600);
    let (_, metrics) = agent.request("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = "\nenclave_credentials_renewals_total 1\n";
    assert!(metrics.contains(line), "{metrics}");
    let asked = asked.lock().unwrap();
    let of_role = asked.iter().filter(|line| line.contains(OF_ROLE)).count();
    assert_eq!(of_role, 1, "{asked:#?}");
}

#[tokio::test]
async fn credentials_that_an_instance_does_not_have_are_explained() {
    let (endpoint, _) = serve(&[(REGION, "eu-west-1")]).await;
    let image = Builder::new(&[], &[]).aws_credentials();
    let (agent, mut init) = run(image, &endpoint).await;
    init.send(FromInit::WantsCredentials).await;
    let Some(FromAgent::CredentialsUnavailable { reason }) = init.receive().await else {
        panic!("no reason");
    };
    assert!(!reason.is_empty());
    let status = agent.status().await;
    assert!(status["credentials"]["failures"].as_u64().unwrap() > 0);
    assert_eq!(status["credentials"]["renewals"], 0);
}

#[tokio::test]
async fn credentials_are_not_handed_to_an_image_that_does_not_say_so() {
    let (endpoint, asked) = serve(&[(ROLE, "enclaves"), (OF_ROLE, DOCUMENT)]).await;
    let (_agent, mut init) = run(Builder::new(&[], &[]), &endpoint).await;
    init.send(FromInit::WantsCredentials).await;
    let Some(FromAgent::CredentialsUnavailable { reason }) = init.receive().await else {
        panic!("no reason");
    };
    assert!(reason.contains("workload.aws_credentials"), "{reason}");
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|line| !line.contains(ROLE)), "{asked:?}");
}
