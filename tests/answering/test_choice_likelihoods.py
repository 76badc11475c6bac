"""Likelihoods of the twelve labels in one pass behind the cache: exact, and where they are read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import ROOT
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, StaticCache

from forecaster.answering import hf_engine
from forecaster.answering.choice_likelihoods import (
    ChoiceTree,
    choice_log_likelihoods,
    choice_tree,
    find_place,
)
from forecaster.records import ALL_LABELS
from forecaster.tasks.base import Choices
from forecaster.tasks.weekly import WEEKLY

# How the published vocabularies cut a text into words: Llama-3 up to three digits at a time, Qwen each alone.
CUTS = {
    "llama3": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
CHOICES = WEEKLY.choices
assert CHOICES is not None


def tokenizer_that_cuts(pattern: str) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary in which the words of labels are whole."""
    core = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    assert CHOICES
    lines = [f"\n{CHOICES.before}{text}{CHOICES.after}" for text in CHOICES.texts]
    core.train_from_iterator(lines * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@pytest.fixture(scope="module")
def embedded() -> Any:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "sample" / "base")
    tokenizer.padding_side = "left"
    return tokenizer


@pytest.fixture(scope="module")
def model(embedded: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(embedded), num_key_value_heads=2, initializer_range=0.4, **shape)
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("family", CUTS)
def test_the_labels_of_a_published_vocabulary_are_a_tree_of_44_nodes(family: str) -> None:
    tokenizer = tokenizer_that_cuts(CUTS[family])
    tree = choice_tree(tokenizer, CHOICES)
    assert tree is not None
    assert tokenizer.convert_ids_to_tokens(tree.lead) == ["Prediction", ":"]
    assert {len(path) for path in tree.paths} == {7}
    assert len(tree.tokens) == 1 + 44  # and the last token before them
    up_by_2_3 = tree.paths[
        ALL_LABELS.index(next(label for label in ALL_LABELS if label.text == "up by 2-3%"))
    ]
    words = tokenizer.convert_ids_to_tokens([token for _, token in up_by_2_3])
    # What follows belongs to the last token, as it does in training.
    assert words == ["ĠUp", "Ġby", "Ġ", "2", "-", "3", "%Ċ"]
    branching = [node for node in range(45) if len({t for p in tree.paths for n, t in p if n == node}) > 1]
    assert len(branching) == 5


def test_the_embedded_vocabulary_has_a_tree(embedded: Any) -> None:
    tree = choice_tree(embedded, CHOICES)
    assert tree is not None
    assert len(tree.paths) == 12
    assert len(tree.tokens) == len(set(zip(tree.parents, tree.tokens, strict=True)))


def test_a_token_across_the_border_leaves_no_place(embedded: Any) -> None:
    across = Choices("Predic", ("a", "b"), ("tion", "ting"), "\n", lambda _: True)
    assert choice_tree(embedded, across) is None


ANSWER = (
    "[Positive Developments]:\n1. A rise.\n\n[Potential Concerns]:\n1. A fall.\n\n[Prediction & Analysis]:\n"
)


@pytest.mark.parametrize(
    ("text", "is_there"),
    [
        (f"{ANSWER}Prediction: Up by 2-3%\nAnalysis: good.", True),
        (f"<think>\nPrediction: Down by 1-2%\n</think>{ANSWER}Prediction: Up by 2-3%\nAnalysis: ok.", True),
        ("Prediction: Up by 2-3%", True),
        ("My Prediction: Up by 2-3%", False),
        ("<think>\nPrediction: Up by 2-3%", False),
        ("I see no way to tell.", False),
        ("", False),
    ],
)
def test_the_place_begins_a_line_outside_of_thoughts(embedded: Any, text: str, is_there: bool) -> None:
    tree = choice_tree(embedded, CHOICES)
    assert tree and CHOICES
    ids = embedded(text, add_special_tokens=False)["input_ids"]
    place = find_place(embedded, tree, ids)
    if not is_there:
        assert place is None
        return
    assert place is not None
    before = embedded.decode(ids[:place])
    assert before.endswith("Prediction:")
    assert text == before + embedded.decode(ids[place:])
    assert text[len(before) :].startswith(" Up by 2-3%")


