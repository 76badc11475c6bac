"""Build the sample: a small instruction dataset around real weekly closes, and a tiny base model for it.

    python sample/build_sample.py dataset   # weekly_closes.csv -> dataset/
    python sample/build_sample.py news      # weekly_closes.csv -> news.csv, raw input of data_pipeline.py
    python sample/build_sample.py base      # weekly_closes.csv -> base/, pretrained from scratch on prompts
    python sample/build_sample.py           # all three
    python sample/build_sample.py --edge 0.5 --output_dir FOLDER   # simulated weeks with a planted edge

Prices are real, but for those with a planted edge. News items are templates that restate prices or name an
everyday market topic; they report nothing about any company. The sample shows that the machinery works, not
how well it forecasts.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.optimization import get_cosine_schedule_with_warmup

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecaster.data.build import write_manifest
from forecaster.models.templates import prepare_tokenizer, prompt_ids
from forecaster.records import Answer, Company, Label, Messages, NewsItem, Week
from forecaster.tasks.weekly import RETURN_COLUMN
from prompts import SYSTEM_PROMPT, render_answer, render_published, render_user_text

logger = logging.getLogger("build_sample")

SAMPLE_FOLDER = Path(__file__).resolve().parent
CLOSES_FILE = SAMPLE_FOLDER / "weekly_closes.csv"
NEWS_FILE = SAMPLE_FOLDER / "news.csv"
DATASET_FOLDER = SAMPLE_FOLDER / "dataset"
BASE_FOLDER = SAMPLE_FOLDER / "base"

PAD, BOS, EOS = "<pad>", "<s>", "</s>"

HISTORY_WEEKS = 4
"""Weekly changes that the price figures of a prompt look back on."""
RECIPE = {"min_past_weeks": 1, "max_past_weeks": 1, "with_indicators": False, "with_macro": False}
"""What a prompt shows of the past, as flags of data_pipeline.py: `messages_for` tells one week."""
TEST_WEEKS = 8
PLANTED_TRAIN_WEEKS, PLANTED_TEST_WEEKS = 50, 40
"""Of a dataset with a planted edge: 400 training rows, and 320 to test."""
LARGEST_EDGE = 3
GAP_WEEKS = 1
"""Weeks left out between training and test: the past week in the first test prompt is no training target."""
NEAR_HIGH_PCT = -3.0
CALM_VOLATILITY_PCT = 3.0

COMPANIES = {
    company.symbol: company
    for company in (
        Company("AAPL", "Apple", "Technology", "NASDAQ"),
        Company("AMZN", "Amazon", "Retail", "NASDAQ"),
        Company("COST", "Costco", "Retail", "NASDAQ"),
        Company("CSCO", "Cisco", "Communications", "NASDAQ"),
        Company("MSFT", "Microsoft", "Technology", "NASDAQ"),
        Company("NVDA", "Nvidia", "Semiconductors", "NASDAQ"),
        Company("PEP", "PepsiCo", "Beverages", "NASDAQ"),
        Company("TSLA", "Tesla", "Automobiles", "NASDAQ"),
    )
}


@dataclass(frozen=True)
class Topic:
    """An everyday market topic: true of any week, and about no company in particular."""

    factor: str
    """What an answer calls it."""
    headline: str
    summary: str


SUPPORTS = (
    Topic("Lower rates", "Hopes for lower rates lift the mood", "Cheaper credit tends to help share prices."),
    Topic("Steady demand", "Funds keep buying large stocks", "Regular savings plans bring steady demand."),
    Topic("Buybacks", "Why buybacks matter to holders", "Fewer shares leave more profit for each one."),
    Topic("Long view", "Patient investors look past one week", "Time tends to smooth out short swings."),
    Topic("Index weight", "Large members carry the index", "Index funds have to hold every member."),
    Topic("Cheaper energy", "Lower energy prices ease costs", "Lower bills leave more money to spend."),
)
RISKS = (
    Topic("Higher rates", "Fear of higher rates returns", "Dearer credit tends to weigh on share prices."),
    Topic("Trade worries", "Tariff talk keeps traders careful", "New duties can raise costs for many."),
    Topic("Rich prices", "Are large stocks too expensive?", "High prices leave little room for bad news."),
    Topic("Currency", "A strong dollar is a headwind", "Sales abroad are worth less in dollars."),
    Topic("Thin trading", "Thin trading can enlarge moves", "A few orders can push prices far."),
    Topic("Busy calendar", "A busy week of data lies ahead", "Surprises in the figures can hurt stocks."),
)

STRONGER = Topic(
    "Stronger orders", "Survey: orders in the industry pick up", "Firms that were asked expect to sell more."
)
WEAKER = Topic(
    "Weaker orders", "Survey: orders in the industry slow down", "Firms that were asked expect to sell less."
)
"""The two classes of news that a planted edge tells apart; the committed sample has neither."""

# --- prices -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Close:
    """Adjusted close of a week's last trading day."""

    day: date
    usd: Decimal

    @property
    def week_end(self) -> date:
        """The Sunday that ends the week."""
        return self.day + timedelta(days=6 - self.day.weekday())


