//! `run --config`: from a configuration to a running enclave.

use serde_json::json;

use crate::agent::{command, error_line, output};
use crate::fake_aws::{FakeAws, Fault};
use crate::fetching::{document, fails, image, lives, run, write};

#[tokio::test]
async fn config_starts_an_enclave_from_a_parameter_and_an_object() {
    let aws = FakeAws::start().await;
    // Three parts, the last one short.
    let bytes = image(9 << 20);
    let document = document("s3://bucket/images/a.eif", &bytes);
    aws.hold("bucket/images/a.eif", bytes.clone());
    aws.state()
        .parameters
        .insert("/p/e/1".to_owned(), document.to_string());
    let folder = tempfile::tempdir().unwrap();
    let mut agent = run(folder, "ssm:/p/e/1", &aws.environment());
    let fetched = agent.event("fetching").await;
    assert_eq!(fetched["total"], bytes.len());
    let started = agent.event("starting").await;
    assert_eq!(started["ports"][0]["port"], 8080);
    agent.until_init_waits().await;
    let init = agent.boot().await;
    assert_eq!(init.runtime_config, b"{\"enclave_id\":\"E_1\"}");
    agent.end_init(0).await;
    agent.event("ended").await;
    // Several parts are asked for at a time: which request arrives first is not certain.
    let mut ranges = aws.state().ranges.clone();
    ranges.sort_unstable();
    assert_eq!(ranges, [0, 4 << 20, 8 << 20]);

    // The image is here now.
    aws.state().objects.clear();
    let folder = agent.finished().await;
    lives(folder, "ssm:/p/e/1", &aws.environment()).await;
}

#[tokio::test]
async fn config_fetch_asks_again_for_parts_that_break_off() {
    let aws = FakeAws::start().await;
    let bytes = image(9 << 20);
    aws.hold("bucket/a", bytes.clone());
    aws.state().object_faults = [
        Fault::HalfWay,
        Fault::Refused(503, "SlowDown"),
        Fault::HalfWay,
        Fault::Refused(500, "InternalError"),
    ]
    .into();
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), &document("s3://bucket/a", &bytes));
    lives(folder, &source, &aws.environment()).await;
}

#[tokio::test]
async fn config_fetch_happens_once() {
    let aws = FakeAws::start().await;
    let bytes = image(9 << 20);
    let document = document("s3://bucket/a", &bytes);
    aws.hold("bucket/a", bytes.clone());
    // The first two parts come, the third is refused for good.
    aws.state().object_faults = [Fault::None, Fault::None, Fault::Refused(400, "Odd")].into();
    let folder = tempfile::tempdir().unwrap();
    let (code, error, left) = fails(folder.path(), &aws.environment(), &document).await;
    assert_eq!(code, 4);
    assert!(
        error.contains("400 Odd") && error.contains("continues there"),
        "{error}"
    );
    let kept = left[0].1;
    assert_eq!(left, [("partial".to_owned(), kept)]);
    // Which of the parts was refused is not certain, but not the first.
    aws.state().ranges.clear();
    let source = write(folder.path(), &document);
    lives(folder, &source, &aws.environment()).await;
    let ranges = aws.state().ranges.clone();
    assert_eq!(
        ranges.iter().min(),
        Some(&kept).filter(|_| !ranges.is_empty())
    );
}

#[tokio::test]
async fn config_digest_refuses_and_removes_another_image() {
    let aws = FakeAws::start().await;
    let bytes = image(0);
    let mut damaged = bytes.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    aws.hold("bucket/a", damaged);
    let folder = tempfile::tempdir().unwrap();
    for source in ["s3://bucket/a".to_owned(), aws.url("bucket/a")] {
        let (code, error, left) = fails(
            folder.path(),
            &aws.environment(),
            &document(&source, &bytes),
        )
        .await;
        assert_eq!(code, 3);
        assert!(error.contains("has the SHA-256"), "{error}");
        assert_eq!(left, []);
    }
}

#[tokio::test]
async fn config_size_refuses_another_image_before_it_is_read() {
    let aws = FakeAws::start().await;
    let bytes = image(0);
    aws.hold("bucket/a", bytes.slice(1..));
    let folder = tempfile::tempdir().unwrap();
    for source in ["s3://bucket/a".to_owned(), aws.url("bucket/a")] {
        let (code, error, left) = fails(
            folder.path(),
            &aws.environment(),
            &document(&source, &bytes),
        )
        .await;
        assert_eq!(code, 3);
        let expected = format!("has {} bytes instead of {}", bytes.len() - 1, bytes.len());
        assert!(error.contains(&expected), "{error}");
        assert_eq!(left[0].1, 0);
    }
}

