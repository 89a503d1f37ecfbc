//! The function that turns a request into what the workflow needs, or says all that
//! is wrong with it.

use aws_sdk_dynamodb::Client;
use control_plane_model::Failure;
use control_plane_model::environment::variable;
use control_plane_model::execution::{Action, Input};
use control_plane_model::item::{Enclave, Image, PublishedImage, runtime_configuration};
use control_plane_model::request::{Problem, Request, check_id};
use control_plane_model::status::Status;
use control_plane_model::store::{Store, published_image};
use measurements::Measurements;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

/// The error of a request that breaks rules.
pub const VALIDATION_FAILED: &str = "ValidationFailed";
/// The error of a request that is not the item's any more.
pub const SUPERSEDED: &str = "Superseded";

/// What the per-enclave stack is given.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the stack's names")]
struct Configuration<'a> {
    instance_type: &'a str,
    cpu_count: u64,
    memory_mib: u64,
    enable_debug: bool,
    workload_type: &'a str,
    health_check_path: &'a str,
    health_check_interval: u64,
    aws_services: &'a [String],
    expose_ports: &'a [u16],
    image: StackImage<'a>,
    runtime_configuration: String,
}

#[derive(Debug, Serialize)]
struct StackImage<'a> {
    reference: &'a str,
    bucket: &'a str,
    key: &'a str,
    sha256: &'a str,
    size: u64,
}

/// Whether the execution may go on: its request is the item's last.
pub fn check_current(input: &Input, item: Option<&Enclave>) -> Result<(), Failure> {
    let superseded = |why: String| Err(Failure::new(SUPERSEDED, why));
    let Some(item) = item else {
        return superseded(format!("{} was deleted", input.enclave_id));
    };
    let expected = match input.action {
        Action::Deploy => Status::PendingDeploy,
        Action::Destroy => Status::PendingDestroy,
    };
    if item.status() != Some(expected) {
        let status = item.status_text.as_deref().unwrap_or("absent");
        return superseded(format!("its status is {status}, no longer {expected}"));
    }
    match &item.request {
        Some(request) if *request != input.sequence_number => {
            superseded("a later request took its place".to_owned())
        }
        _ => Ok(()),
    }
}

/// The answer to a request that keeps the rules; all that is wrong if it does not.
pub fn judge(
    input: &Input,
    item: &Enclave,
    image: Option<PublishedImage>,
) -> Result<Value, Failure> {
    let (request, mut problems) = Request::read(&item.provider_config);
    let image = match input.action {
        Action::Deploy => {
            problems.extend(check_id(&input.enclave_id));
            if let Some(image) = &image {
                problems.extend(request.check_image(image));
                problems.extend(check_measurements(image));
            } else if !request.docker_image.is_empty() {
                problems.push(Problem {
                    field: "dockerImage",
                    value: format!("{:?}", request.docker_image),
                    rule: "it was never published, so its measurements are unknown: publish it with `enclavectl publish`".to_owned(),
                });
            }
            if !problems.is_empty() {
                let count = problems.len();
                let list: Vec<_> = problems.iter().map(Problem::to_string).collect();
                let noun = if count == 1 { "problem" } else { "problems" };
                return Err(Failure::new(
                    VALIDATION_FAILED,
                    format!("the request has {count} {noun}: {}", list.join("; ")),
                ));
            }
            image
        }
        // What was deployed, whatever is published by now.
        Action::Destroy => deployed_image(item).or(image),
    };
    let image = Image {
        published: image.unwrap_or_else(|| nothing(&request)),
        runtime_configuration: runtime_configuration(&input.enclave_id),
        enable_debug: request.enable_debug,
    };
    answer(input, item, &request, &image)
}

/// The gate would find out too, but only once everything runs.
fn check_measurements(image: &PublishedImage) -> Option<Problem> {
    let error = serde_json::from_str::<Measurements>(&image.measurements).err()?;
    Some(Problem {
        field: "dockerImage",
        value: format!("{:?}", image.reference),
        rule: format!(
            "its published measurements cannot be read ({error}): publish it again with `enclavectl publish`"
        ),
    })
}

