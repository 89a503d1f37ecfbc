"""That the manual speaks of what is there."""

import re

import support

DOCS = support.ROOT / "docs"
PAGES = ["terraform.md", "runbook.md", "upgrade.md", "security-model.md", "costs.md"]


def _variables(folder):
    text = (support.ROOT / "terraform" / folder / "variables.tf").read_text()
    return re.findall(r'^variable "(\w+)"', text, re.MULTILINE)


def test_each_input_is_in_the_manual():
    manual = (DOCS / "terraform.md").read_text()
    for folder in ["", "bootstrap"]:
        for name in _variables(folder):
            assert f"| `{name}` |" in manual, name


def test_each_alarm_is_in_the_runbook(control_plane):
    runbook = (DOCS / "runbook.md").read_text()
    headings = {re.sub(r"[`,]", "", heading).strip() for heading in re.findall(r"^### (.+)$", runbook, re.MULTILINE)}
    named = {name for heading in headings for name in heading.split()}
    # A heading of one alarm is its own anchor; one of several has an anchor for each.
    anchors = headings | set(re.findall(r'<a id="([^"]+)"></a>', runbook))
    prefix = f"enclaves-{control_plane.name}-"
    for _, values in control_plane.resources("aws_cloudwatch_metric_alarm"):
        name = values["alarm_name"].removeprefix(prefix)
        assert name in named, name
        anchor = values["alarm_description"].partition("docs/runbook.md#")[2]
        assert anchor in anchors, anchor


def test_costs_count_what_is_charged_each_month(control_plane):
    costs = (DOCS / "costs.md").read_text()
    alarms = len(control_plane.resources("aws_cloudwatch_metric_alarm"))
    assert f"| alarms | {alarms} |" in costs
    endpoints = [values for _, values in control_plane.resources("aws_vpc_endpoint") if values["vpc_endpoint_type"] == "Interface"]
    assert f"| interface endpoints | {len(endpoints)} in each zone |" in costs
    keys = len(control_plane.resources("aws_kms_key"))
    # The state's own is made by `bootstrap`; the check has one workload's key.
    assert f"| KMS keys | {keys} , and one".replace(" ,", ",") in costs


def test_commands_of_the_manual_exist():
    cli = (support.ROOT / "enclavectl" / "src" / "cli.rs").read_text()
    body = re.search(r"enum Command \{(.*?)^\}", cli, re.DOTALL | re.MULTILINE).group(1)
    commands = {name.lower() for name in re.findall(r"^    ([A-Z]\w+)\b", body, re.MULTILINE)}
    options = {name.replace("_", "-") for name in re.findall(r"^\s+(?:pub\(crate\) )?(\w+): ", cli, re.MULTILINE)}
    used = set()
    for page in PAGES:
        for text in re.findall(r"enclavectl ([^`#\n]+)", (DOCS / page).read_text()):
            words = re.sub(r"--(project|environment) \w+", "", text).replace("…", "").split()
            used |= set(words[:1])
            for word in words:
                if word.startswith("--"):
                    assert word[2:] in options, f"{page}: {text}"
    assert used <= commands, used - commands
    assert len(used) >= 8


def test_links_lead_somewhere():
    for page in [DOCS / name for name in PAGES]:
        text = page.read_text()
        anchors = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, f"{page.name}: {target}"
            elif not target.startswith("http"):
                assert (DOCS / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_what_metric_filters_look_for_is_what_the_functions_say(control_plane):
    source = "".join(path.read_text() for path in (support.ROOT / "control-plane" / "src").rglob("*.rs"))
    filters = control_plane.resources("aws_cloudwatch_log_metric_filter")
    assert filters
    for address, values in filters:
        (message,) = re.findall(r'\$\.message = "(.+)"', values["pattern"])
        assert f'"{message}"' in source, f"{address}: no function says {message!r}"


def test_metrics_that_alarms_watch_are_written_by_somebody(control_plane, enclave):
    source = "".join(path.read_text() for path in (support.ROOT / "control-plane" / "src").rglob("*.rs"))
    prefix = f"enclaves-{control_plane.name}-"
    filters = {
        values["metric_transformation"][0]["name"].removeprefix(own)
        for applied, own in [(control_plane, prefix), (enclave, f"{'p' * 18}-{'e' * 12}-")]
        for _, values in applied.resources("aws_cloudwatch_log_metric_filter")
    }
    watched = control_plane.resources("aws_cloudwatch_metric_alarm")
    assert {values["namespace"] for _, values in watched} >= {"Enclaves", "Enclaves/Logs"}
    for address, values in watched:
        if values["namespace"] == "Enclaves":
            assert f'"{values["metric_name"]}"' in source, address
        elif values["namespace"] == "Enclaves/Logs":
            assert values["metric_name"].removeprefix(prefix) in filters, address


def test_what_the_stack_looks_for_in_logs_is_what_the_agent_writes(enclave):
    folders = [support.ROOT / "parent-agent" / "src", support.ROOT / "crates" / "log-sinks" / "src"]
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.rs"))
    streams = (support.ROOT / "docs" / "logs.md").read_text()
    filters = enclave.resources("aws_cloudwatch_log_metric_filter")
    assert len(filters) == 9
    for address, values in filters:
        root, *names = re.findall(r"[a-z_]+", values["metric_transformation"][0]["value"])
        assert f'"{root}"' in source and root in streams, address
        for name in names:
            assert f"pub {name}: " in source, f"{address}: {name}"