#[tokio::test]
async fn config_fetch_refusals_say_what_to_do() {
    let aws = FakeAws::start().await;
    let bytes = image(0);
    let folder = tempfile::tempdir().unwrap();
    let (code, error, _) = fails(
        folder.path(),
        &aws.environment(),
        &document("s3://bucket/a", &bytes),
    )
    .await;
    assert_eq!(code, 4);
    assert!(error.contains("is not there: publish it"), "{error}");
    aws.hold("bucket/a", bytes.clone());
    aws.state().object_faults = [Fault::Refused(403, "AccessDenied")].into();
    let (code, error, _) = fails(
        folder.path(),
        &aws.environment(),
        &document("s3://bucket/a", &bytes),
    )
    .await;
    assert_eq!(code, 4);
    assert!(error.contains("allow s3:GetObject"), "{error}");
}

#[tokio::test]
async fn config_fetch_goes_on_where_a_web_server_broke_off() {
    let aws = FakeAws::start().await;
    let bytes = image(1 << 20);
    aws.hold("a", bytes.clone());
    aws.state().object_faults = [Fault::HalfWay, Fault::Refused(503, ""), Fault::HalfWay].into();
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), &document(&aws.url("a"), &bytes));
    lives(folder, &source, &aws.environment()).await;
    let half = bytes.len() as u64 / 2;
    assert_eq!(aws.state().ranges[0], half);
    assert_eq!(aws.state().ranges.len(), 2);
}

#[tokio::test]
async fn config_signer_refuses_an_unsigned_image() {
    let aws = FakeAws::start().await;
    let bytes = image(0);
    aws.hold("bucket/a", bytes.clone());
    let folder = tempfile::tempdir().unwrap();
    let mut document = document("s3://bucket/a", &bytes);
    document["enclaves"][0]["image"]["pcr8"] = "00".repeat(48).into();
    let (code, error, _) = fails(folder.path(), &aws.environment(), &document).await;
    assert_eq!(code, 3);
    assert!(error.contains("nobody signed it"), "{error}");
}

#[tokio::test]
async fn config_that_is_wrong_is_an_error_of_the_caller() {
    let aws = FakeAws::start().await;
    let folder = tempfile::tempdir().unwrap();
    let document = json!({ "enclaves": [{ "name": "A", "cpus": 0 }] });
    let (code, error, _) = fails(folder.path(), &aws.environment(), &document).await;
    assert_eq!(code, 2);
    for place in ["enclaves[0].name", "enclaves[0].cpus", "enclaves[0].image"] {
        assert!(error.contains(place), "{error}");
    }
}

#[tokio::test]
async fn config_port_that_the_image_lacks_is_refused() {
    let aws = FakeAws::start().await;
    let bytes = image(0);
    aws.hold("bucket/a", bytes.clone());
    let folder = tempfile::tempdir().unwrap();
    let mut document = document("s3://bucket/a", &bytes);
    document["enclaves"][0]["publish"] = json!(["0:9999"]);
    let (code, error, _) = fails(folder.path(), &aws.environment(), &document).await;
    assert_eq!(code, 2);
    assert!(error.contains("port 9999"), "{error}");
}

#[tokio::test]
async fn name_chooses_one_of_several_enclaves() {
    let aws = FakeAws::start().await;
    let folder = tempfile::tempdir().unwrap();
    let image = json!({ "source": "file:/nonexistent.eif" });
    let document = json!({ "enclaves": [
        { "name": "one", "image": image }, { "name": "two", "image": image } ] });
    let (code, error, _) = fails(folder.path(), &aws.environment(), &document).await;
    assert_eq!(code, 2);
    assert!(
        error.contains("choose with --name from one, two"),
        "{error}"
    );
}

#[tokio::test]
async fn config_without_a_metadata_service_says_the_reason_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for source in ["imds:tags", "imds:user-data"] {
        let mut command = command(folder.path(), "run");
        command
            .args(["--hypervisor", "sim", "--config", source])
            // Nobody listens there.
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
            .env("RUST_LOG", "error");
        let output = output(command).await;
        assert_eq!(output.status.code(), Some(4));
        let error = error_line(&output);
        assert!(
            error.contains("the instance metadata service does not answer"),
            "{error}"
        );
        assert!(error.contains("HttpPutResponseHopLimit"), "{error}");
    }
}