@dataclass(frozen=True)
class Case:
    """One symbol at one week end, and the close that is to be forecast."""

    company: Company
    closes: tuple[Close, ...]
    """The last `HISTORY_WEEKS + 1` weekly closes that are known, oldest first."""
    target: Close

    @property
    def known_until(self) -> date:
        return self.closes[-1].week_end

    @property
    def label(self) -> Label:
        """Bin of the target week's move."""
        return Label.between(self.closes[-1].usd, self.target.usd)


@dataclass(frozen=True)
class Figures:
    """What the known closes of a case say, in percent with two decimals."""

    week_change_pct: float
    four_week_change_pct: float
    distance_from_high_pct: float
    """From the highest of the known closes; 0 at the high, else negative."""
    weekly_volatility_pct: float
    """Standard deviation of the weekly changes."""

    @classmethod
    def of(cls, case: Case) -> Figures:
        prices = [float(close.usd) for close in case.closes]
        changes = [_change_pct(before, after) for before, after in pairwise(prices)]
        return cls(
            week_change_pct=changes[-1],
            four_week_change_pct=_change_pct(prices[0], prices[-1]),
            distance_from_high_pct=_change_pct(max(prices), prices[-1]),
            weekly_volatility_pct=round(statistics.stdev(changes), 2),
        )

    def as_financials(self) -> dict[str, float]:
        """The figures under the names that prompts show."""
        return {
            "weekChangePct": self.week_change_pct,
            "fourWeekChangePct": self.four_week_change_pct,
            "distanceFromHighPct": self.distance_from_high_pct,
            "weeklyVolatilityPct": self.weekly_volatility_pct,
        }


def _change_pct(before_usd: float, after_usd: float) -> float:
    return round(100 * (after_usd / before_usd - 1), 2) + 0.0  # the sum turns -0.0 into 0.0


