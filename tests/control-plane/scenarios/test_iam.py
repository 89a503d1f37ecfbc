"""The list of calls that IAM has to allow, against what the scenarios have called."""

from pathlib import Path

import pytest
from conftest import RECORDED
from iam.recorded import differences
from iam.render import render
from iam.rendering import Rendering


def test_the_list_of_calls_has_what_the_scenarios_call_and_nothing_else(request, tmp_path):
    files = {item.path.name for item in request.session.items}
    if files != {path.name for path in Path(__file__).parent.glob("test_*.py")} or request.config.option.keyword:
        pytest.skip("needs all scenarios")
    found = list(differences(Rendering(*render(tmp_path)), RECORDED))
    assert not found, "\n".join(found)
