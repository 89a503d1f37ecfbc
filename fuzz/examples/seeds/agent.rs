//! The agent: its configuration, registries, and what AWS answers.

use serde_json::json;

use crate::write;

pub(crate) fn write_all() {
    agent_configurations();
    registries();
    answers();
    hosts();
}

fn agent_configurations() {
    let sha256 = "00112233445566778899aabbccddeeff".repeat(2);
    let complete = json!({ "region": "us-west-2", "enclaves": [{
        "name": "payments-1", "id": "payments-1",
        "image": { "source": "s3://bucket/images/a.eif", "sha256": sha256, "size": 52_428_800 },
        "cpus": 2, "memory_mib": 1024, "debug": false,
        "runtime_configuration": "{\"enclave_id\":\"payments-1\"}",
        "publish": ["0.0.0.0:8080:8080"], "aws_services": ["kms", "s3"],
        "log_group": "/aws/ec2/enclave/payments-1", "log_retention_days": 30,
        "gate": { "function": "gate", "interval": "30s" },
    }] });
    write("agent_config", "json", complete.to_string().as_bytes());
    let toml = toml::to_string(&complete).expect("a table");
    write("agent_config", "toml", toml.as_bytes());
    for (name, source) in [
        (
            "registry",
            format!("oci://localhost:5000/team/payments:1@sha256:{sha256}"),
        ),
        ("file", "file:/images/a.eif".to_owned()),
    ] {
        let document = json!({ "enclaves": [{ "name": "a", "image": { "source": source } }] });
        write("agent_config", name, document.to_string().as_bytes());
    }
    let web = format!(
        "[[enclaves]]\nname = 'a'\nimage = {{ source = 'https://example.com/a.eif', sha256 = '{sha256}' }}\n"
    );
    write("agent_config", "web", web.as_bytes());
}

fn registries() {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": image_fetch::MEDIA_TYPE,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "data": "e30=" },
        "layers": [{
            "mediaType": image_fetch::MEDIA_TYPE,
            "digest": format!("sha256:{}", "0a".repeat(32)),
            "size": 52_428_800,
            "annotations": { "org.opencontainers.image.title": "payments.eif" },
        }],
    });
    let docker = r#"{"auths":{"https://registry.example.com/v2/":{"auth":"bmFtZTpwdw=="},"docker.io":{"username":"a","password":"b"}},"credsStore":"desktop"}"#;
    let bearer = r#"Bearer realm="https://auth.example.com/token",service="a \"b\"", scope="repository:a/b:pull",error=x"#;
    for (name, seed) in [
        ("manifest", format!("m{manifest}")),
        (
            "index",
            "m{\"schemaVersion\":2,\"manifests\":[]}".to_owned(),
        ),
        ("bearer", format!("c{bearer}")),
        ("basic", "cBasic realm=\"here\"".to_owned()),
        ("docker", format!("d{docker}")),
        (
            "reference",
            "roci://registry.example.com:5000/team/payments:1.0".to_owned(),
        ),
        (
            "ecr",
            "roci://123456789012.dkr.ecr.us-west-2.amazonaws.com/a__b@sha256:00".to_owned(),
        ),
        ("local", "roci://[::1]:5000/a-b:_x".to_owned()),
    ] {
        write("agent_registry", name, seed.as_bytes());
    }
}

fn answers() {
    for (name, seed) in [
        (
            "s3",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>no &lt;key&gt; &#233;</Message></Error>",
        ),
        (
            "ec2",
            "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>",
        ),
        (
            "instances",
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId><instanceState><name>running</name></instanceState><privateIpAddress>10.0.0.1</privateIpAddress><tagSet><item><key>k</key><value><![CDATA[v]]></value></item></tagSet></item></instancesSet></item></reservationSet><nextToken>t</nextToken></DescribeInstancesResponse>",
        ),
        (
            "json",
            r#"{"__type":"com.amazonaws.logs#ThrottlingException","message":"slower"}"#,
        ),
        ("ssm", r#"{"__type":"ParameterNotFound","Message":"none"}"#),
        (
            "lambda",
            "x-amzn-errortype: TooManyRequestsException:http://internal\n{\"Reason\":\"x\"}",
        ),
        (
            "function",
            r#"{"errorType":"Boom","errorMessage":"it broke\nhere"}"#,
        ),
    ] {
        write("aws_answer", name, seed.as_bytes());
    }
}

fn hosts() {
    for (name, host) in [
        ("kms", "kms.us-east-1.amazonaws.com"),
        ("fips", "sqs-fips.us-gov-west-1.api.aws"),
        ("bucket", "bucket.s3.dualstack.cn-north-1.amazonaws.com.cn"),
        (
            "endpoint",
            "vpce-1a-2b.api.ecr.us-east-1.vpce.amazonaws.com",
        ),
        ("registry", "1.dkr.ecr.eusc-de-east-1.amazonaws.eu"),
        ("iam", "iam.us-iso-east-1.c2s.ic.gov"),
        ("sts", "STS.amazonaws.com."),
    ] {
        write("aws_host", name, host.as_bytes());
    }
}
