"""User data, run for real, with a stand-in for the AWS command."""

import hashlib
import os
import subprocess

import pytest
import support

AGENT = """#!/bin/sh
echo "agent $*"
"""


@pytest.fixture(scope="session")
def user_data(enclave):
    ((_, instance),) = enclave.resources("aws_instance")
    return instance["user_data"]


def _run(user_data, folder, aws, agent=AGENT):
    """Runs the script with `aws` as the body of the AWS command, and gives what came
    of it: the process, and the agent's path."""
    programs = folder / "programs"
    programs.mkdir()
    (folder / "agent").write_text(agent)
    stub = f'#!/bin/sh\nagent={folder}/agent\ncount={folder}/count\necho "$*" >> {folder}/calls\n{aws}\n'
    for name, text in {"aws": stub, "sleep": "#!/bin/sh\nexit 0\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    digest = hashlib.sha256(AGENT.encode()).hexdigest()
    installed = folder / "parent-agent"
    script = user_data.replace("/usr/local/bin/parent-agent", str(installed)).replace("c" * 64, digest)
    run = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    return run, installed


def test_user_data_has_at_most_1_kib_with_the_longest_names(user_data):
    assert len(user_data.encode()) <= 1024
    assert support.LONGEST["enclave_id"] in user_data


def test_the_agent_is_fetched_checked_and_started(user_data, tmp_path):
    run, installed = _run(user_data, tmp_path, 'cp "$agent" "$5"')
    assert run.returncode == 0, run.stderr
    parameter = f"/{'p' * 18}/{'e' * 12}/enclaves/{'i' * 128}"
    assert run.stdout == f"agent bootstrap --config ssm:{parameter}\n"
    assert installed.stat().st_mode & 0o777 == 0o755
    digest = hashlib.sha256(AGENT.encode()).hexdigest()
    calls = (tmp_path / "calls").read_text()
    bucket = f"{'p' * 18}-{'e' * 12}-artifacts-123456789012"
    assert calls == f"s3 cp --quiet s3://{bucket}/agents/{digest} {installed}.new\n"


def test_an_agent_of_another_digest_is_not_run(user_data, tmp_path):
    run, installed = _run(user_data, tmp_path, 'cp "$agent" "$5"', agent=AGENT + "# changed\n")
    assert run.returncode == 1
    assert run.stdout == ""
    assert "not the one that was asked for" in run.stderr
    assert not installed.exists() and not installed.with_name("parent-agent.new").exists()


def test_the_download_is_tried_again_while_s3_is_out_of_reach(user_data, tmp_path):
    failing = 'echo . >> "$count"; [ "$(wc -l < "$count")" -gt 3 ] || exit 1; cp "$agent" "$5"'
    run, _ = _run(user_data, tmp_path, failing)
    assert run.returncode == 0, run.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == 4


def test_a_download_that_never_succeeds_is_given_up(user_data, tmp_path):
    run, installed = _run(user_data, tmp_path, "exit 1")
    assert run.returncode == 1
    assert "cannot be fetched" in run.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == 30
    assert not installed.exists()
