//! Lambda function of the workflows: judges requests.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::validation;
use control_plane_model::clients::sdk_config;
use control_plane_model::log;
use control_plane_model::store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    log::start();
    let config = sdk_config().await;
    let client = aws_sdk_dynamodb::Client::new(&config);
    let store = Store::from_environment(client.clone())?;
    function::serve(|event| validation::handle(&store, &client, event)).await
}
