"""That everything can be planned and applied, and what is in it."""

import json
import re

import pytest
import support

CONFIGURATIONS = ["", "bootstrap", "stacks/enclave"]


def test_the_files_have_terraforms_own_format():
    run = support.terraform(support.ROOT / "terraform", "fmt", "-check", "-recursive", "-diff", check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_valid(name, scratch):
    folder = support.ROOT / "terraform" / name
    data = {"TF_DATA_DIR": str(scratch)}
    support.terraform(folder, "init", "-backend=false", "-input=false", **data)
    run = support.terraform(folder, "validate", "-json", check=False, **data)
    assert '"valid": true' in run.stdout and '"warning_count": 0' in run.stdout, run.stdout


@pytest.mark.parametrize("name", ["", "stacks/enclave"])
def test_terraforms_own_tests_pass(name, functions, scratch):
    folder = support.ROOT / "terraform" / name
    data = {"TF_DATA_DIR": str(scratch)}
    support.terraform(folder, "init", "-backend=false", "-input=false", **data)
    # Variables that a configuration does not have would be errors.
    given = [] if name else [f"-var=functions_directory={functions}"]
    run = support.terraform(folder, "test", "-no-color", *given, check=False, **data)
    assert run.returncode == 0, run.stdout + run.stderr
    passed = int(re.search(r"(\d+) passed", run.stdout).group(1))
    files = list((folder / "tests").glob("*.tftest.hcl"))
    assert passed == sum(len(re.findall(r'^run "', file.read_text(), re.MULTILINE)) for file in files)


def test_there_are_at_least_sixty_assertions():
    files = (support.ROOT / "terraform").rglob("*.tftest.hcl")
    assert sum(len(re.findall(r"^\s+assert \{", file.read_text(), re.MULTILINE)) for file in files) >= 60


def test_an_environment_is_applied_and_then_stays_as_it_is(control_plane):
    assert "Apply complete!" in control_plane.applied.stdout
    again = support.terraform(
        control_plane.work, "plan", "-input=false", "-detailed-exitcode", *control_plane.variables, check=False
    )
    assert again.returncode == 0, again.stdout


def test_an_enclave_is_applied_stays_as_it_is_and_is_destroyed(enclave):
    again = support.terraform(
        enclave.work, "plan", "-input=false", "-detailed-exitcode", *enclave.variables, check=False
    )
    assert again.returncode == 0, again.stdout
    plan = support.terraform(enclave.work, "plan", "-destroy", "-input=false", "-no-color", *enclave.variables)
    count = len(enclave.resources())
    assert f"Plan: 0 to add, 0 to change, {count} to destroy." in plan.stdout


def test_the_bucket_of_the_state_is_applied(bootstrap):
    assert [values["bucket"] for _, values in bootstrap.resources("aws_s3_bucket")] == [
        "enclaves-dev-state-123456789012"
    ]


def test_each_environment_has_its_own_network_and_state(control_plane):
    folder = support.ROOT / "terraform" / "environments"
    ranges = {re.search(r'vpc_cidr\s*=\s*"(.+)"', (folder / name / "terraform.tfvars").read_text()).group(1) for name in support.ENVIRONMENTS}
    assert len(ranges) == len(support.ENVIRONMENTS)
    backend = (folder / control_plane.name / "backend.hcl").read_text()
    assert re.search(r"^use_lockfile\s+= true$", backend, re.MULTILINE)
    # It would take the place of the bucket's key.
    assert not re.search(r"^encrypt\b", backend, re.MULTILINE)


def test_there_are_no_provisioners_and_no_external_programs():
    for file in (support.ROOT / "terraform").rglob("*.tf"):
        text = file.read_text()
        assert not re.search(r"^\s*provisioner ", text, re.MULTILINE), file
        assert "null_resource" not in text and 'data "external"' not in text, file


def test_everything_that_can_have_tags_has_the_projects(control_plane):
    tagged = [(address, values["tags_all"]) for address, values in control_plane.resources() if "tags_all" in values]
    assert len(tagged) > 50
    for address, tags in tagged:
        assert tags["Project"] == "enclaves" and tags["Environment"] == control_plane.name, address


def test_each_log_group_forgets_and_is_encrypted(control_plane):
    groups = control_plane.resources("aws_cloudwatch_log_group")
    assert len(groups) == 11
    for address, values in groups:
        assert values["retention_in_days"] > 0 and values["kms_key_id"], address


def test_no_security_group_is_open(control_plane):
    rules = control_plane.resources("aws_vpc_security_group_ingress_rule")
    assert rules
    for address, values in rules:
        assert values["cidr_ipv4"] is None and values["cidr_ipv6"] is None, address
        assert (values["from_port"], values["to_port"]) == (443, 443), address
    for address, values in control_plane.resources("aws_security_group"):
        assert not values["ingress"] and not values["egress"], address


def test_names_of_projects_and_environments_as_long_as_they_may_be_fit_everywhere(functions, scratch):
    work = support.copy("", scratch)
    # The mock refuses names that a service would refuse: `rules.py`.
    support.terraform(
        work,
        "plan",
        "-input=false",
        f"-var-file={work}/environments/production/terraform.tfvars",
        f"-var=functions_directory={functions}",
        "-var=terraform_runner_image_version=v1.2.3",
        f"-var=agent_sha256={'a' * 64}",
        f"-var=project_name={'p' * 18}",
        f"-var=environment={'e' * 12}",
    )


def test_the_log_of_an_enclave_outlives_it_and_is_taken_over_by_the_next(enclave, scratch):
    ((_, group),) = enclave.resources("aws_cloudwatch_log_group")
    # A destroy takes it out of the state and leaves it in the account.
    assert group["skip_destroy"] is True
    work = support.copy("stacks/enclave", scratch)
    variables = [f"-var={name}={value}" for name, value in support.LONGEST.items()]
    others = [group["name"] + "-2", group["name"] + "/x"]
    for kept, summary in [([group["name"], *others], "Plan: 1 to import,"), (others, "Plan: ")]:
        plan = support.terraform(
            work, "plan", "-input=false", "-no-color", *variables,
            MOCK_AWS_DATA=json.dumps({"aws_cloudwatch_log_groups": {"log_group_names": kept}}),
        )  # fmt: skip
        (line,) = re.findall(r"^Plan: .*", plan.stdout, re.MULTILINE)
        assert line.startswith(summary) and ("import" in line) == (group["name"] in kept), line


def test_an_older_network_is_taken_over_as_the_manual_says(functions, scratch):
    work = support.copy("", scratch)
    manual = (support.ROOT / "docs" / "upgrade.md").read_text()
    (block,) = re.findall(r"```hcl\n(import \{.*?)```", manual, re.DOTALL)
    (work / "import.tf").write_text(block)
    plan = support.terraform(
        work,
        "plan",
        "-input=false",
        "-no-color",
        "-var-file=environments/dev/terraform.tfvars",
        f"-var=functions_directory={functions}",
        "-var=terraform_runner_image_version=v1.2.3",
        f"-var=agent_sha256={'a' * 64}",
    )
    assert "module.networking.aws_vpc.this will be" in plan.stdout
    assert re.search(r"^Plan: 1 to import,", plan.stdout, re.MULTILINE)


def test_a_table_of_another_application_is_used_as_it_is(functions, scratch):
    work = support.copy("", scratch)
    variables = [
        "-var-file=environments/dev/terraform.tfvars",
        f"-var=functions_directory={functions}",
        "-var=terraform_runner_image_version=v1.2.3",
        f"-var=agent_sha256={'a' * 64}",
        "-var=existing_dynamodb_table_name=theirs",
    ]
    described = {"stream_enabled": True, "stream_view_type": "NEW_AND_OLD_IMAGES", "hash_key": "id"}
    index = {"global_secondary_index": [{"name": "status-index"}]}
    run = support.terraform(
        work, "plan", "-input=false", "-no-color", *variables, check=False,
        MOCK_AWS_DATA=json.dumps({"aws_dynamodb_table": {**described, **index}}),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "aws_dynamodb_table.enclaves" not in run.stdout.replace("data.aws_dynamodb_table.enclaves", "")
    run = support.terraform(
        work, "plan", "-input=false", "-no-color", *variables, check=False,
        MOCK_AWS_DATA=json.dumps({"aws_dynamodb_table": described}),
    )  # fmt: skip
    assert run.returncode == 1
    assert "has no index status-index" in " ".join(run.stderr.split())
