"""Every figure of a scoreboard as tables of text, each with what a reader has to know of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from forecaster.evaluation.backtest import BUY_AND_HOLD, LONG_SHORT, Backtest
from forecaster.evaluation.figures import Column, contests_of, figures_of
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.published import ROUGE_TYPES, SECTIONS, Published
from forecaster.evaluation.ranks import weeks_needed
from forecaster.evaluation.scorecard import ModelScorecard, Pair, Scoreboard, Scorecard
from forecaster.evaluation.statistics import Estimate
from forecaster.evaluation.text import TextQuality
from forecaster.evaluation.training_log import TrainingLog

NONE = "-"
"""Stands where there is no figure."""
NO_INTERVAL = "no interval: "
"""How the reason begins for which there is none."""


@dataclass(frozen=True)
class Table:
    """Text, cell by cell, with an explanation to stand below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(board: Scoreboard) -> dict[str, Table]:
    """Tables by slug, in the order of a report; only those that have rows."""
    found = {
        "at_a_glance": _at_a_glance(board),
        "as_published": _as_published(board),
        "direction": _direction(board),
        "size": _size(board),
        "probability": _probability(board),
        "gains": _gains(board),
        "power": _power(board),
        "best_of_several": _best_of_several(board),
        "pairs": _pairs(board),
        "choices": _choices(board),
        "knowledge_cutoff": _knowledge_cutoff(board),
        "text_quality": _text_quality(board),
        "unreadable": _unreadable(board),
        "backtest": _backtest(board),
        "answer_cost": _answer_cost(board),
        "training_cost": _training_cost(board),
        "training_loss": _training_loss(board),
        "checkpoints": _checkpoints(board),
    }
    return {slug: table for slug, table in found.items() if table.rows}


# --- figures as text ----------------------------------------------------------------------------------------


def number(value: float | None, digits: int) -> str:
    """With so many decimals, and never as a negative zero."""
    if value is None:
        return NONE
    return f"{value:z,.{digits}f}" if isfinite(value) else "not finite"


def significant(value: float | None) -> str:
    """Three digits; whole numbers from a hundred on."""
    if value is None or not isfinite(value) or abs(value) >= 99.95:
        return number(value, 0)
    if abs(value) >= 1:
        return number(value, 1 if abs(value) >= 9.995 else 2)
    return f"{value:#.3g}"


def percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:z.1f} %"


def with_interval(estimate: Estimate, digits: int) -> str:
    """The figure, and behind it its interval where there is one."""
    shown = number(estimate.value, digits)
    if estimate.low is None or estimate.high is None:
        return shown
    return f"{shown} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def p_value(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else number(value, 3)


def duration(seconds: float | None) -> str:
    """Such as 3 h 25 min, 12 min 5 s, or 40.2 s."""
    if seconds is None or not isfinite(seconds) or seconds < 60:
        return NONE if seconds is None else f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def method_in_words(method: str, has_dates: bool) -> str:
    """How an interval was made; rows without dates are weeks of their own, and are called rows."""
    return method if has_dates else re.sub(r"\bweek(s?)\b", r"row\1", method)


def _methods(board: Scoreboard, estimates: Iterable[Estimate]) -> str:
    """A sentence on how these intervals were made."""
    has_dates = any(row.week for row in board.rows)
    shown = [estimate for estimate in estimates if estimate.value is not None]
    methods = {method_in_words(estimate.method, has_dates) for estimate in shown if estimate.method}
    reasons = sorted(method for method in methods if method.startswith(NO_INTERVAL))
    made = sorted(methods - set(reasons))
    return _note(
        f"Brackets: 95 % intervals ({'; '.join(made)})." if made else "",
        f"Without brackets: {'; '.join(reason.removeprefix(NO_INTERVAL) for reason in reasons)}."
        if reasons
        else "",
    )


def _note(*sentences: str) -> str:
    """One line each; empty ones are left out."""
    return "\n".join(sentence for sentence in sentences if sentence)


# --- forecasts ----------------------------------------------------------------------------------------------