fn deployed_image(item: &Enclave) -> Option<PublishedImage> {
    let image: Image = serde_json::from_str(item.image.as_deref()?).ok()?;
    Some(image.published)
}

/// To destroy, the stack's image only has to be there.
fn nothing(request: &Request) -> PublishedImage {
    PublishedImage {
        reference: request.docker_image.clone(),
        bucket: String::new(),
        key: String::new(),
        sha256: String::new(),
        size: 0,
        measurements: String::new(),
        architecture: String::new(),
    }
}

fn answer(
    input: &Input,
    item: &Enclave,
    request: &Request,
    image: &Image,
) -> Result<Value, Failure> {
    let published = &image.published;
    let configuration = Configuration {
        instance_type: &request.instance_type,
        cpu_count: request.cpu_count,
        memory_mib: request.memory_mib,
        enable_debug: request.enable_debug,
        workload_type: request.workload_type.name(),
        health_check_path: &request.health_check_path,
        health_check_interval: request.health_check_interval,
        aws_services: &request.aws_services,
        expose_ports: &request.expose_ports,
        image: StackImage {
            reference: &published.reference,
            bucket: &published.bucket,
            key: &published.key,
            sha256: &published.sha256,
            size: published.size,
        },
        runtime_configuration: image.runtime_configuration.clone(),
    };
    let wallet_address = item.wallet_address.as_deref().unwrap_or_default();
    let ports: Vec<_> = request.expose_ports.iter().map(u16::to_string).collect();
    Ok(json!({
        "enclave_id": input.enclave_id,
        "action": input.action,
        "wallet_address": wallet_address,
        "configuration": configuration,
        "image": to_text(image)?,
        "environment": {
            "CONFIGURATION": to_text(&configuration)?,
            "WALLET_ADDRESS": wallet_address,
            "DOCKER_IMAGE": request.docker_image,
            "WORKLOAD_TYPE": request.workload_type.name(),
            "HEALTH_CHECK_PATH": request.health_check_path,
            "HEALTH_CHECK_INTERVAL": request.health_check_interval.to_string(),
            "AWS_SERVICES": request.aws_services.join(","),
            "EXPOSE_PORTS": ports.join(","),
        },
    }))
}

fn to_text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(Failure::internal)
}

