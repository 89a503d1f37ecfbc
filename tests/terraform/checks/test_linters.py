"""What others' checkers say."""

import json
import re
import subprocess

import environment
import pytest
import support


def _program(name):
    return environment.linters() / "bin" / name


def _run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=support.ROOT)


def test_checkov_finds_nothing_that_is_not_accepted_with_a_reason():
    python = _program("python")
    arguments = ("--framework", "terraform", "--skip-download", "--compact", "--quiet", "--output", "json")
    run = _run(python, "-m", "checkov.main", "--directory", "terraform", *arguments)
    report = json.loads(run.stdout)
    failed = [f"{check['check_id']} {check['resource']} ({check['file_path']}): {check['check_name']}" for check in report["results"]["failed_checks"]]
    assert not failed, "\n".join(failed)
    assert report["summary"]["passed"] > 150
    assert report["summary"]["parsing_errors"] == 0


def test_user_data_is_sound_shell(enclave, tmp_path):
    ((_, instance),) = enclave.resources("aws_instance")
    script = tmp_path / "user-data"
    script.write_text(instance["user_data"])
    run = _run(_program("shellcheck"), script)
    assert run.returncode == 0, run.stdout


def test_container_files_are_sound():
    files = sorted(support.ROOT.glob("crates/*/Containerfile"))
    assert files
    run = _run(_program("hadolint"), *files)
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_the_task_writes_to_is_its_users(control_plane):
    # Fargate gives a mounted volume to root, unless the image declares it.
    ((_, task),) = control_plane.resources("aws_ecs_task_definition")
    (container,) = json.loads(task["container_definitions"])
    file = (support.ROOT / "crates/terraform-runner/Containerfile").read_text()
    declared = json.loads(re.search(r"^VOLUME (.+)$", file, re.MULTILINE).group(1))
    assert [mount["containerPath"] for mount in container["mountPoints"]] == declared


@pytest.mark.parametrize("linter", ["actionlint", "zizmor"])
def test_workflows_of_github_are_sound(linter):
    files = sorted((support.ROOT / ".github" / "workflows").glob("*.yml"))
    assert files
    if linter == "zizmor":
        arguments = ("--offline", "--no-progress", "--persona", "pedantic")
    else:
        arguments = ("-shellcheck", _program("shellcheck"))
    run = _run(_program(linter), *arguments, *files)
    assert run.returncode == 0, run.stdout + run.stderr
