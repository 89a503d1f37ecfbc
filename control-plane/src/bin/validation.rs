//! Lambda function of the workflows: judges requests.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::store::Store;
use control_plane::validation;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    function::log();
    let config = function::sdk_config().await;
    let client = aws_sdk_dynamodb::Client::new(&config);
    let store = Store::from_environment(client.clone())?;
    function::serve(|event| validation::handle(&store, &client, event)).await
}
