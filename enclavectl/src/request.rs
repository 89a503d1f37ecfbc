//! Commands that ask for something: deploy, destroy, pause, resume.

use anyhow::Context;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use command_output::{errln, outln};
use control_plane_model::Failure;
use control_plane_model::attributes::{from_json, text};
use control_plane_model::item::{PROVIDER, name, timestamp};
use control_plane_model::request::{Problem, Request, check_id};
use control_plane_model::status::{Event, Status, refusal};
use control_plane_model::store::{Outcome, published_image};
use control_plane_model::update::Update;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::End;
use crate::cli::{Deploy, Move, Wait};
use crate::cloud::Cloud;
use crate::watch;

/// The fields of a request, and the options of `deploy` that set them.
const OPTIONS: [(&str, &str); 8] = [
    ("dockerImage", "--image"),
    ("instanceType", "--instance-type"),
    ("cpuCount", "--cpus"),
    ("memoryMiB", "--memory"),
    ("enableDebug", "--debug"),
    ("workloadType", "--workload"),
    ("exposePorts", "--port"),
    ("awsServices", "--service"),
];

pub(crate) async fn deploy(cloud: &Cloud, deploy: &Deploy, json: bool) -> anyhow::Result<End> {
    let config = provider_config(deploy);
    let (request, mut problems) = Request::read(&config);
    problems.extend(check_id(&deploy.id));
    let image = published_image(&cloud.dynamodb, &cloud.parts.tables.images, &deploy.image).await?;
    let Some(image) = image else {
        errln!(
            "enclavectl: {} was never published: `enclavectl publish {} FILE.eif`",
            deploy.image,
            deploy.image
        );
        return Ok(End::Refused);
    };
    problems.extend(request.check_image(&image));
    if !problems.is_empty() {
        for problem in problems {
            errln!("enclavectl: {}", in_options(problem));
        }
        return Ok(End::Refused);
    }
    if !write_deploy(cloud, deploy, &config).await? {
        return refused(cloud, &deploy.id, Status::PendingDeploy).await;
    }
    follow(cloud, &deploy.id, Status::PendingDeploy, deploy.wait, json).await
}

/// A problem of a field, by the name of the option that set it.
fn in_options(problem: Problem) -> Problem {
    let option = |field: &str| {
        let found = OPTIONS.iter().find(|(known, _)| *known == field);
        found.map(|(_, option)| *option)
    };
    Problem {
        field: option(problem.field).unwrap_or(problem.field),
        rule: OPTIONS.iter().fold(problem.rule, |rule, (field, option)| {
            rule.replace(field, option)
        }),
        value: problem.value,
    }
}

fn provider_config(deploy: &Deploy) -> Value {
    let mut config = Map::new();
    config.insert("dockerImage".to_owned(), deploy.image.as_str().into());
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
        }
    };
    set(
        "instanceType",
        deploy.instance_type.as_deref().map(Value::from),
    );
    set("cpuCount", deploy.cpus.map(Value::from));
    set("memoryMiB", deploy.memory.map(Value::from));
    set("enableDebug", deploy.debug.then_some(Value::Bool(true)));
    set("workloadType", deploy.workload.as_deref().map(Value::from));
    let ports = (!deploy.ports.is_empty()).then(|| json!(deploy.ports));
    set("exposePorts", ports);
    let services = (!deploy.services.is_empty()).then(|| json!(deploy.services));
    set("awsServices", services);
    Value::Object(config)
}

