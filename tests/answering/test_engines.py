"""What of answering is found before a model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from forecaster.answering import engines
from forecaster.errors import ConfigurationError
from forecaster.models.registry import BaseModel
from forecaster.progress import at_terminal
from forecaster.records import Messages
from forecaster.tasks.weekly import WEEKLY
from prompts import render_published

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its template renders every prompt but those that hold a certain word."""
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "sample" / "base", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}{% if 'odd' in m.content %}{{ m.content.odd.odd }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("is_trained", [False, True], ids=["base", "adapter"])
def test_a_template_that_fails_in_a_later_row_is_told_with_its_number(model: Path, is_trained: bool) -> None:
    plan = engines.EngineSettings(
        base=BaseModel(str(model), is_local=True),
        tokenizer_folder=model if is_trained else None,
        precision="fp32",
        quantization="none",
        trust_remote_code=False,
        max_length=200,
        max_new_tokens=20,
        task=WEEKLY,
    )
    texts = [
        (f"AAPL week {at}", render_published(Messages("Be brief.", text)))
        for at, text in enumerate(("AAPL?", "Well?", "An odd one?"))
    ]
    with pytest.raises(ConfigurationError) as refused:
        engines.answer(plan, [], texts, lambda *_: False, lambda *_: None, at_terminal())
    (problem,) = refused.value.problems
    assert problem.where == ("--adapter" if is_trained else "--base_model")
    assert problem.found == (
        f"the chat template of {model} fails in row 3 of 3, AAPL week 2: it cannot be rendered ('str object' "
        "has no attribute 'odd')."
    )
    assert problem.way_out.endswith("Or leave the row out.")