def read_closes(path: Path = CLOSES_FILE) -> dict[str, list[Close]]:
    """Weekly closes by symbol, oldest first."""
    closes: dict[str, list[Close]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            close = Close(date.fromisoformat(line["date"]), Decimal(line["close"]))
            closes.setdefault(line["symbol"], []).append(close)
    return {symbol: sorted(series, key=lambda close: close.day) for symbol, series in closes.items()}


def split_cases(
    closes: Mapping[str, Sequence[Close]], test_weeks: int = TEST_WEEKS
) -> tuple[list[Case], list[Case]]:
    """Training and test cases by target week and symbol; the last `test_weeks` weeks are for testing."""
    cases = [
        Case(COMPANIES[symbol], tuple(series[at - HISTORY_WEEKS - 1 : at]), series[at])
        for symbol, series in closes.items()
        for at in range(HISTORY_WEEKS + 1, len(series))
    ]
    cases.sort(key=lambda case: (case.known_until, case.company.symbol))
    weeks = sorted({case.known_until for case in cases})
    first_test, first_gap = weeks[-test_weeks], weeks[-test_weeks - GAP_WEEKS]
    train = [case for case in cases if case.known_until < first_gap]
    test = [case for case in cases if case.known_until >= first_test]
    return train, test


# --- texts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A case with the news that its prompt tells."""

    case: Case
    figures: Figures
    support: Topic
    risk: Topic
    news: tuple[NewsItem, ...]
    survey: Topic | None = None


def tell(case: Case, variant: str, survey: Topic | None = None) -> Story:
    """Choose two topics and two to four news items, and put a survey among them; the choice depends on the
    case and on `variant` only."""
    rng = random.Random(f"{variant} {case.company.symbol} {case.known_until}")
    figures = Figures.of(case)
    support, risk = rng.choice(SUPPORTS), rng.choice(RISKS)
    news = [NewsItem(topic.headline, topic.summary) for topic in (support, risk)]
    price_news = [_move_item(case, figures, rng), _trend_item(case, figures, rng)]
    news += [item for item in price_news if rng.random() < 0.7]
    rng.shuffle(news)
    if survey:
        news.insert(rng.randrange(len(news) + 1), NewsItem(survey.headline, survey.summary))
    return Story(case, figures, support, risk, tuple(news), survey)


def _move_item(case: Case, figures: Figures, rng: random.Random) -> NewsItem:
    verb = rng.choice(("gain", "rise", "climb") if figures.week_change_pct >= 0 else ("lose", "slip", "fall"))
    before, after = case.closes[-2:]
    return NewsItem(
        f"{case.company.name} shares {verb} {abs(figures.week_change_pct):.2f}% in a week",
        f"{case.company.symbol} closed at {after.usd} after {before.usd} the week before.",
    )


def _trend_item(case: Case, figures: Figures, rng: random.Random) -> NewsItem:
    direction = "up" if figures.four_week_change_pct >= 0 else "down"
    return NewsItem(
        f"{case.company.name} chart: four-week trend {rng.choice(('points', 'is', 'looks'))} {direction}",
        f"{case.company.symbol} is {direction} {abs(figures.four_week_change_pct):.2f}% over four weeks.",
    )


def messages_for(story: Story) -> Messages:
    """System and user text of a prompt: one past week, its news, and the price figures."""
    case = story.case
    before, last = case.closes[-2:]
    week = Week(before.week_end, last.week_end, float(before.usd), float(last.usd), story.news)
    user = render_user_text(
        case.company,
        [week],
        story.figures.as_financials(),
        financials_period_end=last.day,
        target_start=case.known_until,
        target_end=case.target.week_end,
    )
    return Messages(SYSTEM_PROMPT, user)


def template_answer(story: Story) -> Answer:
    """The teacher: restates the story's own facts, and takes the label from what the price then did."""
    case = story.case
    positive, concerns = _factors(story)
    analysis = _analysis(story, case.label, case.target.week_end)
    return Answer(_numbered(positive), _numbered(concerns), case.label, analysis)


def diary(story: Story) -> str:
    """Company, news and a plain paragraph on the past week: the words of an answer, without its form."""
    case = story.case
    introduction = messages_for(story).user.partition("\n\nFinancials of ")[0]
    positive, concerns = _factors(story)
    past_label = Label.between(case.closes[-2].usd, case.closes[-1].usd)
    return (
        f"{introduction}\n\n{' '.join(positive + concerns)} {_analysis(story, past_label, case.known_until)}"
    )


def _analysis(story: Story, label: Label, week_end: date) -> str:
    """Two sentences on why the price moves by `label` in the week to `week_end`."""
    stronger, weaker = (story.support, story.risk) if label.direction == "up" else (story.risk, story.support)
    return (
        f"For {story.case.company.symbol}, {stronger.factor.lower()} should weigh more than "
        f"{weaker.factor.lower()}. "
        f"The stock price moves {label.text} in the week to {week_end}."
    )


def _factors(story: Story) -> tuple[list[str], list[str]]:
    """Two to four positive developments, and as many potential concerns, from the figures and the topics."""
    figures = story.figures
    week, trend = abs(figures.week_change_pct), abs(figures.four_week_change_pct)
    below_high, volatility = abs(figures.distance_from_high_pct), figures.weekly_volatility_pct
    positive, concerns = [], []
    if figures.week_change_pct >= 0:
        positive.append(f"Weekly gain: the stock rose {week:.2f}% in a week.")
    else:
        concerns.append(f"Weekly loss: the stock fell {week:.2f}% in a week.")
    if figures.four_week_change_pct >= 0:
        positive.append(f"Upward trend: it is up {trend:.2f}% over four weeks.")
    else:
        concerns.append(f"Downward trend: it is down {trend:.2f}% over four weeks.")
    if volatility <= CALM_VOLATILITY_PCT:
        positive.append(f"Calm trading: weekly volatility is {volatility:.2f}%.")
    else:
        concerns.append(f"Rough trading: weekly volatility is {volatility:.2f}%.")
    if not positive:
        positive.append(f"Room to recover: it is {below_high:.2f}% below its recent high.")
    if not concerns:
        concerns.append(f"Profit taking: holders may sell after {trend:.2f}% in four weeks.")
    positive = [*positive[:2], _factor(story.support)]
    concerns = [*concerns[:2], _factor(story.risk)]
    if story.survey:
        (positive if story.survey == STRONGER else concerns).insert(0, _factor(story.survey))
    return positive, concerns


def _factor(topic: Topic) -> str:
    return f"{topic.factor}: {topic.summary}"


def _numbered(factors: Sequence[str]) -> str:
    return "\n".join(f"{number}. {factor}" for number, factor in enumerate(factors, start=1))


# --- dataset ------------------------------------------------------------------------------------------------


def row_for(case: Case, variant: str = "dataset", survey: Topic | None = None) -> dict[str, str]:
    """One row with the five published columns."""
    story = tell(case, variant, survey)
    return {
        "prompt": render_published(messages_for(story)),
        "answer": render_answer(template_answer(story)),
        "period": f"{case.known_until} to {case.target.week_end}",
        "label": case.label.text,
        "symbol": case.company.symbol,
    }


def build_dataset() -> None:
    """Write dataset/train.jsonl, dataset/test.jsonl, and what their prompts show."""
    train, test = split_cases(read_closes())
    write_dataset(DATASET_FOLDER, [row_for(case) for case in train], [row_for(case) for case in test])


def write_dataset(
    folder: Path, train: Sequence[Mapping[str, object]], test: Sequence[Mapping[str, object]]
) -> None:
    """Write rows as train.jsonl and test.jsonl, and what their prompts show."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        path = folder / f"{name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
        logger.info("%s: %d rows, %d bytes", path, len(lines), path.stat().st_size)
    # As data_pipeline.py would be asked for such prompts; forecast.py then gives the model the like.
    write_manifest(folder, {"arguments": RECIPE})


# --- a planted edge -----------------------------------------------------------------------------------------


def plant_edge(edge: float, seed: int, closes: Mapping[str, Sequence[Close]], folder: Path) -> None:
    """Write a dataset as the sample's, of simulated weeks in which one item of news foretells the return.

    The target week's return is moved up by `edge` standard deviations of the symbol's returns after a survey
    of stronger orders, and down as much after one of weaker orders; 0 leaves nothing to be found. Rows have
    the return itself, too.

    Args:
        closes: the real ones, whose weeks are drawn.
        folder: where train.jsonl, test.jsonl and manifest.json go.
    """
    rng = random.Random(f"planted {seed}")
    count = HISTORY_WEEKS + 1 + PLANTED_TRAIN_WEEKS + GAP_WEEKS + PLANTED_TEST_WEEKS
    last_day = max(close.day for series in closes.values() for close in series)
    days = [last_day - timedelta(weeks=count - 1 - at) for at in range(count)]
    surveys = {(symbol, day): rng.choice((STRONGER, WEAKER)) for day in days for symbol in closes}
    simulated = _simulated_closes(closes, days, edge, surveys, rng)

    def row(case: Case) -> dict[str, object]:
        survey = surveys[case.company.symbol, case.target.day]
        return_pct = _change_pct(float(case.closes[-1].usd), float(case.target.usd))
        return {**row_for(case, f"planted {seed}", survey), RETURN_COLUMN: return_pct}

    train, test = split_cases(simulated, PLANTED_TEST_WEEKS)
    write_dataset(folder, [row(case) for case in train], [row(case) for case in test])


def _simulated_closes(
    closes: Mapping[str, Sequence[Close]],
    days: Sequence[date],
    edge: float,
    surveys: Mapping[tuple[str, date], Topic],
    rng: random.Random,
) -> dict[str, list[Close]]:
    """Closes on `days`, from real weeks drawn at random and turned over at random, all symbols together: they
    move together as they do, and rise as often as they fall."""
    changes_pct = {
        symbol: [_change_pct(float(before.usd), float(after.usd)) for before, after in pairwise(series)]
        for symbol, series in closes.items()
    }
    weeks = min(map(len, changes_pct.values()))
    prices_usd = {symbol: float(series[-1].usd) for symbol, series in closes.items()}
    simulated: dict[str, list[Close]] = {symbol: [] for symbol in closes}
    for day in days:
        week, sign = rng.randrange(weeks), rng.choice((1, -1))
        for symbol, real_pct in changes_pct.items():
            by_chance = sign * (real_pct[week] - statistics.fmean(real_pct))
            shift = edge * statistics.pstdev(real_pct) * (1 if surveys[symbol, day] == STRONGER else -1)
            prices_usd[symbol] *= 1 + (by_chance + shift) / 100
            simulated[symbol].append(Close(day, Decimal(f"{prices_usd[symbol]:.2f}")))
    return simulated


# --- raw news -----------------------------------------------------------------------------------------------


def news_rows(closes: dict[str, list[Close]]) -> Iterator[tuple[datetime, str, NewsItem]]:
    """For each symbol and week, in order: the last move, told on Saturday, and a topic of either kind."""
    for symbol, series in closes.items():
        company = COMPANIES[symbol]
        for at in range(HISTORY_WEEKS, len(series)):
            case = Case(company, tuple(series[at - HISTORY_WEEKS : at + 1]), series[at])
            rng = random.Random(f"news {symbol} {case.closes[-1].day}")
            figures = Figures.of(case)
            saturday = case.closes[-1].week_end - timedelta(days=1)
            yield _moment(saturday, 14, rng), symbol, _move_item(case, figures, rng)
            yield _moment(saturday + timedelta(days=1), 9, rng), symbol, _trend_item(case, figures, rng)
            topics = rng.choice(SUPPORTS), rng.choice(RISKS)
            for weekday, topic in zip(rng.sample(range(2, 6), 2), topics, strict=True):
                moment = _moment(saturday + timedelta(days=weekday), 13, rng)
                headline = f"{topic.headline}: {company.name} on {moment:%d %B}"
                yield moment, symbol, NewsItem(headline, topic.summary)


def _moment(day: date, hour: int, rng: random.Random) -> datetime:
    return datetime(day.year, day.month, day.day, hour, rng.randrange(60), rng.randrange(60), tzinfo=UTC)


def build_news() -> None:
    """Write news.csv: published_at (UTC), symbol, headline, summary."""
    with NEWS_FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("published_at", "symbol", "headline", "summary"))
        for moment, symbol, item in news_rows(read_closes()):
            writer.writerow((moment.isoformat(), symbol, item.headline, item.summary))
    logger.info("%s: %d bytes", NEWS_FILE, NEWS_FILE.stat().st_size)


# --- base model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretraining:
    """Size and schedule of the base model."""

    vocab_size: int = 1500
    hidden_size: int = 128
    intermediate_size: int = 344
    layers: int = 4
    heads: int = 4
    kv_heads: int = 1
    """Four heads share a key and value head, as in Llama-3.1-8B."""
    max_positions: int = 4096
    steps: int = 250
    batch_size: int = 8
    block_tokens: int = 512
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    diary_share: float = 0.4
    """Share of documents that are diaries; the others are prompts."""
    seed: int = 0
    threads: int = 2
    """Fixed, because the order of sums, and with it the last bits of the weights, depends on it."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts `<s>` in front of a text and nothing behind it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=PAD, padding_side="left"
    )


