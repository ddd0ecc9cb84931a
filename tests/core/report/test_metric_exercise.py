"""A metric declared in one line reaches every place that shows metrics, with nothing else edited."""

import json
import subprocess
import sys

DECLARED_AND_SHOWN = """
import io, json, sys, tempfile
from pathlib import Path
import numpy as np, pandas as pd, torch
from rich.console import Console
from featcx_core import metrics

metrics.METRICS += (
    metrics.Metric(
        "loudness", "significance", "loudness max|c|", metrics.number, interval=True, short="loud", noun="Loudness",
        beside=True, sweep="loudness",
    ),
)
from featcx_core.analysis.comparison import COMPARED, Measured, compare_networks
from featcx_core.report.facets.comparison import draw_comparison
from featcx_core.report.run import write_report
from featcx_core.report.sweep.sections import _by_order
from featcx_core.report.tables import table_of
from featcx_core.studies.frames import frames_of
from flows.cli.display import summary_table
from flows.showing import overview
from featcx_core.report.frames import order_rows
from tests.made_frames import measured, reliability
from tests.made_sweeps import made

values = np.array([1.25, 2.5, 5.0, 7.5])
frames = measured() | reliability()
frames["significance"] = frames["significance"].assign(loudness=values, loudness_low=values - 1, loudness_high=values + 1)
rows = order_rows(frames)
draws = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
old, new = (
    Measured((4, 7, 13, 25), {"loudness": values + shift}, {"loudness": draws * slope + shift},
             {"loudness": np.full(4, 0.01)}, 2)
    for shift, slope in ((0, 1), (1, 1.1))
)
changed = compare_networks(old, {"pruned": new}, 0.95)
panels = draw_comparison(frames | {"comparison": changed}).axes
analyses = {"target": frames, "pruned": frames}
with tempfile.TemporaryDirectory() as folder:
    page = write_report(
        Path(folder), analyses, title="t", spec={}, provenance=[], scores={}, notes={}, chosen_order=7
    ).read_text()
terminal = io.StringIO()
Console(file=terminal, width=200).print(summary_table({"orders": rows, "chosen_order": 7}))
sweep, _ = frames_of(made().assign(loudness=lambda table: 2.0 * table["order"]), [], {}, 0.95)
section = _by_order("loudness", "Loudness over sizes", "max|c|", "loudness", "loudness", "The paper has no such measure.")
followed = table_of("loudness", sweep["loudness"], section.tables["loudness"])
print(json.dumps({
    "json": [[row["loudness"], row["loudness_ci"]] for row in rows],
    "missing": order_rows({"significance": measured()["significance"].assign(loudness=np.nan, loudness_low=np.nan,
        loudness_high=np.nan)})[0]["loudness_ci"],
    "overview": [row["loud"] for row in overview(rows)],
    "terminal": terminal.getvalue(),
    "page": page,
    "differences": changed.difference.tolist(),
    "panels": [axis.get_title(loc="left") for axis in panels],
    "sweep": [followed.headings, [cell.text for cell in followed.rows[0]]],
    "sweep_order": int(sweep["loudness"]["order"].iloc[0]),
    "figure": len(section.figure(sweep).axes),
}))
"""


def test_one_line_reaches_every_reader():
    found = json.loads(
        subprocess.run([sys.executable, "-c", DECLARED_AND_SHOWN], capture_output=True, text=True, check=True).stdout
    )
    values = [1.25, 2.5, 5.0, 7.5]
    assert found["json"] == [[value, [value - 1, value + 1]] for value in values]
    assert found["missing"] == [None, None]
    assert found["overview"] == values
    assert "loud" in found["terminal"]
    assert all(f"{value:.3f}" in found["terminal"] for value in values)
    assert "2.50 [1.50, 3.50]" in found["page"]
    assert found["page"].count("loudness max|c|") >= 3  # a table of each network, and the two side by side
    assert found["differences"] == [1.0] * 4
    assert "Loudness" in found["panels"]
    headings, cells = found["sweep"]
    assert cells[headings.index("loudness max|c|")].startswith(f"{2.0 * found['sweep_order']:#.3g}".rstrip("."))
    assert found["figure"] >= 1
