"""The table of a job's layers: every number in its place, empty columns left out, advice that can be pasted."""

import json
import shlex
from typing import Any

import pytest

from app.cli.inputs import read_recipe
from app.cli.layers import print_layers
from app.contracts.events import LayerRecord, Repair
from app.contracts.recipe.notation import validate_recipe

WORST = LayerRecord(
    step=1,
    method="quantize.static",
    layer="conv[0]",
    op="Conv",
    done=True,
    bits=8,
    sqnr_db=41.26,
    activation_bits=8,
    range=(-0.5, 6.25),
    output_sqnr_db=12.04,
    error_share=0.714,
    integer_kernel=True,
    repairs=[Repair(name="bias_correction", gain_db=0.4, kept=True), Repair(name="smoothing", kept=False)],
    advice=[{"method": "quantize.static", "exclude": ["conv[[]0]"]}],
)
PRUNED = LayerRecord(step=0, method="prune.magnitude", layer="conv[0]", op="Conv", done=True, sparsity=0.5)
SKIPPED = LayerRecord(
    step=1, method="quantize.static", layer="lstm", op="LSTM", done=False, reason="no integer kernel"
)  # fmt: skip
ADVICE = {"why": "conv[0] makes 71% of the error", "layers": ["conv[0]"], "recipe": WORST.advice}


def show(capsys: pytest.CaptureFixture[str], found: dict[str, Any]) -> list[str]:
    print_layers(found)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_a_table_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    data = [record.model_dump(mode="json") for record in (PRUNED, WORST, SKIPPED)]
    lines = show(capsys, {"data": data, "advice": [ADVICE]})
    words = [line.split() for line in lines]
    assert lines[0] == "step 1: prune.magnitude"
    assert words[1] == ["layer", "operator", "zeros"]
    assert words[3] == ["conv[0]", "Conv", "50.0", "%"]
    assert lines[4] == "step 2: quantize.static"
    assert " ".join(words[5]) == "layer operator bits range weights output share of the error kernel remark"
    assert " ".join(words[7]) == ("conv[0] Conv W8A8 -0.5 .. 6.25 41.3 dB 12.0 dB ####### 71.4 % integer loses most")
    assert " ".join(words[8]) == "lstm LSTM no integer kernel"
    assert lines[9:11] == ["tried bias_correction: +0.4 dB, kept", "tried smoothing: not kept"]


def test_advice_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = show(capsys, {"data": [WORST.model_dump(mode="json")], "advice": [ADVICE]})
    assert lines[-2] == "advice: conv[0] makes 71% of the error"
    option, recipe = shlex.split(lines[-1])
    assert option == "--recipe"
    assert json.loads(recipe) == WORST.advice
    assert read_recipe(recipe) == validate_recipe(WORST.advice)


def test_a_job_that_has_not_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, {"data": [], "advice": []}) == [
        "nothing is told of its layers; they are known once a job has succeeded"
    ]
