"""The attestation gate: nothing becomes DEPLOYED without the right document."""


def test_an_enclave_of_another_image_is_refused_at_once_and_rolled_back(world):
    enclave = world.new(agent="other image")
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "AttestationRefused"
    assert "not what was asked for" in item["error_message"]
    assert (enclave, "destroy") in world.played
    assert item["attestation"]["state"] == "failed"
    assert "DEPLOYED" not in world.path(enclave)


def test_an_enclave_of_another_name_is_refused(world):
    enclave = world.new(agent="other enclave")
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "AttestationRefused"


def test_an_agent_that_never_calls_runs_into_the_gates_timeout(hurried_world):
    world = hurried_world
    enclave = world.new(agent="silent")
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "AttestationTimedOut"
    assert "agent" in item["error_message"]
    assert (enclave, "destroy") in world.played
    assert "attestation_token" not in item


def test_a_document_for_another_nonce_is_refused_and_the_right_one_still_counts(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    answer = world.submit(enclave, world.documents.make("00" * 32, enclave))
    assert not answer["accepted"] and "nonce" in answer["message"]
    assert world.item(enclave)["status"] == "DEPLOYING"
    world.play(enclave, agent="honest")
    world.wait(enclave, "DEPLOYED")


def test_a_document_after_the_nonce_has_expired_is_refused(hurried_world):
    import time
    world = hurried_world
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    challenge = world.wait_for_challenge(enclave)
    document = world.documents.make(challenge["nonce"], enclave)
    while world.challenge(enclave) is not None:
        time.sleep(0.2)
    answer = world.submit(enclave, document)
    assert not answer["accepted"] and "expired" in answer["message"]
    assert world.wait(enclave, "FAILED")["error_type"] == "AttestationTimedOut"


def test_a_replayed_document_is_harmless(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    challenge = world.wait_for_challenge(enclave)
    document = world.documents.make(challenge["nonce"], enclave)
    assert world.submit(enclave, document)["accepted"]
    world.wait(enclave, "DEPLOYED")
    before = world.item(enclave)
    assert world.submit(enclave, document)["accepted"]
    assert world.item(enclave) == before


def test_a_document_without_a_signature_is_refused(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    for nonsense in ("AAAA", "not base64!", ""):
        assert not world.submit(enclave, nonsense)["accepted"]
    world.play(enclave, agent="honest")
    world.wait(enclave, "DEPLOYED")


def test_a_gate_that_cannot_be_reached_for_a_while_is_tried_again(world):
    world.cloud.throttle({"lambda": 0.4})
    enclave = world.new()
    item = world.deploy(enclave)
    world.cloud.throttle({})
    assert item["status"] == "DEPLOYED", item.get("error_message")


def test_a_scheduled_attestation_renews_the_result(world):
    enclave = world.new()
    first = world.deploy(enclave)["attestation"]
    world.monitor("reattest")
    item = world.wait(enclave, "DEPLOYED", holds=lambda item: item["attestation"]["nonce"] != first["nonce"]
                      and item["attestation"]["state"] == "passed")
    assert item["attestation"]["reason"] == "schedule"
    assert world.path(enclave)[-1] == "DEPLOYED"


def test_a_scheduled_attestation_that_fails_is_recorded_and_leaves_the_enclave_deployed(world):
    enclave = world.new()
    world.deploy(enclave)
    world.play(enclave, agent="other image")
    world.monitor("reattest")
    item = world.wait(enclave, "DEPLOYED", holds=lambda item: item["attestation"]["state"] == "failed")
    assert item["attestation"]["reason"] == "schedule"
    assert world.settled(enclave, "attestation")[-1]["status"] == "FAILED"
    assert world.path(enclave)[-1] == "DEPLOYED"


def test_a_scheduled_attestation_that_nobody_answers_is_recorded(hurried_world):
    world = hurried_world
    enclave = world.new()
    world.deploy(enclave)
    world.play(enclave, agent="silent")
    world.monitor("reattest")
    world.wait(enclave, "DEPLOYED", holds=lambda item: item["attestation"]["state"] == "failed")