def _at_a_glance(board: Scoreboard) -> Table:
    cards = _cards(board, _has_any)
    return Table(
        "At a glance",
        (
            "",
            "read",
            "accuracy, all rows",
            "MSE (%²)",
            "long/short",
            "as published: valid, accuracy, MSE",
            "s/answer",
        ),
        tuple(_glance_row(card) for card in cards),
        _note(
            "Read: answers that forecast one direction and size, in whatever form. Accuracy: share of right "
            "directions; a row without a readable forecast is wrong.",
            "MSE: squared difference of bin midpoints, of readable forecasts. Where these are not all rows, "
            "the verdict takes the zero forecast on the same rows.",
            f"Long/short: return after costs of {board.cost_bps:g} basis points.",
            "As published: by the parser of published work, think blocks removed.",
            "Below the models: forecasts that need none.",
            _methods(board, [card.skill.accuracy_of_all_rows for card in cards if _has_accuracy(card)]),
        ),
    )


def _has_accuracy(card: Scorecard) -> bool:
    return isinstance(card, ModelScorecard) or card.skill.bin_acc.value is not None


def _glance_row(card: Scorecard) -> tuple[str, ...]:
    skill, book = card.skill, card.backtest.get(LONG_SHORT)
    read = published = seconds = NONE
    if isinstance(card, ModelScorecard):
        read = f"{card.valid_count} of {card.rows}"
        of = card.as_published_without_think or card.as_published
        published = f"{of.valid_count}, {number(of.bin_acc, 3)}, {number(of.mse, 2)}"
        seconds = significant(_seconds_per_answer(card))
    return (
        card.name,
        read,
        with_interval(skill.accuracy_of_all_rows, 3) if _has_accuracy(card) else NONE,
        number(skill.mse.value, 2),
        _pct(book.cumulative_return_pct) if book and book.hit_rate is not None else NONE,
        published,
        seconds,
    )


def _seconds_per_answer(model: ModelScorecard) -> float | None:
    return model.speed.seconds_per_answer if model.speed else None


def _as_published(board: Scoreboard) -> Table:
    rows = []
    for model in board.models:
        seconds = _seconds_per_answer(model)
        rows.append(_published_row(model.name, model.as_published, model.rows, seconds))
        if model.as_published_without_think:
            name = f"{model.name}, think block removed"
            rows.append(_published_row(name, model.as_published_without_think, model.rows, seconds))
    for line in _cards(board, _has_any)[len(board.models) :]:
        skill = line.skill
        figures = number(skill.bin_acc.value, 3), number(skill.mse.value, 2)
        rows.append((line.name, NONE, *figures, *[NONE] * (len(SECTIONS) + 1)))
    return Table(
        "As published",
        (
            "",
            "valid",
            "binary accuracy",
            "MSE",
            "ROUGE-1/2/L positive",
            "ROUGE-1/2/L concerns",
            "ROUGE-1/2/L analysis",
            "s per answer",
        ),
        tuple(rows),
        _note(
            "The figures that published work reports, by its own parser and its own definitions. That parser "
            'drops what it cannot read from every average, and misreads some answers ("supply" counts as '
            '"up"): compare these figures with published ones, and judge by the tables below.',
            "Binary accuracy: share of right directions. MSE: squared difference of bin midpoints, in "
            "percent squared. ROUGE: overlap of words with the reference answer, no measure of skill.",
            "Lines without a valid count are forecasts that need no model.",
        ),
    )


def _published_row(
    name: str, published: Published, rows: int, seconds_per_answer: float | None
) -> tuple[str, ...]:
    rouge = [
        "/".join(number(published.rouge[key][kind], 3) for kind in ROUGE_TYPES) if published.rouge else NONE
        for key in SECTIONS
    ]
    return (
        name,
        f"{published.valid_count} of {rows}",
        number(published.bin_acc, 3),
        number(published.mse, 2),
        *rouge,
        significant(seconds_per_answer),
    )


def _cards(board: Scoreboard, has_figure: Callable[[Skill], bool]) -> list[Scorecard]:
    """All models, and behind them the baselines that have this figure."""
    lines = [line for line in board.baselines if has_figure(line.skill)] if board.models else []
    return [*board.models, *lines]


def _has_any(skill: Skill) -> bool:
    """Whether it names a direction or a size."""
    return skill.bin_acc.value is not None or skill.mse.value is not None