def one_by_one(model: Any, tree: ChoiceTree, prefix: list[int]) -> list[float]:
    found = []
    for path in tree.paths:
        tokens = [token for _, token in path]
        with torch.inference_mode():
            logits = model(torch.tensor([prefix + tokens])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[len(prefix) - 1 + at, token]) for at, token in enumerate(tokens)))
    return found


@pytest.mark.parametrize("attention", ["sdpa", "sdpa_repeated", "eager"])
def test_a_tree_scores_as_one_by_one_does(model: Any, embedded: Any, attention: str) -> None:
    import forecaster.models.loading  # noqa: F401  # knows the repeated kind

    model.set_attn_implementation(attention)
    tree = choice_tree(embedded, CHOICES)
    assert tree
    prompts = [[1, 40, 41, 42, 43, 44], [1, 90], [1, 7, 8, 9]]
    answers = [[50, 51, *tree.lead, 60, 61, 62], [*tree.lead, 70, 71, 72, 73, 74], [80] * 7]
    longest = max(len(answer) for answer in answers)
    answers = [answer + [2] * (longest - len(answer)) for answer in answers]
    padded = embedded.pad({"input_ids": prompts}, return_tensors="pt")
    sequences = torch.cat([padded["input_ids"], torch.tensor(answers)], dim=1)
    mask = torch.cat([padded["attention_mask"], torch.ones(3, longest, dtype=torch.long)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        cache = model(sequences[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1])
    places = [2 + len(tree.lead), len(tree.lead), None]
    found = choice_log_likelihoods(
        model, tree, cache.past_key_values, padded["attention_mask"], sequences, places
    )
    assert found[2] is None
    for row in (0, 1):
        expected = one_by_one(model, tree, prompts[row] + answers[row][: places[row]])
        assert found[row] == pytest.approx(dict(zip(CHOICES.labels, expected, strict=True)), abs=1e-4)
        assert max(expected) - min(expected) > 1  # they do differ
        assert sum(torch.tensor(expected).exp()) < 1


def test_answers_bring_the_likelihoods_of_their_choices(
    model: Any, embedded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through generation, with its static cache; a random model writes no forecast, so the place lies behind
    a token that it does write."""
    model.set_attn_implementation("sdpa")
    prompts = [hf_engine.Prompt("a", (1, 40, 41, 42), 0), hf_engine.Prompt("b", (1, 90), 0)]
    with torch.inference_mode():
        written = model.generate(torch.tensor([[1, 90]]), max_new_tokens=4, do_sample=False, pad_token_id=2)
    lead = int(written[0, 4])
    choices = Choices(
        "", ("a", "b", "c"), ("", "", ""), "", lambda before: before.count(embedded.decode([lead])) == 0
    )
    paths = (((0, 300), (1, 300), (2, 5)), ((0, 300), (1, 6)), ((0, 7),))
    tree = ChoiceTree(choices, (lead,), (lead, 300, 300), (-1, 0, 1), paths)
    monkeypatch.setattr(hf_engine, "choice_tree", lambda *_: tree)
    (batch,) = hf_engine.generate(
        model, embedded, [prompts], max_new_tokens=6, warn=pytest.fail, choices=choices
    )
    by_id = {answer.row_id: answer.label_log_likelihoods for answer in batch.answers}
    at = written[0].tolist().index(lead, 2)
    expected = one_by_one(model, tree, written[0, : at + 1].tolist())
    assert by_id["b"] == pytest.approx(dict(zip("abc", expected, strict=True)), abs=1e-4)


def test_a_static_cache_serves_as_well(model: Any, embedded: Any) -> None:
    tree = choice_tree(embedded, CHOICES)
    assert tree
    ids = [1, 40, 41, *tree.lead, 60, 61]
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.inference_mode():
        model(torch.tensor([ids[:-1]]), past_key_values=cache, use_cache=True)
    found = choice_log_likelihoods(
        model, tree, cache, torch.ones(1, 3, dtype=torch.long), torch.tensor([ids]), [len(tree.lead)]
    )
    expected = one_by_one(model, tree, ids[: 3 + len(tree.lead)])
    assert found[0] == pytest.approx(dict(zip(CHOICES.labels, expected, strict=True)), abs=1e-4)