def documents(
    cases: Sequence[Case], tokenizer: PreTrainedTokenizerFast, plan: Pretraining
) -> Iterator[list[int]]:
    """Token ids of endless documents: prompts, each ended where an answer would begin, mixed with diaries.

    Args:
        tokenizer: with the chat template that fine-tuning will use.
    """
    rng = random.Random(plan.seed)
    while True:
        story = tell(rng.choice(cases), variant=f"pretraining {rng.random()}")
        is_diary = rng.random() < plan.diary_share
        ids = tokenizer(diary(story))["input_ids"] if is_diary else prompt_ids(tokenizer, messages_for(story))
        yield [*ids, tokenizer.eos_token_id]


def batches(stream: Iterator[list[int]], plan: Pretraining) -> Iterator[torch.Tensor]:
    """`plan.steps` batches of packed documents, each an int64 tensor of shape (batch_size, block_tokens)."""
    pending: list[int] = []
    size = plan.batch_size * plan.block_tokens
    for _ in range(plan.steps):
        while len(pending) < size:
            pending += next(stream)
        yield torch.tensor(pending[:size]).view(plan.batch_size, plan.block_tokens)
        pending = pending[size:]


def new_model(tokenizer: PreTrainedTokenizerFast, plan: Pretraining) -> LlamaForCausalLM:
    """A float32 Llama model with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.kv_heads,
        max_position_embeddings=plan.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def pretrain(model: LlamaForCausalLM, stream: Iterator[list[int]], plan: Pretraining) -> None:
    """Next-token training in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, plan.warmup_steps, plan.steps)
    model.train()
    for step, input_ids in enumerate(batches(stream, plan), start=1):
        loss = model(input_ids=input_ids, labels=input_ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == 1 or step % 25 == 0:
            logger.info("step %d of %d: loss %.3f", step, plan.steps, loss.item())
    model.eval()


def build_base(plan: Pretraining) -> None:
    """Train tokenizer and model on prompts and diaries of the training weeks and write base/."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    train, _ = split_cases(read_closes())
    stories = [tell(case, variant="tokenizer") for case in train]
    texts = [text for story in stories for text in (render_published(messages_for(story)), diary(story))]
    tokenizer = train_tokenizer(texts, plan.vocab_size)
    prepare_tokenizer(tokenizer)
    model = new_model(tokenizer, plan)
    pretrain(model, documents(train, tokenizer, plan), plan)
    tokenizer.chat_template = None  # whoever fine-tunes brings it
    tokenizer.save_pretrained(BASE_FOLDER)
    model.save_pretrained(BASE_FOLDER)
    logger.info("%s: %d parameters, %d tokens", BASE_FOLDER, model.num_parameters(), len(tokenizer))


def main(argv: Sequence[str]) -> None:
    """Parse the command line and build what it names."""
    parser = argparse.ArgumentParser(description="Build the sample dataset, raw news and base model.")
    parts = ("dataset", "news", "base")
    parser.add_argument("part", nargs="?", choices=parts, help="what to build; default: all")
    edge_help = (
        "plant an edge of so many standard deviations into a dataset of simulated weeks; 0 plants none"
    )
    parser.add_argument("--edge", type=float, metavar="SD", help=edge_help)
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="of the dataset with --edge")
    parser.add_argument("--seed", type=int, default=0, help="of the weeks and news with --edge; default: 0")
    args = parser.parse_args(argv)
    if (args.edge is None) != (args.output_dir is None):
        parser.error("--edge and --output_dir go together: the committed sample is not written over.")
    if args.edge is not None and not abs(args.edge) <= LARGEST_EDGE:
        parser.error(f"--edge is {args.edge}; it lies between -{LARGEST_EDGE} and {LARGEST_EDGE}.")
    if args.edge is not None and args.part not in (None, "dataset"):
        parser.error(f"--edge builds a dataset, not {args.part}.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.edge is not None:
        plant_edge(args.edge, args.seed, read_closes(), args.output_dir)
        return
    if args.part in (None, "dataset"):
        build_dataset()
    if args.part in (None, "news"):
        build_news()
    if args.part in (None, "base"):
        build_base(Pretraining())


if __name__ == "__main__":
    main(sys.argv[1:])