def _direction(board: Scoreboard) -> Table:
    cards = _cards(board, lambda skill: skill.bin_acc.value is not None)
    columns = _columns("direction", cards)
    first = cards[0].skill if cards else None
    return Table(
        "Direction",
        ("", *(column.title for column in columns.values())),
        tuple(_figures_row(card, columns) for card in cards),
        _note(
            f"By this project's parser, over the {first.rows} rows whose outcome is known; the market rose "
            f"in {with_interval(first.actual_up_share, 3)} of them."
            if first
            else "",
            *(column.note for column in columns.values()),
            _methods(board, _with_intervals(cards, columns)),
            "A model whose interval holds the accuracy of a baseline cannot be told from it.",
        ),
    )


def _size(board: Scoreboard) -> Table:
    cards = _cards(board, lambda skill: skill.mse.value is not None)
    columns = _columns("size", cards)
    return Table(
        "Size of the move",
        ("", *(column.title for column in columns.values())),
        tuple(_figures_row(card, columns) for card in cards),
        _note(
            "Over readable forecasts; errors are differences of bin midpoints (5.5 % beyond five).",
            *(column.note for column in columns.values()),
            "The zero forecast says that nothing moves: a model with no smaller MSE knows no sizes.",
            _methods(board, _with_intervals(cards, columns)),
        ),
    )


def _probability(board: Scoreboard) -> Table:
    cards = [
        card
        for each in _cards(board, lambda skill: skill.log_score.value is not None)
        for card in (each, getattr(each, "calibrated", None))
        if card and card.skill.log_score.value is not None
    ]
    columns = _columns("probability", cards)
    return Table(
        "Probabilities",
        ("", *(column.title for column in columns.values())),
        tuple(_figures_row(card, columns) for card in cards),
        _note(
            "Of the forecasts that give each of the twelve bins a probability: those of a model are its "
            "likelihoods of the labels where it wrote its prediction. Climatology: how often each bin "
            "happened in training. Calibrated: by a temperature and a weight beside climatology, fitted on "
            "validation weeks alone.",
            *(column.note for column in columns.values()),
            _methods(board, _with_intervals(cards, columns)),
        ),
    )


def _gains(board: Scoreboard) -> Table:
    return Table(
        "Log score over forecasts without a model",
        ("", "over", "rows", "log score", "of it, direction", "of it, size", "ranked probability skill"),
        tuple(
            (
                of.model,
                of.over,
                str(of.rows),
                with_interval(of.log_score, 3),
                with_interval(of.direction, 3),
                with_interval(of.size, 3),
                with_interval(of.ranked_probability_skill, 3),
            )
            for of in board.gains
        ),
        _note(
            "In nats a row, on the rows that have probabilities of both; above zero the model is better. The "
            "first forecast of each model was known to be the best of them before the test, and decides.",
            "Ranked probability skill: one less the ratio of the two scores.",
            _methods(board, [of.log_score for of in board.gains]),
        ),
    )


SKILLS = (0.03, 0.067, 0.1)
"""Rank correlations that good forecasters have had."""


def _power(board: Scoreboard) -> Table:
    cards = [card for card in board.models if card.skill.rank_correlation_deviation is not None]
    return Table(
        "What so many weeks can show",
        (
            "",
            "weeks",
            "deviation between weeks",
            "smallest that would be seen",
            *(f"weeks for {skill:g}" for skill in SKILLS),
        ),
        tuple(
            (
                card.name,
                str(card.skill.weeks),
                number(deviation, 3),
                number(card.skill.detectable_rank_correlation, 3),
                *(number(weeks_needed(skill, deviation), 0) for skill in SKILLS),
            )
            for card in cards
            if (deviation := card.skill.rank_correlation_deviation)
        ),
        "Rank correlations that would be seen in four of five tests (two-sided 5 %), and the weeks that "
        "others need; by the deviation between weeks, which is at least that of orders at random.",
    )


def _best_of_several(board: Scoreboard) -> Table:
    return Table(
        "The best of several",
        ("figure", "best", "value", "of", "p"),
        tuple(
            (of.figure, of.model, number(of.value, 3), str(of.tried), p_value(of.p_value))
            for of in board.best_of_several
        ),
        "The best of several looks better than it is. p: how likely the best of so many has this value or a "
        "higher one where none has any skill; for the rank correlation and the log score by Hansen's test of "
        "superior predictive ability over weeks, from 20 weeks on; for the Sharpe ratio of long/short it is "
        "one less the deflated Sharpe ratio.",
    )


