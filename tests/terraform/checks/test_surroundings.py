"""That functions, runner and stack are told what their code asks for."""

import json
import re

import support

CONTROL_PLANE = [support.ROOT / "control-plane" / "src", support.ROOT / "crates" / "control-plane-model" / "src"]
RUNNER = support.ROOT / "crates" / "terraform-runner" / "src"
# Of a local cloud only: docs/control-plane.md.
ONLY_LOCAL = {"ATTESTATION_ROOT_PEM"}
# Lambda sets it: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
OF_LAMBDA = {"AWS_REGION"}


def _source(*folders):
    return "".join(path.read_text() for folder in folders for path in folder.rglob("*.rs"))


def test_functions_have_the_variables_that_they_read(control_plane):
    source = _source(*CONTROL_PLANE)
    read = set(re.findall(r'(?:variable|optional)\("([A-Z_]+)"\)', source)) - ONLY_LOCAL - OF_LAMBDA
    assert len(read) > 7
    for address, values in control_plane.resources("aws_lambda_function"):
        given = values["environment"][0]["variables"]
        assert read <= given.keys(), f"{address}: {read - given.keys()}"
        assert all(given.values()), address


def test_the_runner_reads_the_variables_that_it_has(control_plane):
    source = _source(RUNNER)
    ((_, task),) = control_plane.resources("aws_ecs_task_definition")
    (container,) = json.loads(task["container_definitions"])
    for variable in container["environment"]:
        assert f'"{variable["name"]}"' in source, variable
        assert variable["value"], variable


def test_the_stack_takes_what_the_runner_writes():
    struct = re.search(
        r"struct Variables<'a> \{(.*?)^\}", (RUNNER / "variables.rs").read_text(), re.DOTALL | re.MULTILINE
    ).group(1)
    written = set(re.findall(r"^    (\w+): ", struct, re.MULTILINE))
    optional = set(re.findall(r"^    (\w+): Option<", struct, re.MULTILINE))
    text = (support.ROOT / "terraform" / "stacks" / "enclave" / "variables.tf").read_text()
    blocks = dict(re.findall(r'^variable "(\w+)" \{(.*?)^\}', text, re.DOTALL | re.MULTILINE))
    required = {name for name, block in blocks.items() if not re.search(r"^  default\b", block, re.MULTILINE)}
    assert written <= blocks.keys(), written - blocks.keys()
    assert required <= written - optional, required - (written - optional)


def test_the_stack_has_the_outputs_that_the_deployment_writes_to_the_item():
    text = (support.ROOT / "terraform" / "stacks" / "enclave" / "outputs.tf").read_text()
    folder = support.ROOT / "terraform" / "modules" / "step-functions"
    definition = (folder / "deployment.asl.json.tftpl").read_text()
    given = set(re.findall(r'^output "(\w+)"', text, re.MULTILINE))
    assert given == set(re.findall(r"\$outputs\.(\w+)", definition))
