//! Several enclaves of one instance, from one configuration.

use std::path::Path;

use link::control::{FromAgent, FromInit};
use link::logs::LogStream;
use link::target::{Refusal, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::cloudwatch::CloudWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::{Agent, Init, command, nothing_is_left, until};
use crate::egress::{ask, listen, refusal};
use crate::fake_aws::FakeAws;
use crate::image::Builder;
use crate::ingress::accept;
use crate::logs::{Connection, record};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// An enclave of the instance, and whom it may talk to.
struct Enclave {
    agent: Agent,
    init: Init,
    /// Where its ingress port is open.
    open: String,
    destination: u16,
}

fn memory_mib(number: usize) -> usize {
    64 + 32 * number
}

/// One `run` of the instance's document.
fn run(folder: &Path, name: &str, environment: &[(&'static str, String)]) -> Agent {
    let mut command = command(folder, "run");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let config = folder.join("config.json");
    let arguments = ["--config", config.to_str().unwrap(), "--name", name];
    let directory = folder.join("s").join(name);
    Agent::spawn_as(tempfile::tempdir().unwrap(), directory, command, &arguments)
}

async fn boot(mut agent: Agent) -> (Agent, Init, String) {
    let started = agent.event("starting").await;
    let open = started["ports"][0]["listen"].as_str().unwrap().to_owned();
    agent.until_init_waits().await;
    let init = agent.boot().await;
    (agent, init, open)
}

/// Writes the document and its images, and gives where each enclave may connect to.
async fn configure(folder: &Path) -> Vec<(TcpListener, u16)> {
    let (mut servers, mut documents) = (Vec::new(), Vec::new());
    for (number, name) in NAMES.into_iter().enumerate() {
        let (server, destination) = listen().await;
        let images = folder.join(name);
        std::fs::create_dir(&images).unwrap();
        let rules = [format!("127.0.0.1:{destination}")];
        let image = Builder::new(&rules, &[(8080, 80)]).write(&images);
        documents.push(json!({
            "name": name,
            "id": format!("E_{name}"),
            "image": { "source": format!("file:{}", image.display()) },
            "cpus": 1 + number,
            "memory_mib": memory_mib(number),
            "runtime_configuration": format!("of {name}"),
            "publish": ["127.0.0.1:0:8080"],
            "log_group": format!("/group/{name}"),
            "gate": { "function": "gate", "interval": "50ms" },
        }));
        servers.push((server, destination));
    }
    let document = json!({ "enclaves": documents });
    std::fs::write(folder.join("config.json"), document.to_string()).unwrap();
    servers
}

#[tokio::test]
async fn multi_enclave_document_gives_each_of_four_its_own() {
    let (aws, logs) = (FakeAws::start().await, CloudWatch::start().await.unwrap());
    let mut environment = aws.environment();
    let url = logs.environment().swap_remove(1).1;
    environment.push(("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", url));
    aws.state().nonce = Some("00ff".to_owned());
    let folder: TempDir = tempfile::tempdir().unwrap();
    let servers = configure(folder.path()).await;

    let mut enclaves = Vec::new();
    for (name, (_, destination)) in NAMES.into_iter().zip(&servers) {
        let (agent, init, open) = boot(run(folder.path(), name, &environment)).await;
        enclaves.push(Enclave {
            agent,
            init,
            open,
            destination: *destination,
        });
    }

    for (number, name) in NAMES.into_iter().enumerate() {
        let others: Vec<u16> = enclaves
            .iter()
            .map(|enclave| enclave.destination)
            .filter(|port| *port != enclaves[number].destination)
            .collect();
        let enclave = &mut enclaves[number];
        assert_eq!(enclave.init.runtime_config, format!("of {name}").as_bytes());
        let facts = std::fs::read(enclave.agent.directory().join("enclave.json")).unwrap();
        let facts: Value = serde_json::from_slice(&facts).unwrap();
        let memory = facts["options"]["--memory-mib"].as_str().unwrap();
        assert_eq!(memory, memory_mib(number).to_string());

        // Its policy allows its own destination, and none of the others'.
        let ((_, reply), accepted) = tokio::join!(
            ask(&enclave.agent, "127.0.0.1", enclave.destination),
            servers[number].0.accept()
        );
        assert_eq!(reply, Reply::Connected);
        accepted.unwrap();
        for other in others {
            let (_, reply) = ask(&enclave.agent, "127.0.0.1", other).await;
            assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
        }

        // Its port leads to it.
        let listener = enclave.agent.listen();
        let mut client = TcpStream::connect(&enclave.open).await.unwrap();
        let mut inside = accept(&listener, &Reply::Connected).await;
        client.write_all(name.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = String::new();
        inside.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, name);

        // Its records go to its group.
        let mut connection = Connection::open(&enclave.agent).await;
        let line = format!("a line of {name}");
        connection
            .send(vec![record(LogStream::Application, 1, line.as_bytes())])
            .await;
        let group = format!("/group/{name}");
        until(|| logs.messages(&group, "application") == [line.clone()]).await;

        // The gate is shown a document of its own.
        let Some(FromAgent::Challenge { id, .. }) = enclave.init.receive().await else {
            panic!("no challenge");
        };
        let document = link::Bytes::new(name.as_bytes().to_vec()).unwrap();
        let answer = FromInit::Document { id, document };
        enclave.init.send(answer).await;
        assert_eq!(enclave.agent.event("gate").await["accepted"], true);
    }
    for name in NAMES {
        let id = format!("E_{name}");
        let asked = aws.state().asked.clone();
        assert!(asked.iter().any(|asked| asked["enclave_id"] == id.as_str()));
    }

    // One ends, and the others do not mind.
    let Enclave { agent, .. } = enclaves.remove(2);
    agent.end_init(3).await;
    agent.ended().await;
    for enclave in &enclaves {
        assert_eq!(enclave.agent.status().await["state"], "ready");
    }
    let (mut agent, _init, _) = boot(run(folder.path(), "three", &environment)).await;
    assert_eq!(agent.status().await["state"], "ready");
    agent.end_init(0).await;
    agent.event("ended").await;
    agent.finished().await;
    for Enclave { agent, .. } in enclaves {
        agent.end_init(0).await;
        agent.ended().await;
    }
    nothing_is_left(&folder).await;
}