def _columns(table: str, cards: Sequence[Scorecard]) -> dict[str, Column]:
    """Columns of the figures that stand in a table, by the figure's name, from the left."""
    figures = figures_of(cards[0].skill) if cards else {}
    columns = {name: of.column for name, of in figures.items() if of.column and of.column.table == table}
    return dict(sorted(columns.items(), key=lambda item: item[1].place))


def _figures_row(card: Scorecard, columns: Mapping[str, Column]) -> tuple[str, ...]:
    return (card.name, *(_figure_cell(card.skill, name, column) for name, column in columns.items()))


def _figure_cell(skill: Skill, name: str, column: Column) -> str:
    value = getattr(skill, name)
    if column.style == "significant":
        return significant(value)
    if column.style == "count":
        return number(value, 0)
    if column.style == "interval":
        return with_interval(value, column.digits)
    if column.beside and value.value is not None:
        return f"{percent(value.value)} / {percent(getattr(skill, column.beside).value)}"
    return percent(value.value)


def _with_intervals(cards: Sequence[Scorecard], columns: Mapping[str, Column]) -> list[Estimate]:
    """The estimates that these columns show with their intervals."""
    names = [name for name, column in columns.items() if column.style == "interval"]
    return [getattr(card.skill, name) for card in cards for name in names]


def _pairs(board: Scoreboard) -> Table:
    return Table(
        "Pair by pair",
        ("", "only the first is right", "only the second is right", "p", "difference", "rows needed"),
        tuple(_pair_row(pair) for pair in board.pairs),
        _note(
            "On the same rows; an unreadable answer is wrong.",
            "p: McNemar's exact test, two-sided, of both being right equally often, as if rows were "
            "independent; none against a constant, which is right in whole weeks.",
            "Difference: accuracy of the first minus that of the second. Rows of one week are kept together: "
            "where the interval holds 0, neither is shown to be better, whatever p says.",
            "Rows needed: to tell a difference as large as this one from chance.",
            _methods(board, [pair.difference for pair in board.pairs]),
        ),
    )


def _pair_row(pair: Pair) -> tuple[str, ...]:
    return (
        f"{pair.first} against {pair.second}",
        str(pair.only_first_right),
        str(pair.only_second_right),
        p_value(pair.p_value),
        with_interval(pair.difference, 3),
        number(pair.rows_needed, 0),
    )


def _choices(board: Scoreboard) -> Table:
    contests = contests_of(board.models[0].skill).values() if board.models else ()
    smaller = [f"{contest.name}s" for contest in contests if contest.sign < 0]
    return Table(
        "Best choice",
        ("figure", "best", "leader", "runner-up", "lead"),
        tuple(
            (c.figure, c.best or "tie", c.leader, c.runner_up, with_interval(c.difference, 3))
            for c in board.choices
        ),
        _note(
            "Lead: the leader's figure minus that of the runner-up, over the rows where every model "
            f"with any has one; of {' and '.join(smaller)} the smaller one leads. A lead whose interval "
            "holds 0 is a tie.",
            _methods(board, [choice.difference for choice in board.choices]),
        ),
    )


def _knowledge_cutoff(board: Scoreboard) -> Table:
    rows = [
        (
            model.name,
            str(model.knowledge_cutoff),
            *_part_cells(before),
            *_part_cells(after),
        )
        for model in board.models
        if model.knowledge_cutoff
        for before, after in [(model.maybe_remembered, model.not_remembered)]
        if before or after
    ]
    parts = [part for m in board.models for part in (m.maybe_remembered, m.not_remembered) if part]
    return Table(
        "Before and after the knowledge cutoff",
        (
            "",
            "cutoff",
            "rows before",
            "accuracy before",
            "rises before",
            "rows after",
            "accuracy after",
            "rises after",
        ),
        tuple(rows),
        _note(
            "A model may have read what happened in weeks that begin on or before its knowledge cutoff; only "
            "the rows after it test a forecast.",
            f"Accuracy: over all rows, unreadable answers being wrong. {_RISES}",
            _methods(board, [part.accuracy_of_all_rows for part in parts]),
        ),
    )