/// Handles an invocation.
pub async fn handle(store: &Store, client: &Client, event: Value) -> Result<Value, Failure> {
    let input: Input = serde_json::from_value(event).map_err(Failure::input)?;
    let item = store.get(&input.enclave_id).await?;
    check_current(&input, item.as_ref())?;
    let item = item.unwrap_or_default();
    let (request, _) = Request::read(&item.provider_config);
    let known = input.action == Action::Destroy && deployed_image(&item).is_some();
    let image = if request.docker_image.is_empty() || known {
        None
    } else {
        published_image(
            client,
            &variable("IMAGES_TABLE_NAME")?,
            &request.docker_image,
        )
        .await?
    };
    let answer = judge(&input, &item, image)?;
    info!(
        enclave_id = input.enclave_id,
        action = input.action.name(),
        image = request.docker_image,
        "the request is valid"
    );
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use measurements::Pcr;

    use super::*;

    fn input(action: Action) -> Input {
        Input {
            enclave_id: "e-1".to_owned(),
            action,
            sequence_number: "7".to_owned(),
        }
    }

    fn item(status: &str, config: Value) -> Enclave {
        Enclave {
            id: "e-1".to_owned(),
            status_text: Some(status.to_owned()),
            provider_config: config,
            request: Some("7".to_owned()),
            ..Enclave::default()
        }
    }

    fn image() -> PublishedImage {
        PublishedImage {
            reference: "app:1".to_owned(),
            bucket: "artifacts".to_owned(),
            key: "images/ab.eif".to_owned(),
            sha256: "ab".repeat(32),
            size: 5,
            measurements: serde_json::to_string(&Measurements {
                pcr0: Pcr::new([1; 48]),
                pcr1: Pcr::new([2; 48]),
                pcr2: Pcr::new([3; 48]),
                pcr8: None,
            })
            .unwrap(),
            architecture: "x86_64".to_owned(),
        }
    }

    #[test]
    fn a_valid_request_becomes_texts_for_the_runner() {
        let item = item(
            "PENDING_DEPLOY",
            json!({"dockerImage": "app:1", "exposePorts": [80, 443], "awsServices": ["kms", "s3"]}),
        );
        let answer = judge(&input(Action::Deploy), &item, Some(image())).unwrap();
        let environment = answer["environment"].as_object().unwrap();
        assert!(environment.values().all(Value::is_string));
        assert_eq!(environment["EXPOSE_PORTS"], "80,443");
        assert_eq!(environment["AWS_SERVICES"], "kms,s3");
        let configuration: Value =
            serde_json::from_str(environment["CONFIGURATION"].as_str().unwrap()).unwrap();
        assert_eq!(configuration, answer["configuration"]);
        assert_eq!(
            configuration["runtime_configuration"],
            r#"{"enclave_id":"e-1"}"#
        );
        let kept: Image = serde_json::from_str(answer["image"].as_str().unwrap()).unwrap();
        assert_eq!(kept.published, image());
    }

    #[test]
    fn an_image_that_was_never_published_is_refused_among_all_else() {
        let item = item(
            "PENDING_DEPLOY",
            json!({"dockerImage": "app:2", "cpuCount": 1}),
        );
        let failure = judge(&input(Action::Deploy), &item, None).unwrap_err();
        assert_eq!(failure.kind, VALIDATION_FAILED);
        assert!(
            failure.message.starts_with("the request has 2 problems: "),
            "{failure}"
        );
        assert!(failure.message.contains("enclavectl publish"), "{failure}");
    }

    #[test]
    fn an_image_without_measurements_that_the_gate_can_read_is_refused() {
        for unreadable in ["", "{}", "[]", r#"{"Measurements":{"PCR0":"00"}}"#] {
            let item = item("PENDING_DEPLOY", json!({"dockerImage": "app:1"}));
            let mut image = image();
            image.measurements = unreadable.to_owned();
            let failure = judge(&input(Action::Deploy), &item, Some(image)).unwrap_err();
            assert_eq!(failure.kind, VALIDATION_FAILED);
            assert!(failure.message.contains("publish it again"), "{failure}");
        }
    }

    #[test]
    fn an_image_of_another_architecture_is_refused() {
        let config = json!({"dockerImage": "app:1", "instanceType": "m6g.xlarge"});
        let failure = judge(
            &input(Action::Deploy),
            &item("PENDING_DEPLOY", config),
            Some(image()),
        )
        .unwrap_err();
        assert!(
            failure
                .message
                .contains("it runs aarch64, and app:1 was built for x86_64")
        );
    }

    #[test]
    fn whatever_was_deployed_can_be_destroyed() {
        for config in [
            Value::Null,
            json!({"cpuCount": "many", "instanceType": "old.type"}),
        ] {
            let answer = judge(
                &input(Action::Destroy),
                &item("PENDING_DESTROY", config),
                None,
            )
            .unwrap();
            assert_eq!(answer["action"], "destroy");
        }
        let mut item = item("PENDING_DESTROY", json!({"dockerImage": "app:9"}));
        let kept = Image {
            published: image(),
            runtime_configuration: String::new(),
            enable_debug: false,
        };
        item.image = Some(serde_json::to_string(&kept).unwrap());
        let answer = judge(&input(Action::Destroy), &item, None).unwrap();
        assert_eq!(answer["configuration"]["image"]["sha256"], "ab".repeat(32));
    }

    #[test]
    fn a_request_that_is_not_the_last_is_superseded() {
        let pending = item("PENDING_DEPLOY", Value::Null);
        assert!(check_current(&input(Action::Deploy), Some(&pending)).is_ok());
        let mut later = pending.clone();
        later.request = Some("8".to_owned());
        for (action, item) in [
            (Action::Deploy, None),
            (Action::Destroy, Some(&pending)),
            (Action::Deploy, Some(&later)),
            (Action::Deploy, Some(&item("DEPLOYING", Value::Null))),
        ] {
            assert_eq!(
                check_current(&input(action), item).unwrap_err().kind,
                SUPERSEDED
            );
        }
    }
}
