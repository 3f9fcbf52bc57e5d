"""The frame of every page the training writes: one file, no script, nothing fetched, light and dark.

Knows nothing of what is shown. What is handed in as HTML has been escaped by whoever made it.
"""

from collections.abc import Sequence
from html import escape

_SHOWN = 200


def page(title: str, body: str) -> str:
    """A whole page; `title` is escaped here, `body` is HTML."""
    before, after = PAGE.split("BODY")
    return before.replace("TITLE", escape(title)) + body + after


def section(title: str, body: str) -> str:
    """One part of a page under its heading; `title` is escaped here, `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def left_out(files: Sequence[tuple[str, str]], rest_in: str) -> str:
    """A table of files that could not be used, with the reasons; of more than 200 where the rest is named."""
    rows = "".join(f"<tr><td>{escape(file)}</td><td>{escape(reason)}</td></tr>" for file, reason in files[:_SHOWN])
    more = len(files) - _SHOWN
    rest = f'<p class="small">and {more} more, see {rest_in}</p>' if more > 0 else ""
    return f"<table><tr><th>file</th><th>reason</th></tr>{rows}</table>{rest}"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title><style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --page: #f6f7f9; --card: #fff; --line: #e2e6ec;
  --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaf0; --soft: #98a2b3; --page: #12161d; --card: #1a2029; --line: #2c3440;
  --bad: #f97066; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 32px 24px 64px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 30px; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 18px; }
h3 { margin: 0; font-size: 15px; overflow-wrap: anywhere; }
header p { margin: 4px 0 18px; color: var(--soft); }
section { margin-top: 36px; }
.small { color: var(--soft); font-size: 13px; margin: 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.cards div, article, figure, pre, table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.cards div { padding: 14px 16px; }
.cards b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 13px; }
.stack { display: block; width: 100%; height: 34px; border-radius: 8px; overflow: hidden; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr));
  gap: 14px; margin-top: 16px; }
article { padding: 14px; }
article .small { margin: 2px 0 10px; }
article i, .legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px; }
.patches { display: grid; grid-template-columns: repeat(5, 1fr); gap: 5px; }
.patches img { width: 100%; aspect-ratio: 1; border-radius: 5px; display: block; }
dl { margin: 0; display: grid; grid-template-columns: minmax(120px, 170px) 1fr; gap: 12px 20px; }
dt { font-weight: 600; }
dd { margin: 0; min-width: 0; }
dd ul, dd ol { margin: 0; padding-left: 20px; }
.warned li { margin-bottom: 6px; }
.warned li::marker { content: "! "; font-weight: 700; color: var(--bad); }
.steps pre { margin: 4px 0 10px; padding: 8px 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
th[scope] { overflow-wrap: normal; font-weight: 400; vertical-align: top; }
summary { cursor: pointer; margin-bottom: 10px; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 14px; }
.pair { max-width: none; }
.tree { max-width: 820px; }
.pair.flat { grid-column: 1 / -1; }
.pair div { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; margin-bottom: 8px; }
.pair.flat div { grid-template-columns: 1fr; }
.pair img, .thumbs img { width: 100%; height: auto; display: block; border-radius: 5px; }
.pair img { max-height: 420px; object-fit: contain; }
.thumbs img { max-height: 160px; object-fit: contain; }
.pair figcaption { font-weight: 400; font-size: 13px; margin: 0; color: var(--soft); }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 8px 0 18px; }
.thumbs figure { padding: 8px; }
.thumbs p { margin: 6px 0 0; font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.like { white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
  gap: 14px; margin-bottom: 14px; }
figure { margin: 0; padding: 14px; max-width: 640px; min-width: 0; overflow-x: auto; }
figure.wide { width: fit-content; max-width: 100%; }
.four { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; margin-bottom: 20px; }
.four img { width: 100%; height: auto; display: block; border-radius: 5px; }
figcaption { font-weight: 600; margin-bottom: 8px; overflow-wrap: anywhere; }
.chart { width: 100%; min-width: 460px; height: auto; display: block; }
.chart.matrix { width: auto; max-width: 100%; min-width: 0; }
.chart text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart text.on { fill: #fff; }
.chart text.leaf { fill: var(--ink); font-size: 12px; }
.chart .branch { fill: none; stroke: var(--soft); stroke-width: 1.5; }
.chart .grid { stroke: var(--line); }
.chart .height { paint-order: stroke; stroke: var(--card); stroke-width: 7px; stroke-linejoin: round; }
.chart .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.legend { margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; color: var(--soft); }
pre { padding: 14px; overflow: auto; font-size: 13px; }
table { border-collapse: separate; border-spacing: 0; padding: 6px 10px; }
td, th { text-align: left; padding: 4px 14px 4px 4px; font-size: 14px; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  body { padding: 20px 14px 48px; }
  dl { grid-template-columns: 1fr; gap: 4px; }
  dd { margin-bottom: 14px; }
  .pair div { grid-template-columns: 1fr; } }
</style></head><body>BODY</body></html>
"""