_RISES = "Rises: share of rows that rose, the accuracy of always up; always down has the rest."


def _part_cells(part: Skill | None) -> tuple[str, str, str]:
    """Rows, accuracy, and that of always up."""
    if part is None:
        return "0", NONE, NONE
    return str(part.rows), with_interval(part.accuracy_of_all_rows, 3), number(part.actual_up_share.value, 3)


# --- texts --------------------------------------------------------------------------------------------------

_TEXT_FIGURES: tuple[tuple[str, str, Callable[[TextQuality], str]], ...] = (
    ("Execution", "answers in the form", lambda text: percent(text.execution.readable_share)),
    ("Execution", "of these, run on behind the end", lambda text: percent(text.execution.runs_on_share)),
    ("Execution", "words per answer", lambda text: number(text.execution.answer_words, 0)),
    ("Depth", "factors per answer", lambda text: number(text.depth.factors_per_answer, 1)),
    ("Depth", "words of analysis", lambda text: number(text.depth.analysis_words, 0)),
    ("Depth", "factors that cite the prompt", lambda text: percent(text.depth.cited_factor_share)),
    (
        "Clarity",
        "numbers that are in the prompt",
        lambda text: percent(text.clarity.grounded_number_share),
    ),
    ("Clarity", "answers repeated word for word", lambda text: percent(text.clarity.repeated_answer_share)),
    (
        "Clarity",
        "factors repeated in other answers",
        lambda text: percent(text.clarity.repeated_factor_share),
    ),
)


def _text_quality(board: Scoreboard) -> Table:
    lines = [
        (aspect, figure, *(value_of(model.text) for model in board.models))
        for aspect, figure, value_of in _TEXT_FIGURES
    ]
    return Table(
        "Quality of the texts",
        ("aspect", "figure", *(model.name for model in board.models)),
        tuple(line for line in lines if set(line[2:]) - {NONE}),
        _note(
            "Counted, not judged. Execution: is the form followed? Depth: how much is said, and how much of "
            "it rests on the prompt? Clarity: are its numbers in the prompt, and is it said of this company "
            "alone?",
            "A factor is one point among the developments and concerns. Numbers that are not in the prompt "
            "are invented, or worked out from it.",
        ),
    )


def _unreadable(board: Scoreboard) -> Table:
    totals: Counter[str] = Counter()
    for model in board.models:
        totals.update(model.unreadable)
    return Table(
        "Unreadable answers",
        ("reason", *(model.name for model in board.models)),
        tuple(
            (reason, *(str(model.unreadable.get(reason, 0)) for model in board.models))
            for reason in sorted(totals, key=lambda reason: (-totals[reason], reason))
        ),
        "Answers without a forecast that this project's parser reads, by the first fault of their form.",
    )


# --- money, time --------------------------------------------------------------------------------------------


def _backtest(board: Scoreboard) -> Table:
    lines = list(_backtest_lines(board))
    weeks = len(lines[0][2].weeks) if lines else 0
    return Table(
        "Backtest",
        (
            "",
            "strategy",
            "return",
            "return a year",
            "Sharpe ratio",
            "deepest fall",
            "hit rate",
            "turnover a week",
            "shuffles as good",
        ),
        tuple(
            (
                name,
                strategy,
                _pct(of.cumulative_return_pct),
                _pct(of.annualised_return_pct),
                with_interval(of.sharpe, 2),
                f"{of.max_drawdown_pct:z.1f} %",
                number(of.hit_rate, 3),
                number(of.turnover, 2),
                number(of.luck_share, 3),
            )
            for name, strategy, of in lines
        ),
        _note(
            f"Over {weeks} weeks, capital spread equally over each week's rows, after costs of "
            f"{board.cost_bps:g} basis points of what is traded.",
            "Long/short sells where a fall is forecast, long/flat stays out. Left out: strategies that never "
            "held anything, and baselines that do what buy and hold does.",
            "Return a year: from 52 weeks on. Hit rate: positions that gained, before costs.",
            "Shuffles as good: where whole weeks of the same directions are given to other weeks, the share "
            "that ends at least as high. A small one (below 0.05) speaks against luck.",
            _methods(board, [of.sharpe for *_, of in lines]),
        ),
    )


