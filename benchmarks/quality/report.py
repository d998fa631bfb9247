# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Turn the rows that ``run.py`` wrote into tables, beside what the paper reports, pictures, and a page with both.

    python benchmarks/quality/report.py cifar10.csv mnist.csv --output report
    python benchmarks/quality/report.py table1.csv --into benchmarks/README.md "table 1" --title "mean over classes"
    python benchmarks/quality/report.py speed.md --into benchmarks/README.md "speed table"

The second command also writes tables into a page, between ``<!-- table 1 -->`` and ``<!-- end of table 1 -->``: one of
the report, or one that only pages have, see :func:`shared.tables.make_tables_of_pages`. The third takes a table that
another program has printed.

Prints Markdown and writes it to ``report/tables.md``; ``report/index.html`` has the same tables and the pictures in one
file, and the pictures lie beside it. What the figures are is said in :data:`LEGEND`.

``paper_auroc.csv`` has every number of tables 1 to 7 of the supplement.
"""

import argparse
import base64
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from shared.pictures import draw_against_shots, draw_heat_maps, make_title
from shared.results import WITH_FRACTION, compare, read_results, select_usual, summarize, summarize_fractions
from shared.tables import (
    Tables,
    make_table_of_fractions,
    make_table_of_known_anomalies,
    make_tables,
    make_tables_of_averages,
    make_tables_of_pages,
)

LEGEND = (
    "AUROC is in percent, mean and standard deviation (n - 1) over trials; an average over classes has the "
    "mean of the classes' standard deviations, as the paper's averages have. \"Published\" is what HTDGM's "
    'paper\'s supplement reports of the same method (means over ten trials); "difference" is ours less that, '
    "also in units of its standard deviation. Memory is the peak of the process, of which Python, PyTorch and "
    "anomalib take about 1 GB."
)
STYLE = """body {font: 15px sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222}
table {border-collapse: collapse; margin-bottom: 2em} th, td {padding: 4px 10px; border-bottom: 1px solid #ddd}
th {text-align: left; background: #f3f3f3} td {font-variant-numeric: tabular-nums; white-space: nowrap}
img {max-width: 100%} figure {margin: 2em 0} pre {white-space: pre-wrap}"""


def write_report(paths: list[Path], directory: Path) -> str:
    """Write tables, pictures and page of CSV files of ``run.py``, and return the tables as Markdown."""
    return to_markdown(write_tables(read_results(paths), directory))


def write_tables(rows: pd.DataFrame, directory: Path) -> Tables:
    """Write tables, pictures and page of rows of results into a directory, and return the tables."""
    plt.switch_backend("agg")
    directory.mkdir(parents=True, exist_ok=True)
    tables: Tables = {}
    pictures: dict[str, Path] = {}
    usual, with_fraction = select_usual(rows), rows[rows["model"].str.fullmatch(WITH_FRACTION)]
    knows_anomalies = rows["known_anomalies"] > 0
    if not usual.empty:
        table = compare(summarize(usual))
        tables |= make_tables_of_averages(table) | make_tables(table)
        pictures |= draw(usual, table, directory)
    if not with_fraction.empty:
        tables["Fractions of patches"] = make_table_of_fractions(
            summarize_fractions(with_fraction.astype({"shots": int}))
        )
    if knows_anomalies.any():
        tables["Known anomalies"] = make_table_of_known_anomalies(rows[knows_anomalies])
    (directory / "tables.md").write_text(to_markdown(tables))
    (directory / "index.html").write_text(to_html(tables, pictures))
    return tables


def draw(rows: pd.DataFrame, table: pd.DataFrame, directory: Path) -> dict[str, Path]:
    """Draw models that know good images only, rows of results and what :func:`compare` makes; files by caption."""
    pictures = {"Image AUROC against shots": directory / "auroc_shots.png"}
    draw_against_shots(table, pictures["Image AUROC against shots"])
    for (name, shots), part in rows[rows["trial"] == 0].groupby(["maps", "shots"]):
        folder = Path(str(name))
        path = directory / f"maps_{folder.name.split('.')[0]}_{shots}shot.png"
        if draw_heat_maps(part, folder, path):
            pictures[f"{make_title('Anomaly maps', shots)} ({folder.stem})"] = path
    return pictures


def to_markdown(tables: Tables) -> str:
    """Write tables as Markdown."""
    return "\n".join(f"\n### {title}\n\n{to_lines(table)}" for title, table in tables.items()) + "\n"


def to_lines(table: pd.DataFrame) -> str:
    """Write the lines of one table as Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_html(tables: Tables, pictures: dict[str, Path]) -> str:
    """Write tables and pictures, PNG files by caption, as one page that needs no other file."""
    parts = [f"<title>Benchmarks of anomalib-htdgm</title><style>{STYLE}</style><h1>Benchmarks of anomalib-htdgm</h1>"]
    parts.append(f"<p>{escape(LEGEND)}</p>")
    parts += [f"<h2>{escape(title)}</h2>\n{table.to_html(index=False, border=0)}" for title, table in tables.items()]
    for caption, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        source = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure><h2>{escape(caption)}</h2>{source}</figure>")
    return '<!DOCTYPE html><html lang="en"><meta charset="utf-8">' + "\n".join(parts) + "</html>\n"


def write_into(page: Path, marker: str, text: str) -> None:
    """Write text into a page, in place of what is between ``<!-- marker -->`` and ``<!-- end of marker -->``.

    Raises:
        ValueError: If there is no such place, or nothing to write.
    """
    before, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- end of {marker} -->")
    if not begin or not end:
        msg = f"into: {page} has no place between '<!-- {marker} -->' and '<!-- end of {marker} -->'"
        raise ValueError(msg)
    if not text:
        msg = f"into: there is no table for {page}; the report lists all titles"
        raise ValueError(msg)
    page.write_text(f"{before}{begin}{text}\n{end}{after}")


def main() -> None:
    """Write the report of the command line's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = "CSV files of run.py, or of anomalib benchmark; or a table in Markdown (.md) to write into a page"
    parser.add_argument("results", type=Path, nargs="+", help=results)
    parser.add_argument("--output", type=Path, default=Path("report"), help="directory for tables, pictures and page")
    parser.add_argument("--models", default="", help="regular expression: report on models with such names only")
    parser.add_argument("--shots", nargs="+", help="report on these numbers of shots only")
    parser.add_argument("--into", nargs=2, metavar=("PAGE", "MARKER"), help="page to write tables into, and where")
    parser.add_argument("--title", default="", help="write only tables with this in their title into the page")
    options = parser.parse_args()
    if options.into and options.results[0].suffix == ".md":
        printed = options.results[0].read_text().splitlines()
        write_into(Path(options.into[0]), options.into[1], "\n".join(line for line in printed if line.startswith("|")))
        return
    rows = read_results(options.results)
    rows = rows[rows["model"].str.contains(options.models)]
    rows = rows[rows["shots"].astype(str).isin(options.shots)] if options.shots else rows
    tables = write_tables(rows, options.output)
    print(to_markdown(tables))
    if options.into:
        usual = select_usual(rows)
        tables |= {} if usual.empty else make_tables_of_pages(compare(summarize(usual)))
        chosen = {title: to_lines(table) for title, table in tables.items() if options.title in title}
        titled = [f"**{title}**\n\n{lines}" for title, lines in chosen.items()]
        write_into(Path(options.into[0]), options.into[1], "\n\n".join(titled if len(titled) > 1 else chosen.values()))


if __name__ == "__main__":
    main()