/// Writes the request where the table of statuses permits it, also over nothing.
async fn write_deploy(cloud: &Cloud, deploy: &Deploy, config: &Value) -> anyhow::Result<bool> {
    let mut call = cloud
        .dynamodb
        .update_item()
        .table_name(&cloud.parts.tables.enclaves)
        .key(name::ID, text(deploy.id.as_str()))
        .expression_attribute_names("#status", name::STATUS)
        .expression_attribute_values(":to", text(Status::PendingDeploy.name()))
        .expression_attribute_values(":config", from_json(config))
        .expression_attribute_values(":provider", text(PROVIDER))
        .expression_attribute_values(":now", text(timestamp(OffsetDateTime::now_utc())));
    let mut update =
        "SET #status = :to, providerConfig = :config, providerId = :provider, updated_at = :now"
            .to_owned();
    if let Some(wallet) = &deploy.wallet {
        update.push_str(", walletAddress = :wallet");
        call = call.expression_attribute_values(":wallet", text(wallet.as_str()));
    }
    let mut from = Vec::new();
    for (index, status) in Event::Deploy.from().into_iter().enumerate() {
        let alias = format!(":from{index}");
        call = call.expression_attribute_values(&alias, text(status.name()));
        from.push(alias);
    }
    let condition = format!(
        "attribute_not_exists(#status) OR #status IN ({})",
        from.join(", ")
    );
    let result = call
        .update_expression(update)
        .condition_expression(condition)
        .send()
        .await;
    match result {
        Ok(_) => Ok(true),
        Err(SdkError::ServiceError(error))
            if matches!(
                error.err(),
                UpdateItemError::ConditionalCheckFailedException(_)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(Failure::of_call(
            "UpdateItem",
            &cloud.parts.tables.enclaves,
            &error,
        ))
        .context("the request was not written"),
    }
}

pub(crate) async fn destroy(cloud: &Cloud, arguments: &Move, json: bool) -> anyhow::Result<End> {
    ask(cloud, arguments, Event::Destroy, json).await
}

pub(crate) async fn pause(cloud: &Cloud, arguments: &Move, json: bool) -> anyhow::Result<End> {
    ask(cloud, arguments, Event::Pause, json).await
}

pub(crate) async fn resume(cloud: &Cloud, arguments: &Move, json: bool) -> anyhow::Result<End> {
    ask(cloud, arguments, Event::Resume, json).await
}

async fn ask(cloud: &Cloud, arguments: &Move, event: Event, json: bool) -> anyhow::Result<End> {
    let id = arguments.id.as_str();
    cloud.enclave(id).await?;
    let update = Update::transition(id, event, OffsetDateTime::now_utc());
    if cloud.store.apply(&update).await? == Outcome::Lost {
        return refused(cloud, id, event.to()).await;
    }
    follow(cloud, id, event.to(), arguments.wait, json).await
}

async fn refused(cloud: &Cloud, id: &str, to: Status) -> anyhow::Result<End> {
    let item = cloud.enclave(id).await?;
    let status = item.status_text.as_deref().unwrap_or("without a status");
    let why = item
        .status()
        .and_then(|from| refusal(from, to))
        .unwrap_or("refused: it asks for this already, or changed just now; try again");
    errln!(
        "enclavectl: {id} is {status}: {}",
        why.trim_start_matches("refused: ")
    );
    Ok(End::Refused)
}

async fn follow(
    cloud: &Cloud,
    id: &str,
    asked: Status,
    wait: Wait,
    json: bool,
) -> anyhow::Result<End> {
    if wait.no_wait {
        if json {
            outln!("{}", json!({ "id": id, "status": asked.name() }));
        } else {
            outln!("{id}: {asked}; follow it with `enclavectl status {id} --watch`");
        }
        return Ok(End::Done);
    }
    watch::follow(cloud, id, wait.timeout, json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploy_calls_a_problem_by_its_option() {
        let config = json!({"dockerImage": "a", "cpuCount": 2, "memoryMiB": 16000});
        let (_, problems) = Request::read(&config);
        let said: Vec<_> = problems
            .into_iter()
            .map(|problem| in_options(problem).to_string())
            .collect();
        assert_eq!(
            said,
            [
                "--memory is 16000: m6i.xlarge has 16384 MiB and keeps 1024 of them: at most 15360, or a larger --instance-type"
            ]
        );
    }
}
