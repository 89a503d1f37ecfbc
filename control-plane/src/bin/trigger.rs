//! Lambda function on the table's stream: starts workflows.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::trigger;
use control_plane::workflows::{Arns, Workflows};
use control_plane_model::Failure;
use control_plane_model::clients::sdk_config;
use control_plane_model::log;
use control_plane_model::store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    log::start();
    let config = sdk_config().await;
    let store = Store::from_environment(aws_sdk_dynamodb::Client::new(&config))?;
    let workflows = Workflows::new(aws_sdk_sfn::Client::new(&config), Arns::from_environment());
    function::serve(async |event| {
        Ok::<_, Failure>(trigger::handle(&store, &workflows, &event).await)
    })
    .await
}
