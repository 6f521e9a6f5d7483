"""What `predict` prints and draws for names of any kind."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from ensemble.inference.answers import Answer, MemberVote, answers_json, answers_text
from ensemble.inference.figure import write_figure
from ensemble.inference.prepare import Prepared
from tests.nasty_names import CONTROLS, NASTY


@pytest.fixture(params=[1, 2, 3])
def answers(request):
    """One picture for every name, which is that of its file, its class and its votes."""
    made = []
    for k, name in enumerate(NASTY):
        picture = Prepared(name, np.zeros((9, 7), np.uint8), np.zeros((request.param, 8, 8), np.uint8), False, False)
        probs_K = np.full(len(NASTY), 1e-6)
        probs_K[k] = 1 - 1e-6 * (len(NASTY) - 1)
        made.append(Answer(name, False, False, name, k, probs_K, 1, (MemberVote(0, "mlp", name, 0.9),), 0.5, picture))
    return made


def test_text_and_json(answers):
    text = answers_text(answers)
    assert not [sign for sign in CONTROLS if sign in text]
    assert len(text.splitlines()) == 1 + len(NASTY)
    assert "> 99.9 %" in text
    assert "100.0 %" not in text
    assert [answer["class"] for answer in json.loads(json.dumps(answers_json(answers, NASTY)))] == list(NASTY)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figure(answers, tmp_path, suffix):
    path = tmp_path / f"answers.{suffix}"
    write_figure(path, answers[:6], NASTY)
    if suffix == "svg":
        content = path.read_text()
        assert not [sign for sign in CONTROLS if sign in content]
        text = "".join(ElementTree.parse(io.StringIO(content)).getroot().itertext())
        assert "from_$5_to_$9 and $10" in text
        assert ">99.9" in text
