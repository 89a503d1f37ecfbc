//! The registers that the manifest leaves open, and those that it does not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use measurements::Pcr;
use nsm::{Nsm, NsmError, Refusal};
use serde_json::{Value, json};

use crate::enclave::Image;
use crate::local_api::answers_of;

fn extend(register: &str, data: &[u8]) -> String {
    let body = json!({ "data": STANDARD.encode(data) });
    format!("request tcp POST /v1/registers/{register}/extend {body}")
}

fn lock(register: &str) -> String {
    format!("request tcp POST /v1/registers/{register}/lock ")
}

const LIST: &str = "request unix GET /v1/registers ";

fn image() -> Image {
    Image::new(&[]).attestation("open_registers", json!([18, 20]))
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn open_registers_are_extended_and_locked_and_all_others_are_locked_before() {
    let value = Pcr::ZERO.extend(b"model v3").extend(b"more");
    let requests = [
        LIST.to_owned(),
        extend("18", b"model v3"),
        extend("18", b"more"),
        lock("18"),
        LIST.to_owned(),
    ];
    let (enclave, answers) = answers_of(image(), &requests).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 200),
        "{answers:?}"
    );
    let before = parse(&answers[0].1);
    let registers = before["registers"].as_array().unwrap();
    assert_eq!(registers.len(), 32);
    for (index, register) in registers.iter().enumerate() {
        assert_eq!(register["index"], index);
        let is_open = [18, 20].contains(&index);
        assert_eq!(register["locked"], !is_open, "{register}");
    }
    let expected = json!({"index": 18, "value": value.to_string(), "locked": false});
    assert_eq!(parse(&answers[2].1), expected);
    let expected = json!({"index": 18, "value": value.to_string(), "locked": true});
    assert_eq!(parse(&answers[3].1), expected);
    assert_eq!(parse(&answers[4].1)["registers"][18], expected);
    // The module says the same.
    let path = enclave.folder().join("nsm");
    let (described, refused) = tokio::task::spawn_blocking(move || {
        let mut nsm = Nsm::socket(&path).unwrap();
        (nsm.describe_pcr(18).unwrap(), nsm.extend_pcr(31, b"x"))
    })
    .await
    .unwrap();
    assert_eq!(described, (value, true));
    assert!(matches!(
        refused,
        Err(NsmError::Refused(Refusal::ReadOnlyIndex))
    ));
}

#[tokio::test]
async fn registers_that_cannot_be_extended_or_locked_are_answered_with_the_reason() {
    let cases = [
        (lock("20"), 200, ""),
        (extend("20", b"x"), 409, "register 20 is locked until"),
        (lock("20"), 409, "register 20 is locked until"),
        (extend("17", b"x"), 403, "register 17 is not the workload's"),
        (lock("16"), 403, "`open_registers` in the image's manifest"),
        (lock("0"), 403, "register 0 is not the workload's"),
        (extend("32", b"x"), 404, "there is no such register"),
        (lock("018"), 404, "there is no such register"),
        (lock("-1"), 404, "there is no such register"),
        (lock("pcr18"), 404, "give 0 to 31"),
        (extend("18", b""), 400, "data has 0 bytes"),
        (extend("18", &[0; 513]), 400, "data has 513 bytes"),
        (
            "request tcp POST /v1/registers/18/extend {\"data\":\"?\"}".to_owned(),
            400,
            "data is not base64",
        ),
        (
            "request tcp POST /v1/registers/18/extend {}".to_owned(),
            400,
            "missing field `data`",
        ),
        (
            "request tcp GET /v1/registers/18/lock ".to_owned(),
            404,
            "POST /v1/registers/{index}/lock",
        ),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let (_enclave, answers) = answers_of(image(), &requests).await;
    assert_eq!(answers.len(), cases.len());
    for ((request, expected, text), (status, body)) in cases.iter().zip(answers) {
        let body = parse(&body);
        assert_eq!(status, *expected, "{request}: {body}");
        let error = body["error"].as_str().unwrap_or_default();
        assert!(error.contains(text), "{request}: {error}");
    }
}
