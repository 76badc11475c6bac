"""When quarterly figures became public."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from forecaster.data.fundamentals import company_of, latest_known, quarters
from forecaster.records import Company

SERIES = {
    "quarterly": {
        "eps": [{"period": "2024-03-30", "v": 1.53}, {"period": "2023-12-30", "v": 2.18}],
        "netMargin": [{"period": "2024-03-30", "v": 0.26}, {"period": "2023-12-30", "v": None}],
    },
    "annual": {"eps": [{"period": "2023-12-30", "v": 6.1}]},
}
Q1 = {
    "form": "10-Q",
    "endDate": "2024-03-31 00:00:00",
    "filedDate": "2024-05-03 00:00:00",
    "acceptedDate": "2024-05-02 18:04:25",
    "accessNumber": "0000320193-24-000069",
}


def test_a_filing_counts_from_its_acceptance_in_new_york_time() -> None:
    older, newer = quarters(SERIES, [Q1])
    assert (newer.period_end, newer.filing, newer.estimated) == (
        date(2024, 3, 30),
        "0000320193-24-000069",
        False,
    )
    assert newer.available_at == datetime(2024, 5, 2, 22, 4, 25, tzinfo=UTC)
    assert newer.figures == {"eps": 1.53, "netMargin": 0.26}
    assert older.figures == {"eps": 2.18}


OLD = Q1 | {"endDate": "2020-03-31 00:00:00"}
"""Of a quarter that has no figures: it shows only that the company files quarters."""


def test_without_a_filing_a_quarter_waits_45_days_and_a_year_end_75() -> None:
    year_end, quarter = quarters(SERIES, [OLD])
    assert year_end.estimated and year_end.available_at.date() == date(2024, 3, 15)  # the 14th in New York
    assert quarter.estimated and quarter.available_at.date() == date(2024, 5, 15)
    assert quarter.filing == ""


def test_whoever_files_no_quarters_is_waited_for_for_120_days_at_a_year_end_too() -> None:
    for filings in ([], [Q1 | {"form": "20-F", "endDate": "2020-12-31"}], [OLD | {"form": None}]):
        year_end, quarter = quarters(SERIES, filings)
        assert year_end.estimated and year_end.available_at == datetime(
            2024, 4, 29, 3, 59, 59, 999999, tzinfo=UTC
        )
        assert quarter.estimated and quarter.available_at.date() == date(2024, 7, 29)


def test_a_year_end_is_recognised_a_few_days_away() -> None:
    series = {
        "quarterly": {"eps": [{"period": "2023-12-30", "v": 1.0}, {"period": "2023-12-20", "v": 1.0}]},
        "annual": {"eps": [{"period": "2023-12-31", "v": 4.0}]},
    }
    far, near = quarters(series, [OLD])
    assert far.available_at.date() == date(2024, 2, 4)  # 45 days, the 3rd in New York
    assert near.available_at.date() == date(2024, 3, 15)  # 75 days, the 14th in New York


def test_a_late_filing_is_not_known_before_it_is_filed() -> None:
    late = Q1 | {"acceptedDate": "2024-08-01 09:00:00"}
    reported = quarters(SERIES, [late])
    july = latest_known(reported, datetime(2024, 7, 26, 20, 0, tzinfo=UTC))
    august = latest_known(reported, datetime(2024, 8, 2, 20, 0, tzinfo=UTC))
    assert july is not None and july.period_end == date(2023, 12, 30)
    assert august is not None and august.period_end == date(2024, 3, 30)


def test_a_filing_accepted_at_the_close_is_not_yet_known() -> None:
    (quarter,) = quarters(
        {"quarterly": {"eps": [{"period": "2024-03-30", "v": 1.0}]}},
        [Q1 | {"acceptedDate": "2024-05-03 16:00:00"}],
    )
    close = datetime(2024, 5, 3, 20, 0, tzinfo=UTC)
    assert quarter.available_at == close
    assert latest_known([quarter], close) is None


def test_the_original_filing_counts_and_not_its_amendment() -> None:
    amendment = Q1 | {"form": "10-Q/A", "acceptedDate": "2024-06-20 10:00:00", "accessNumber": "later"}
    assert quarters(SERIES, [amendment, Q1])[-1].filing == "0000320193-24-000069"


def test_a_filing_without_acceptance_counts_from_the_end_of_its_day() -> None:
    for accepted in ("", None, "soon", "2024-05-02 25:00:00", "9999-12-31 23:59:59"):
        quarter = quarters(SERIES, [Q1 | {"acceptedDate": accepted}])[-1]
        assert (quarter.available_at, quarter.estimated) == (
            datetime(2024, 5, 4, 3, 59, 59, tzinfo=UTC),
            False,
        )


@pytest.mark.parametrize("accepted", ["2024-05-02", "2024-05-02 00:00:00", "2024-05-02T00:00:00Z"])
def test_an_acceptance_without_a_time_of_day_counts_from_the_end_of_its_day(accepted: str) -> None:
    quarter = quarters(SERIES, [Q1 | {"acceptedDate": accepted}])[-1]
    assert quarter.available_at == datetime(2024, 5, 3, 3, 59, 59, tzinfo=UTC)


def test_a_filing_without_dates_is_passed_over() -> None:
    undated = [
        {"form": "10-Q"},
        Q1 | {"endDate": "soon"},
        Q1 | {"endDate": None},
        Q1 | {"acceptedDate": "soon", "filedDate": "never"},
        Q1 | {"endDate": "9999-12-31", "acceptedDate": "9999-12-31"},
    ]
    assert quarters(SERIES, undated)[-1].estimated


def test_points_without_a_readable_period_are_passed_over() -> None:
    broken = [{"period": None, "v": 1.0}, {"v": 1.0}, {"period": "2025-13-01", "v": 1.0}, None, "text"]
    broken += [{"period": "9999-12-31", "v": 1.0}, {"period": 7, "v": 1.0}]
    series = {
        "quarterly": {"eps": [*broken, {"period": "2024-03-30", "v": 1.5}], "margin": broken},
        "annual": {"eps": [*broken, {"period": "2024-03-30", "v": 6.0}]},
    }
    (quarter,) = quarters(series, [OLD])
    assert (quarter.period_end, quarter.figures) == (date(2024, 3, 30), {"eps": 1.5})
    assert quarter.available_at.date() == date(2024, 6, 14)  # 75 days, the 13th in New York


def test_nothing_reported_is_no_quarter() -> None:
    assert quarters(None, []) == []
    assert quarters({"quarterly": None, "annual": None}, [Q1]) == []
    assert latest_known([], datetime(2024, 1, 1, tzinfo=UTC)) is None


def test_a_profile_gives_only_what_does_not_change() -> None:
    profile = {
        "name": "Apple Inc",
        "finnhubIndustry": "Technology",
        "exchange": "NASDAQ NMS - GLOBAL MARKET",
        "country": "US",
        "ipo": "1980-12-12",
        "marketCapitalization": 3000000.0,
    }
    assert company_of("AAPL", profile) == Company(
        "AAPL", "Apple Inc", "Technology", "NASDAQ NMS - GLOBAL MARKET", "US", date(1980, 12, 12)
    )
    assert company_of("XYZ", None) == Company("XYZ", "XYZ", "", "")
    assert company_of("XYZ", {"name": "X", "ipo": "0000-00-00", "finnhubIndustry": "N/A"}) == Company(
        "XYZ", "X", "", ""
    )
