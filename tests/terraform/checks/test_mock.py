"""The mock itself: what runs Terraform relies on it."""

import json
import os
import signal
import subprocess
import time

import pytest
import support

CONFIGURATION = """
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  region = "eu-west-1"
}

resource "aws_instance" "this" {
  ami = "ami-1"

  enclave_options {
    enabled = true
  }
}

resource "aws_sqs_queue" "this" {
  name = "for-${aws_instance.this.id}"
}

output "queue" {
  value = aws_sqs_queue.this.arn
}
"""


@pytest.fixture
def folder(scratch):
    (scratch / "main.tf").write_text(CONFIGURATION)
    support.terraform(scratch, "init", "-input=false")
    return scratch


def _apply(folder, check=True, **variables):
    return support.terraform(folder, "apply", "-auto-approve", "-input=false", "-json", check=check, **variables)


def test_a_saved_plan_is_applied_with_output_in_json(folder):
    support.terraform(folder, "plan", "-input=false", "-out=plan")
    run = support.terraform(folder, "apply", "-input=false", "-json", "plan")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    (summary,) = [line["changes"] for line in lines if line["type"] == "change_summary"]
    assert summary["add"] == 2
    outputs = json.loads(support.terraform(folder, "output", "-json").stdout)
    instance = json.loads(support.terraform(folder, "show", "-json").stdout)["values"]["root_module"]["resources"][0]
    assert outputs["queue"]["value"] == f"arn:aws:sqs:eu-west-1:123456789012:for-{instance['values']['id']}"


def test_init_writes_no_lock_file_and_installs_nothing(folder):
    assert not (folder / ".terraform.lock.hcl").exists()
    assert not (folder / ".terraform" / "providers").exists()


def test_a_misspelt_attribute_is_an_error(folder):
    (folder / "main.tf").write_text(CONFIGURATION.replace("ami =", "amy ="))
    run = support.terraform(folder, "validate", "-json", check=False)
    assert run.returncode == 1 and 'argument named \\"amy\\" is not expected' in run.stdout


def test_a_name_that_the_service_would_refuse_is_an_error(folder):
    (folder / "main.tf").write_text(CONFIGURATION.replace("for-", "q" * 80 + "-"))
    run = support.terraform(folder, "apply", "-auto-approve", "-input=false", check=False)
    assert run.returncode == 1 and "80 are allowed" in run.stderr


def test_a_fault_fails_the_resource_and_what_was_made_stays_in_the_state(folder):
    faults = {"aws_sqs_queue": {"create": {"error": "QuotaExceeded: no more queues"}}}
    run = _apply(folder, check=False, MOCK_AWS_FAULTS=json.dumps(faults))
    assert run.returncode == 1 and "no more queues" in run.stdout
    assert support.terraform(folder, "state", "list").stdout.split() == ["aws_instance.this"]
    assert _apply(folder).returncode == 0


def test_the_journal_has_a_line_for_each_change(folder, tmp_path_factory):
    journal = tmp_path_factory.mktemp("journal") / "journal"
    _apply(folder, MOCK_AWS_JOURNAL=str(journal))
    support.terraform(folder, "destroy", "-auto-approve", "-input=false", MOCK_AWS_JOURNAL=str(journal))
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [f"{line['action']} {line['type']}" for line in lines] == [
        "create aws_instance",
        "create aws_sqs_queue",
        "delete aws_sqs_queue",
        "delete aws_instance",
    ]
    assert lines[0]["id"] == lines[3]["id"] and lines[0]["state"]["ami"] == "ami-1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(folder, number):
    faults = {"aws_instance": {"create": {"delay_seconds": 600}}}
    process = subprocess.Popen(
        [str(support.TERRAFORM), f"-chdir={folder}", "apply", "-auto-approve", "-input=false", "-json"],
        env={**os.environ, "MOCK_AWS_FAULTS": json.dumps(faults)},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if '"apply_start"' in line:
            break
    # The provider gets its call a moment after Terraform says so.
    time.sleep(0.5)
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 1
    assert "the operation was interrupted" in rest
    assert not (folder / ".terraform.tfstate.lock.info").exists()
