"""The workflows' definitions, as they are deployed."""

import json
import re
import subprocess

import environment
import pytest
import support

NAMES = ["deployment", "cleanup", "attestation"]


@pytest.fixture
def definitions(control_plane):
    machines = control_plane.resources("aws_sfn_state_machine")
    return {values["name"].rpartition("-")[2]: values["definition"] for _, values in machines}


def test_the_definitions_are_valid(definitions, tmp_path):
    assert sorted(definitions) == sorted(NAMES)
    linters = environment.linters()
    validator = [linters / "bin" / "node", linters / "node_modules" / ".bin" / "asl-validator"]
    arguments = []
    for name, text in definitions.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        arguments += ["--json-path", str(path)]
    run = subprocess.run([*validator, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_template_uses_all_that_it_is_given_and_nothing_else():
    folder = support.ROOT / "terraform" / "modules" / "step-functions"
    used = set()
    for name in NAMES:
        for expression in re.findall(r"\$\{(.+?)\}", (folder / f"{name}.asl.json.tftpl").read_text()):
            used |= set(re.findall(r"[a-z_]+", expression)) - {"jsonencode"}
    declared = re.search(r"type = object\(\{(.*?)\}\)", (folder / "variables.tf").read_text(), re.DOTALL)
    given = set(re.findall(r"^\s+(\w+)\s+=", declared.group(1), re.MULTILINE))
    assert used == given


def test_what_a_definition_calls_its_role_allows(control_plane, definitions):
    policies = {values["name"]: json.loads(values["policy"]) for _, values in control_plane.resources("aws_iam_role_policy")}
    for name, text in definitions.items():
        (policy,) = [policy for key, policy in policies.items() if key.endswith(f"-workflow-{name}")]
        by_sid = {statement["Sid"]: statement for statement in policy["Statement"]}
        functions = set(re.findall(r"arn:aws:lambda:[^\"]+", text))
        assert functions == set(by_sid["CallFunctions"]["Resource"]), name
        assert ("ecs:runTask" in text) == ("RunTerraform" in by_sid), name
        tables = set(re.findall(r'"TableName":\s*"([^"]+)"', text))
        assert {by_sid["WriteStatus"]["Resource"].rpartition("/")[2]} == tables, name
        services = set(re.findall(r"arn:aws:states:::([\w:-]+)", text))
        assert services <= {
            "lambda:invoke",
            "dynamodb:updateItem",
            "ecs:runTask",
        }, name
