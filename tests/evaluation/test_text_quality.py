"""Small answers to one invented prompt, counted by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from datetime import date
from pathlib import Path

import pytest

from forecaster.evaluation.readings import Reading, read_texts
from forecaster.evaluation.text import Clarity, Depth, Execution, TextQuality, _Source, text_quality
from forecaster.records import Answer, Company, Label, Messages, NewsItem, Week
from prompts import render_answer, render_published, render_user_text

NEWS = (
    NewsItem(
        "Acme Wins Order Worth $1.2 Billion",
        "The order from Northwind covers 1,200 rigs and lifts the backlog by 18%.",
    ),
    NewsItem(
        "Regulators open probe", "Inspectors visited the Rotterdam plant on March 5 and fined it US$17m."
    ),
)
USER = render_user_text(
    Company("ACME", "Acme Widgets Inc", "Machinery", "NYSE"),
    [Week(date(2024, 3, 1), date(2024, 3, 8), 102.5, 99.75, NEWS)],
    {"grossMargin": 0.6424, "currentRatio": 0.93178, "bookValue": 28057.0},
    date(2023, 12, 31),
    date(2024, 3, 8),
    date(2024, 3, 15),
)
PROMPT = render_published(Messages("Use at most 400 words.", USER))
UP_2_3 = Label("up", 2)


def written(
    pros: str = "Sales look healthy.",
    cons: str = "Costs look heavy.",
    why: str = "Demand holds.",
    label: Label = UP_2_3,
) -> str:
    return render_answer(Answer(pros, cons, label, why))


def readings(answers: Sequence[str | None]) -> list[Reading]:
    read = read_texts(answers)
    return [read[answer] for answer in answers]


def judged(*answers: str | None, prompt: str = PROMPT) -> TextQuality:
    return text_quality(readings(answers), [prompt] * len(answers))


def test_one_answer_is_counted_by_hand() -> None:
    answer = written(
        pros="1. The $1.2 billion order is won.\n2. Sales look healthy everywhere.",
        cons="1. Fines at the Rotterdam plant may reach $35 million.",
        why="Up by 2-3% it is: a gross margin of 64.2% outweighs 3 probes until March 15, 2024.",
    )
    quality = judged(answer)
    # Words: header 2, 7 and 5; header 2, and 10; header 3, prediction 4, "Analysis:" and 17.
    assert quality.execution == Execution(readable_share=1.0, runs_on_share=0.0, answer_words=51.0)
    # The order's sum and the plant are in the prompt; that sales look healthy could be said of anybody.
    assert quality.depth == Depth(factors_per_answer=3.0, analysis_words=17.0, cited_factor_share=2 / 3)
    # 1.2 billion and 64.2% are there, 35 million is not; prediction, date and the bare 3 do not count.
    assert quality.clarity == Clarity(
        grounded_number_share=2 / 3, repeated_answer_share=0.0, repeated_factor_share=0.0
    )


@pytest.mark.parametrize(
    "number",
    [
        "$1.2B",
        "USD 1.2 billion",
        "1,200",
        "1200.0",
        "18%",
        "18 percent",
        "-18%",
        "$17 million",
        "102.5",
        "$102.50",
        "28,057",
        "0.6424",
        "64.24%",
        "64.2%",  # rounded
        "0.64",
        "0.93",
        "0.931",  # cut
        "0.932",  # rounded
        "93.2 %",
    ],
)
def test_a_number_of_the_prompt_is_found_in_every_spelling(number: str) -> None:
    assert judged(written(why=f"It is {number} now.")).clarity.grounded_number_share == 1.0


@pytest.mark.parametrize(
    "number",
    [
        "$1.2 million",
        "1.2",
        "19%",
        "0.18 billion",
        "0.63",
        "0.65",
        "0.933",
        "93%",  # two digits have to be exact, or any would fit
        "over 60%",
        "$28 billion",
        "400",  # of the system part
        "2.68%",  # the fall of the price, worked out
    ],
)
def test_a_number_that_is_not_in_the_prompt_is_not_found_there(number: str) -> None:
    assert judged(written(why=f"It is {number} now.")).clarity.grounded_number_share == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Up by 2-3%, or 2% to 3%",
        "below 1, as 3 of 4 say",
        "the 13F of 3M in Q4 after Covid-19, for the 21st time",
        "from 2024-03-08 to 2024-03-15",
        "from 3/8/2024 on, and on Sept. 30 or 17 March of 2031",
    ],
)
def test_predictions_dates_names_and_bare_digits_are_no_numbers(text: str) -> None:
    assert judged(written(why=text)).clarity.grounded_number_share is None


def test_list_markers_are_no_numbers() -> None:
    points = "\n".join(f"{place}. Sales look healthy." for place in range(8, 13))
    assert judged(written(pros=points)).clarity.grounded_number_share is None


def test_a_prediction_beyond_the_bins_may_be_repeated_too_but_not_in_the_factors() -> None:
    answer = written(why="We see 7-8% ahead.").replace("Up by 2-3%", "Up by 7-8%")
    assert judged(answer).clarity.grounded_number_share is None
    assert judged(answer.replace("healthy", "8% better")).clarity.grounded_number_share == 0.0


def test_the_question_at_the_end_of_a_prompt_grounds_nothing() -> None:
    prompt = "Acme earned 31 million.\n\nName the 25 most important factors."
    quality = judged(written(why="Acme earned 31 million with 25 people."), prompt=prompt)
    assert quality.clarity.grounded_number_share == 0.5


@pytest.mark.parametrize(
    ("factor", "cites"),
    [
        ("The backlog grows by 18%.", True),
        ("The margin of 64.24% is fine.", True),
        ("At most 5% is lost.", False),  # one digit
        ("It LIFTS THE BACKLOG soon.", True),
        ("It hopes for the order from abroad.", False),  # "the order from" has two function words
        ("Lifts will follow the backlog.", False),  # not consecutive
        ("Much comes from Northwind.", True),
        ("Northwind's rise helps.", False),  # any word begins a sentence with a capital
        ("Help comes. Northwind pays.", False),
        ("Trouble at Rotterdam's docks.", True),
        ("**Big Northwind Deal**: it pays.", False),
        ("It won an Order.", False),  # the news has "order" too
        ("Good for Acme Widgets Inc in the Machinery industry.", False),
        ("Like ACME itself.", False),
        ("Acme wins order after order.", True),  # "wins order" and the company's name
        ("The company has strong fundamentals.", False),
    ],
)
def test_a_factor_cites_numbers_word_sequences_and_names(factor: str, cites: bool) -> None:
    quality = judged(written(pros=f"1. {factor}", cons="1. Nothing."))
    assert quality.depth.cited_factor_share == (0.5 if cites else 0.0)


@pytest.mark.parametrize(
    ("section", "factors"),
    [
        ("1. One.\n2. Two.", 2),
        ("1) One.\n\n2) Two.\n\n3) Three.", 3),
        ("**1.** One.\n**2. Two:** it is.", 2),
        ("- One.\n- Two.", 2),
        ("* One.\n• Two.\n– Three.", 3),
        ("1. One.\n   - a detail\n   - another\n2. Two.", 2),
        ("These speak for it:\n1. One.\n2. Two.", 2),
        ("One paragraph. It has 2. sentences.", 1),
        ("1. One.\n2. ...", 1),
        ("...", 0),
    ],
)
def test_factors_are_the_points_of_a_section(section: str, factors: int) -> None:
    assert judged(written(pros=section, cons="1. Costs.")).depth.factors_per_answer == factors + 1


def test_answers_that_do_not_read_count_as_answers_only() -> None:
    quality = judged(written(), None, "I cannot say 99.", "")
    assert quality.execution.readable_share == 0.25
    assert quality.execution.answer_words == (len(written().split()) + 4) / 2
    assert quality.depth == judged(written()).depth
    assert quality.clarity.grounded_number_share is None


def test_an_answer_that_starts_anew_runs_on_and_its_first_copy_is_judged() -> None:
    once = written(pros="1. Sales.\n2. Orders.", why="Demand holds 18%.")
    # A copy that is cut off, and one that is whole, so that the text ends with the analysis again.
    for again in (once[:60], once):
        quality = judged(once + again, once)
        assert quality.execution.runs_on_share == 0.5
        assert (quality.depth.factors_per_answer, quality.depth.analysis_words) == (3.0, 3.0)


def test_what_a_model_thinks_is_not_judged() -> None:
    thought = "<think>\n1. 77 rigs from Northwind\n</think>\n\n"
    assert judged(thought + written()) == judged(written())
    unfinished = judged("<think>" + written(why="It is 77."))
    assert unfinished == judged(None)
    assert unfinished.execution == Execution(readable_share=0.0, runs_on_share=None, answer_words=None)
    second_thought = judged(written() + "\n<think>or is it")
    assert second_thought.execution.readable_share == 0.0  # as for every other figure


def test_an_answer_is_judged_whatever_line_ends_spaces_and_accents_the_model_wrote() -> None:
    plain = written(pros="1. Caf\u00e9 sales rose.\n2. Debt fell.")
    foreign = plain.replace("\n", "\r\n").replace("Caf\u00e9 sales", "Cafe\u0301\u00a0sales")
    assert foreign != plain
    assert judged(foreign) == judged(plain)


def test_answers_are_repeated_whatever_their_spaces_and_letter_case() -> None:
    quality = judged("I cannot say.", " i  CANNOT\nsay. ", written(), None, None)
    assert quality.clarity.repeated_answer_share == 2 / 3


def test_factors_are_repeated_only_by_other_rows() -> None:
    quality = judged(
        written(pros="1. Sales rise.\n2. Sales rise.", cons="1. Costs rise."),
        written(pros="1. Orders rise.", cons="1. COSTS  rise."),
    )
    # Costs twice, of five; the two equal points on sales are one row's own.
    assert quality.clarity.repeated_factor_share == 2 / 5


@pytest.mark.parametrize(
    "loop", ["9" * 400, "1," * 5000, "\n" * 5000, "**" * 5000, "2. " * 5000, "of the " * 5000]
)
def test_what_a_looping_model_writes_is_counted_too(loop: str) -> None:
    quality = judged(written(why=f"It is 18%, and so {loop} it is."))
    assert quality.execution.readable_share == 1.0
    assert quality.clarity.grounded_number_share == (0.5 if loop.startswith("999") else 1.0)


def test_without_a_prompt_only_what_needs_one_is_left_out() -> None:
    answer = written(pros="1. The order is worth 18% more.")
    mixed = text_quality(readings([answer, answer]), ["", PROMPT])
    unknown = judged(answer, prompt="")
    assert (unknown.depth.cited_factor_share, unknown.clarity.grounded_number_share) == (None, None)
    assert (unknown.execution.readable_share, unknown.depth.factors_per_answer) == (1.0, 2.0)
    assert (mixed.depth.cited_factor_share, mixed.clarity.grounded_number_share) == (0.5, 1.0)


def test_where_there_is_nothing_to_count_there_is_no_figure() -> None:
    quality = text_quality([], [])
    assert {figure for group in astuple(quality) for figure in group} == {None}


def test_every_answer_needs_its_prompt() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_quality(readings([written()]), [])


def test_real_answers_rest_on_their_own_prompts_and_not_on_those_of_others(real_data: Path) -> None:
    lines = (real_data / "forecaster_dow30" / "test_300.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    answers, prompts = readings([row["answer"] for row in rows]), [row["prompt"] for row in rows]
    own, strange = text_quality(answers, prompts), text_quality(answers, prompts[50:] + prompts[:50])
    assert (own.execution.readable_share, own.execution.runs_on_share) == (0.99, 0.0)
    for quality, is_own in ((own, True), (strange, False)):
        cited, grounded = quality.depth.cited_factor_share, quality.clarity.grounded_number_share
        assert cited is not None
        assert grounded is not None
        assert (cited > 0.7, grounded > 0.95) == (is_own, is_own)
        assert (cited < 0.1, grounded < 0.05) == (not is_own, not is_own)


def test_a_row_of_thousands_is_read_once_and_its_first_twelve_groups_make_one_number() -> None:
    # 120,000 groups: hours, when each is the beginning of a number that fails at the end.
    quality = judged(written(why="It is 1" + ",234" * 120_000 + "y or 18%."))
    assert quality.clarity.grounded_number_share == 1 / 9_231  # 13 groups each, and the 18


def test_three_words_in_a_row_count_within_one_text_of_the_news_only() -> None:
    source = _Source(PROMPT)
    assert source.is_cited_by("It is said that INSPECTORS visited the works.")
    # The end of one text and the beginning of the next are no three in a row.
    assert not source.is_cited_by("Then backlog by regulators grew.")
