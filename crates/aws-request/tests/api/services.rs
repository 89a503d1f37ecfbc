//! Each service's calls.

use std::io::Write;

use aws_endpoint::Object;
use aws_request::Body;
use aws_request::lambda::InvokeError;
use aws_request::s3::Head;
use bytes::Bytes;

use crate::server::{LIMIT, Server, answer};

#[tokio::test]
async fn an_object_is_read_from_a_byte_on_if_it_is_still_the_same() {
    let server = Server::start(vec![answer(206, "etag: \"e\"\r\n", "world")]).await;
    let client = server.client();
    let object: Object = "s3://bucket/a b/c+d".parse().unwrap();
    let mut download = client.s3().get(&object, 6, Some("\"e\"")).await.unwrap();
    assert_eq!(download.header("etag"), Some("\"e\""));
    let mut body = Vec::new();
    while let Some(bytes) = download.next().await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(body, b"world");
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "GET /bucket/a%20b/c%2Bd HTTP/1.1");
    assert_eq!(asked.header("range"), Some("bytes=6-"));
    assert_eq!(asked.header("if-match"), Some("\"e\""));
    assert_eq!(asked.header("x-amz-security-token"), Some("token"));
    let authorization = asked.header("authorization").unwrap();
    assert!(authorization.contains("/us-west-2/s3/aws4_request"));
}

#[tokio::test]
async fn an_objects_size_is_known_without_reading_it() {
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-length: 123\r\netag: \"x\"\r\nconnection: close\r\n\r\n";
    let server = Server::start(vec![head.to_vec()]).await;
    let object = Object::new("bucket", "key").unwrap();
    let head = server.client().s3().head(&object).await.unwrap();
    let etag = Some("\"x\"".to_owned());
    assert_eq!(head, Head { size: 123, etag });
}

#[tokio::test]
async fn a_file_is_sent_whole_and_again_after_a_failure() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"content").unwrap();
    let server = Server::start(vec![answer(503, "", ""), answer(200, "", "")]).await;
    let object = Object::new("bucket", "key").unwrap();
    let body = Body::File {
        path: file.path().to_owned(),
        length: 7,
        sha256: [7; 32],
    };
    server
        .client()
        .s3()
        .put(&object, body, "application/octet-stream")
        .await
        .unwrap();
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        assert_eq!(asked.line, "PUT /bucket/key HTTP/1.1");
        assert_eq!(asked.body, "content");
        let digest = asked.header("x-amz-content-sha256").unwrap();
        assert_eq!(digest, "07".repeat(32));
    }
}

#[tokio::test]
async fn a_functions_own_error_is_told_from_the_services() {
    let failed = answer(
        200,
        "x-amz-function-error: Unhandled\r\n",
        r#"{"errorType":"ValidationFailed","errorMessage":"cpuCount is odd"}"#,
    );
    let missing = answer(
        404,
        "x-amzn-errortype: ResourceNotFoundException\r\n",
        r#"{"Message":"no such function"}"#,
    );
    let server = Server::start(vec![answer(200, "", "{}"), failed, missing]).await;
    let client = server.client();
    let invoke = || {
        let payload = Bytes::from_static(b"{\"a\":1}");
        client
            .lambda()
            .invoke("arn:aws:lambda:x:1:function:f", payload, true, LIMIT)
    };
    assert_eq!(invoke().await.unwrap(), "{}");
    match invoke().await.unwrap_err() {
        InvokeError::Function { kind, message, .. } => {
            assert_eq!(
                (kind.as_str(), message.as_str()),
                ("ValidationFailed", "cpuCount is odd")
            );
        }
        InvokeError::Service(error) => panic!("{error}"),
    }
    match invoke().await.unwrap_err() {
        InvokeError::Service(error) => {
            assert!(error.is_not_found());
            assert_eq!(error.code(), Some("ResourceNotFoundException"));
        }
        error @ InvokeError::Function { .. } => panic!("{error}"),
    }
    let asked = &server.asked()[0];
    assert_eq!(
        asked.line,
        "POST /2015-03-31/functions/arn%3Aaws%3Alambda%3Ax%3A1%3Afunction%3Af/invocations HTTP/1.1"
    );
    assert_eq!(asked.body, "{\"a\":1}");
}

#[tokio::test]
async fn a_parameter_is_read_decrypted() {
    let parameter = answer(200, "", r#"{"Parameter":{"Value":"v","Type":"String"}}"#);
    let server = Server::start(vec![parameter]).await;
    assert_eq!(server.client().ssm().parameter("/p").await.unwrap(), "v");
    let asked = &server.asked()[0];
    assert_eq!(asked.header("x-amz-target"), Some("AmazonSSM.GetParameter"));
    assert_eq!(asked.body, r#"{"Name":"/p","WithDecryption":true}"#);
}

#[tokio::test]
async fn instances_are_read_page_by_page() {
    let page = |id: &str, next: &str| {
        answer(
            200,
            "",
            &format!(
                "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>\
                 <instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
                 <privateIpAddress>10.0.0.7</privateIpAddress>\
                 <tagSet><item><key>EnclaveId</key><value>e-1</value></item></tagSet>\
                 </item></instancesSet></item></reservationSet>{next}</DescribeInstancesResponse>"
            ),
        )
    };
    let server = Server::start(vec![
        page("i-1", "<nextToken>a+b</nextToken>"),
        page("i-2", ""),
    ])
    .await;
    let instances = server
        .client()
        .ec2()
        .instances(&[("tag:EnclaveId", &["e-1", "e 2"])])
        .await
        .unwrap();
    let ids: Vec<_> = instances
        .iter()
        .map(|instance| instance.id.as_str())
        .collect();
    assert_eq!(ids, ["i-1", "i-2"]);
    assert_eq!(instances[0].state, "running");
    assert_eq!(instances[0].private_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(instances[0].tags["EnclaveId"], "e-1");
    let asked = server.asked();
    assert!(
        asked[0]
            .body
            .starts_with("Action=DescribeInstances&Version=2016-11-15&")
    );
    assert!(
        asked[0].body.ends_with(
            "&Filter.1.Name=tag%3AEnclaveId&Filter.1.Value.1=e-1&Filter.1.Value.2=e%202"
        )
    );
    assert!(asked[1].body.ends_with("&NextToken=a%2Bb"));
}

#[tokio::test]
async fn a_registrys_token_is_name_and_password() {
    let body = r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":1.7e9,"proxyEndpoint":"https://1.dkr.ecr.us-west-2.amazonaws.com"}]}"#;
    let server = Server::start(vec![
        answer(200, "", body),
        answer(200, "", r#"{"authorizationData":[]}"#),
    ])
    .await;
    let client = server.client();
    assert_eq!(
        client.ecr().authorization_token().await.unwrap(),
        "QVdTOnB3"
    );
    let asked = &server.asked()[0];
    assert_eq!(
        asked.header("x-amz-target"),
        Some("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
    );
    let authorization = asked.header("authorization").unwrap();
    assert!(authorization.contains("/us-west-2/ecr/aws4_request"));
    let error = client.ecr().authorization_token().await.unwrap_err();
    assert!(error.to_string().contains("it has no token"), "{error}");
}
