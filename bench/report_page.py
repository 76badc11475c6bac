"""Opens a report.html in Chromium, wide and narrow, and checks that it stands on its own.

python bench/report_page.py REPORT.html --output_dir screenshots

At 1280 and at 400 pixels: no message in the console, nothing asked for but the file itself, every picture
there, and no part of the page wider than the window. Writes a picture of the whole page at each width. Exit
code 1 where a check fails.
Needs `pip install playwright`, and Chromium (such as `apt-get install chromium`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

WIDTHS_PX = (1280, 400)
HEIGHT_PX = 900
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDER_THAN_THE_WINDOW = """() => [...document.body.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.wide'))
    .map(e => e.tagName.toLowerCase() + ' ' + e.textContent.trim().slice(0, 40))"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("report_page"), help="for the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    parser.add_argument("--dark", action="store_true", help="as on a machine set to dark colours")
    args = parser.parse_args()
    if args.chromium is None:
        parser.error("there is no chromium on the path: install it, or name it with --chromium")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    found = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=args.chromium,
            chromium_sandbox=False,  # Chromium refuses to start its own as root
            args=list(FLAGS),
            color_scheme="dark" if args.dark else "light",
        )
        for width_px in WIDTHS_PX:
            picture = args.output_dir / f"{args.report.stem}_{width_px}{'_dark' if args.dark else ''}.png"
            problems = check(context, args.report, width_px, picture)
            print(f"{width_px} px: {'fine' if not problems else f'{len(problems)} problems'}, {picture}")
            found += problems
        context.close()
    print(f"{args.report}: {args.report.stat().st_size / 1e6:.2f} MB")
    for problem in found:
        print(f"  {problem}")
    return 1 if found else 0


def check(context: BrowserContext, report: Path, width_px: int, picture: Path) -> list[str]:
    """What is wrong with the page at this width; writes its picture."""
    problems: list[str] = []
    page = context.new_page()
    url = report.resolve().as_uri()
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            None if request.url == url or request.url.startswith("data:") else problems.append(request.url)
        ),
    )
    page.set_viewport_size({"width": width_px, "height": HEIGHT_PX})
    page.goto(url, wait_until="load")
    wide_px, window_px = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    if wide_px > window_px:
        problems.append(f"{width_px} px: the page is {wide_px} px wide")
        problems += [
            f"{width_px} px: too wide: {element}" for element in page.evaluate(WIDER_THAN_THE_WINDOW)
        ]
    broken = page.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => i.alt)")
    problems += [f"no picture: {name}" for name in broken]
    page.screenshot(path=picture, full_page=True)
    page.close()
    return problems


if __name__ == "__main__":
    sys.exit(main())
