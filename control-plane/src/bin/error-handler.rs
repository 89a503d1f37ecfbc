//! Lambda function of the workflows: marks what failed, and tells people.

#![forbid(unsafe_code)]

use control_plane::failure;
use control_plane::function;
use control_plane_model::clients::sdk_config;
use control_plane_model::environment::optional;
use control_plane_model::log;
use control_plane_model::store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    log::start();
    let config = sdk_config().await;
    let store = Store::from_environment(aws_sdk_dynamodb::Client::new(&config))?;
    let topic = optional("SNS_TOPIC_ARN");
    let sns = aws_sdk_sns::Client::new(&config);
    function::serve(|event| {
        let topic = topic.as_deref().map(|arn| (&sns, arn));
        failure::handle(&store, topic, event)
    })
    .await
}
