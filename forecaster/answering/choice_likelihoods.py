"""How likely a model holds each text that one place of its answer can take, in one pass behind its cache.

The texts are tokenised together with what stands around them in training, cut behind the token of their last
character, and put into a tree, where those that begin alike share their nodes. No length is normalised away:
what is added up are log-likelihoods of whole texts, so their likelihoods sum to at most one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from forecaster.tasks.base import Choices

_LINE_BREAK = "\n"


@dataclass(frozen=True)
class ChoiceTree:
    """Token paths of all choices; node 0 is the last token before them."""

    choices: Choices
    lead: tuple[int, ...]
    """Tokens of what stands before a choice."""
    tokens: tuple[int, ...]
    """Of each node that is fed: all but the last one of each path."""
    parents: tuple[int, ...]
    """Of each node; parents come before their children, and node 0 has none (-1)."""
    paths: tuple[tuple[tuple[int, int], ...], ...]
    """Of each choice: the node that foretells, and the token that it has to foretell."""

    @cached_property
    def depths(self) -> list[int]:
        """Steps of each node from node 0."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + 1)
        return found

    @cached_property
    def ancestry(self) -> torch.Tensor:
        """(nodes, nodes), bool: which nodes a node sees, itself among them."""
        sees = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                sees[node] |= sees[parent]
        return sees


def choice_tree(tokenizer: PreTrainedTokenizerBase, choices: Choices) -> ChoiceTree | None:
    """The tree of a task's choices; None where a token of this tokenizer reaches from what stands before them
    into them, so that there is no place between two tokens."""
    # A line break in front: some tokenizers begin a text otherwise than a line.
    start = len(_LINE_BREAK)
    begin = start + len(choices.before)
    sequences: list[tuple[int, ...]] = []
    leads: set[tuple[int, ...]] = set()
    for text in choices.texts:
        whole = f"{_LINE_BREAK}{choices.before}{text}{choices.after}"
        encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        spans = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        if any(low < begin < high for _, (low, high) in spans):
            return None
        leads.add(tuple(token for token, (low, _) in spans if start <= low < begin))
        last = next(at for at, (_, (_, high)) in enumerate(spans) if high >= begin + len(text))
        sequences.append(tuple(token for token, (low, _) in spans[: last + 1] if low >= begin))
    lead = leads.pop()
    if leads or not lead:
        return None
    return _tree(choices, lead, sequences)


def _tree(choices: Choices, lead: tuple[int, ...], sequences: Sequence[tuple[int, ...]]) -> ChoiceTree:
    tokens, parents = [lead[-1]], [-1]
    nodes: dict[tuple[int, ...], int] = {(): 0}
    for sequence in sequences:
        for length in range(1, len(sequence)):
            if sequence[:length] not in nodes:
                nodes[sequence[:length]] = len(tokens)
                tokens.append(sequence[length - 1])
                parents.append(nodes[sequence[: length - 1]])
    paths = [
        tuple((nodes[sequence[:at]], token) for at, token in enumerate(sequence)) for sequence in sequences
    ]
    return ChoiceTree(choices, lead, tuple(tokens), tuple(parents), tuple(paths))


def find_place(tokenizer: PreTrainedTokenizerBase, tree: ChoiceTree, ids: Sequence[int]) -> int | None:
    """How many tokens of an answer stand before its choice; None where it has no place for one.

    The first place counts that begins a line, as it does in training, and lies in no think block.
    """
    length = len(tree.lead)
    for at in range(len(ids) - length + 1):
        if tuple(ids[at : at + length]) == tree.lead:
            before = str(tokenizer.decode(ids[:at], skip_special_tokens=True))
            if tree.choices.can_follow(before):
                return at + length
    return None


@torch.inference_mode()
def choice_log_likelihoods(
    model: PreTrainedModel,
    tree: ChoiceTree,
    cache: Cache,
    prompt_mask: torch.Tensor,
    sequences: torch.Tensor,
    places: Sequence[int | None],
) -> list[dict[str, float] | None]:
    """The log-likelihood of each choice by its label, given prompt and answer up to its place, by row.

    Args:
        cache: of all tokens but the last one, as `generate` leaves it; it is not used again.
        prompt_mask: (rows, prompt tokens), 0 for padding, which is on the left.
        sequences: (rows, prompt and answer tokens).
        places: tokens of each row's answer before its choice; None: the row is not scored.
    """
    scored = [row for row, place in enumerate(places) if place is not None]
    if not scored:
        return [None] * len(places)
    cached, nodes = sequences.shape[1] - 1, len(tree.tokens)
    begins = prompt_mask.sum(1).tolist()
    seen = torch.zeros(len(places), 1, nodes, cached + nodes, dtype=torch.bool)
    seen[:, :, :, : prompt_mask.shape[1]] = prompt_mask.bool().cpu()[:, None, None, :]
    seen[:, :, :, cached:] = tree.ancestry
    positions = torch.zeros(len(places), nodes, dtype=torch.long)
    depths = torch.tensor(tree.depths)
    for row in scored:
        # Node 0 is fed again: nobody kept what it foretold.
        known = (places[row] or 0) - 1
        seen[row, :, :, prompt_mask.shape[1] : prompt_mask.shape[1] + known] = True
        positions[row] = begins[row] + known + depths
    hidden = torch.finfo(model.dtype).min
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, hidden)
    logits = model(
        input_ids=torch.tensor([tree.tokens] * len(places), device=model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=_growing(cache, cached),
        use_cache=True,
    ).logits
    found: list[dict[str, float] | None] = [None] * len(places)
    for row in scored:
        known_log = logits[row].float().log_softmax(-1)
        found[row] = {
            label: sum(float(known_log[node, token]) for node, token in path)
            for label, path in zip(tree.choices.labels, tree.paths, strict=True)
        }
    return found


def _growing(cache: Cache, length: int) -> DynamicCache:
    """The first `length` tokens of a cache, with room behind them: a static one has none."""
    grown = DynamicCache()
    for at, layer in enumerate(cache.layers):
        grown.update(layer.keys[:, :, :length], layer.values[:, :, :length], at)
    return grown
