"""Likelihoods of labels with vLLM's interface, on a stand-in that computes what vLLM documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from processes import ROOT
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from forecaster.answering import vllm_engine
from forecaster.answering.choice_likelihoods import choice_tree
from forecaster.answering.hf_engine import Generated, Prompt
from forecaster.tasks.weekly import WEEKLY

READS = (
    "[Positive Developments]:\n1. A rise.\n\n[Prediction & Analysis]:\nPrediction: Up by 2-3%\nAnalysis: ok."
)
MUTE = "I cannot tell."
PROMPTS = [Prompt("a", (5, 6, 7), 0), Prompt("b", (5, 9), 0)]


class Engine:
    """Writes the texts that it is given, and tells the likelihood of each token of a prompt."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, **shape)
        self.model = LlamaForCausalLM(config).eval()
        self.tokenizer, self.texts = tokenizer, list(texts)
        self.loras: list[Any] = []

    def logs(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def generate(self, prompts: Any, params: Any, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
        self.loras.append(lora_request)
        if getattr(params, "prompt_logprobs", None) is None:
            ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts]
            pairs = zip(self.texts, ids, strict=True)
            return [SimpleNamespace(outputs=[SimpleNamespace(text=t, token_ids=i)]) for t, i in pairs]
        found = []
        for prompt in prompts:
            ids = prompt["prompt_token_ids"]
            logs = self.logs(ids)
            told = [{i: SimpleNamespace(logprob=float(logs[at, i]))} for at, i in enumerate(ids[1:])]
            found.append(SimpleNamespace(prompt_logprobs=[None, *told]))
        return found


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ROOT / "sample" / "base")


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    modules["vllm"].SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    modules["vllm.lora.request"].LoRARequest = lambda *given: given  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def answers(engine: Engine, adapter: Path | None = None, max_length: int = 512) -> tuple[Generated, ...]:
    (batch,) = vllm_engine.generate(
        engine,
        engine.tokenizer,
        PROMPTS,
        adapter,
        max_new_tokens=99,
        max_length=max_length,
        choices=WEEKLY.choices,
    )
    return batch.answers


def adapter_of(folder: Path, *targets: str) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": targets}), encoding="utf-8")
    return folder


def test_each_label_has_the_likelihood_of_its_tokens_behind_prompt_and_answer(
    tokenizer: Any, tmp_path: Path
) -> None:
    engine = Engine(tokenizer, [READS, MUTE])
    read, mute = answers(engine, adapter_of(tmp_path, "q_proj"))
    assert mute.label_log_likelihoods is None
    assert read.label_log_likelihoods is not None and len(read.label_log_likelihoods) == 12
    tree = choice_tree(tokenizer, WEEKLY.choices) if WEEKLY.choices else None
    assert tree is not None
    before = READS[: READS.index(" Up by")]
    begun = [5, 6, 7, *tokenizer(before, add_special_tokens=False)["input_ids"]]
    for label, path in zip(tree.choices.labels, tree.paths, strict=True):
        tokens = [token for _, token in path]
        logs = engine.logs([*begun, *tokens])
        expected = sum(float(logs[len(begun) - 1 + at, token]) for at, token in enumerate(tokens))
        assert read.label_log_likelihoods[label] == pytest.approx(expected, abs=1e-4)
    assert len(engine.loras) == 2 and engine.loras[0] == engine.loras[1]  # both of the fine-tuned model


def test_where_no_answer_has_a_place_nothing_more_is_asked(tokenizer: Any) -> None:
    engine = Engine(tokenizer, [MUTE, MUTE])
    assert [of.label_log_likelihoods for of in answers(engine)] == [None, None]
    assert len(engine.loras) == 1


def test_a_place_without_room_for_a_label_has_none(tokenizer: Any) -> None:
    engine = Engine(tokenizer, [READS, MUTE])
    place = len(tokenizer(READS[: READS.index(" Up by")], add_special_tokens=False)["input_ids"])
    assert answers(engine, max_length=3 + place + 5)[0].label_log_likelihoods is None


def test_an_adapter_of_the_head_has_none(tokenizer: Any, tmp_path: Path) -> None:
    engine = Engine(tokenizer, [READS, MUTE])
    found = answers(engine, adapter_of(tmp_path, "lm_head", "q_proj"))
    assert [of.label_log_likelihoods for of in found] == [None, None]