def _pct(value: float | None) -> str:
    return NONE if value is None else f"{value:+z.1f} %"


def _backtest_lines(board: Scoreboard) -> Iterator[tuple[str, str, Backtest]]:
    """Who, by which strategy; buy and hold once, behind all."""
    hold = next((model.backtest[BUY_AND_HOLD] for model in board.models if model.backtest), None)
    if hold is None:
        return
    for card in (*board.models, *board.baselines):
        is_model = isinstance(card, ModelScorecard)
        for strategy, of in card.backtest.items():
            if strategy == BUY_AND_HOLD or of.hit_rate is None:
                continue
            if is_model or of.equity != hold.equity:
                yield card.name, strategy, of
    yield BUY_AND_HOLD, NONE, hold


def _answer_cost(board: Scoreboard) -> Table:
    return Table(
        "Time to answer",
        ("", "answers", "time", "s per answer", "tokens per answer", "tokens per s", "how"),
        tuple(
            (
                model.name,
                number(speed.answers, 0),
                duration(speed.seconds),
                significant(speed.seconds_per_answer),
                significant(speed.new_tokens_per_answer),
                significant(speed.new_tokens_per_s),
                speed.how or NONE,
            )
            for model in board.models
            if (speed := model.speed)
        ),
        "Wall time of generating, without loading the model. Answers that are made in batches share their "
        "time. Tokens: those of the answers, without the prompts.",
    )


def _of_logs(
    title: str,
    figures: Mapping[str, Callable[[TrainingLog], str]],
    logs: Mapping[str, TrainingLog],
    note: str,
) -> Table:
    """A line for each run that has any of the figures."""
    lines = [(run, *(value_of(log) for value_of in figures.values())) for run, log in logs.items()]
    return Table(title, ("", *figures), tuple(line for line in lines if set(line[1:]) - {NONE}), note)


def _training_cost(board: Scoreboard) -> Table:
    return _of_logs(
        "What training cost",
        {
            "training": lambda log: duration(log.train_runtime_s),
            "rows per s": lambda log: significant(log.train_samples_per_s),
            "steps per s": lambda log: significant(log.train_steps_per_s),
            "tokens per s": lambda log: significant(log.tokens_per_s),
            "peak memory (GiB)": lambda log: significant(log.peak_memory_gib),
            "one evaluation": lambda log: duration(log.eval_runtime_s),
            "rows per s in it": lambda log: significant(log.eval_samples_per_s),
            "batches per s in it": lambda log: significant(log.eval_steps_per_s),
        },
        board.logs,
        "As the training logged it; a step is one of the optimizer. The training's time holds the "
        "evaluations within it, which are given apart as means.",
    )


def _training_loss(board: Scoreboard) -> Table:
    return _of_logs(
        "Loss",
        {
            "training, mean": lambda log: number(log.train_loss, 4),
            "evaluation, best": lambda log: number(log.best_eval_loss, 4),
            "evaluation, last": lambda log: number(log.last_eval_loss, 4),
        },
        board.logs,
        "In nats per token of the answers; comparable between runs only with one tokenizer, one template and "
        "one choice of tokens that count. A lower loss does not say that forecasts are better.",
    )


def _checkpoints(board: Scoreboard) -> Table:
    scores = board.checkpoints
    estimates = [e for score in scores for e in (score.skill.accuracy_of_all_rows, score.skill.mse)]
    return Table(
        "Checkpoints on the validation rows",
        ("step", "rows with a forecast", "accuracy, all rows", "rises", "MSE (%²)", ""),
        tuple(
            (
                str(score.step),
                percent(score.skill.coverage.value),
                with_interval(score.skill.accuracy_of_all_rows, 3),
                number(score.skill.actual_up_share.value, 3),
                with_interval(score.skill.mse, 2),
                "chosen" if score.step == board.best_step else "",
            )
            for score in scores
        ),
        _note(
            f"Over {scores[0].skill.rows} rows that were kept out of the training and are not test rows."
            if scores
            else "",
            _RISES,
            "Chosen: the most right directions, then the smaller squared error, then the earlier step. The "
            "best of several looks better here than it is; the test rows tell.",
            _methods(board, estimates),
        ),
    )
