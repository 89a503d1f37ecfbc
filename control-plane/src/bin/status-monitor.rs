//! Lambda function on a schedule: moves on what is in motion.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::monitor::Monitor;
use control_plane::workflows::{Arns, Workflows};
use control_plane_model::clients::sdk_config;
use control_plane_model::environment::variable;
use control_plane_model::log;
use control_plane_model::store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    log::start();
    let config = sdk_config().await;
    let store = Store::from_environment(aws_sdk_dynamodb::Client::new(&config))?;
    let workflows = Workflows::new(aws_sdk_sfn::Client::new(&config), Arns::from_environment());
    let aws = aws_request::Client::new(&config)?;
    let index = variable("STATUS_INDEX_NAME")?;
    let monitor = Monitor::new(store, workflows, aws, index);
    function::serve(|event| monitor.handle(event)).await
}
