"""A run's folder becomes one page that a colleague can be sent.

The page is a single file without scripts, images or links to anywhere: findings in words first,
then the curves with their values on hover, the tables behind them, and the settings that made it.
"""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from aptheory import charts, plots
from aptheory.errors import InputError
from aptheory.relate import best_layers, mean_interval, spearman

STYLE = """
:root{color-scheme:light}
body{font:16px/1.55 system-ui,sans-serif;color:#1c1c1c;background:#fff;max-width:52rem;
 margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.2rem;margin-top:2.2rem;
 border-top:1px solid #ddd;padding-top:1rem}h3{font-size:1rem;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:#333}
.legend{font-size:.85rem;margin:.2rem 0 1rem}.legend span{margin-right:1rem;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}
table{border-collapse:collapse;font-size:.85rem;width:100%}
th,td{text-align:right;padding:.2rem .5rem;border-bottom:1px solid #eee}
th:first-child,td:first-child{text-align:left}
.scroll{overflow-x:auto}details{margin:.6rem 0}summary{cursor:pointer;color:#0b5394}
li{margin:.4rem 0}code{font-size:.9em;background:#f4f4f4;padding:0 .2em;overflow-wrap:anywhere}
"""

OVERLAYS = ("attention_distance", "receptive_field", "globality", "effective_rank")


@dataclass
class Tables:
    """What stands in a run's folder; a table that is not there is empty."""

    profile: pd.DataFrame
    accuracy: pd.DataFrame
    relation: pd.DataFrame
    comparison: pd.DataFrame
    cost: pd.DataFrame
    settings: dict[str, object]

    @classmethod
    def read(cls, folder: str | Path) -> "Tables":
        """Read FOLDER's csv files and settings.json.

        Raises:
            InputError: the folder holds neither profile.csv nor accuracy.csv, or one is damaged.
        """
        folder = Path(folder)
        found = {}
        for name in ("profile", "accuracy", "relation", "comparison", "cost"):
            path = folder / f"{name}.csv"
            try:
                found[name] = pd.read_csv(path) if path.is_file() else pd.DataFrame()
            except pd.errors.EmptyDataError:  # too few layers to relate leave a table without rows
                found[name] = pd.DataFrame()
            except (pd.errors.ParserError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{path} is not a readable table ({error}): write it again"
                ) from error
        if found["profile"].empty and found["accuracy"].empty:
            raise InputError(
                f"{folder} holds neither profile.csv nor accuracy.csv: run `aptheory profile` or "
                f"`aptheory sweep` with --out {folder} first"
            )
        path = folder / "settings.json"
        settings = json.loads(path.read_text()) if path.is_file() else {}
        return cls(**found, settings=settings)


def report(folder: str | Path) -> Path:
    """Write FOLDER/report.html and FOLDER/plots from the tables in the folder; return the page."""
    folder = Path(folder)
    tables = Tables.read(folder)
    draw(tables, folder / "plots")
    page = folder / "report.html"
    page.write_text(html(tables), encoding="utf-8")
    return page


def findings(tables: Tables) -> list[str]:
    """What the tables say, in plain sentences, the most important first."""
    said = []
    accuracy = tables.accuracy
    chosen = best_layers(accuracy) if len(accuracy) else pd.DataFrame()
    for row in chosen.itertuples():
        rows = accuracy[(accuracy["network"] == row.network) & (accuracy["task"] == row.task)]
        test = rows[rows["measure"] == "test_accuracy"]
        ap = test[test["method"] == "ap"].groupby("layer")["value"].mean()
        sentence = (
            f"On {row.task}, {row.network} gains most from a prompt at layer {row.layer} of "
            f"{int(ap.index.max())} ({row.layer_name}): {_percent(row.value, row.low, row.high)} "
            f"test accuracy over {row.seeds} seeds"
        )
        probe = test[test["method"] == "linear_probe"]["value"]
        compared = []
        if len(probe):
            compared.append(f"{100 * probe.mean():.1f} % for the linear probe")
        if 0 in ap.index and row.layer != 0:
            compared.append(f"{100 * ap[0]:.1f} % for a prompt on the image")
        sentence += f", against {' and '.join(compared)}." if compared else "."
        if len(ap) >= 4:
            depth = spearman(ap.index.to_numpy(float), ap.to_numpy(float))
            sentence += f" Accuracy and depth correlate at {depth:+.2f} over {len(ap)} layers."
        said.append(sentence)
    if len(chosen):
        said += _controls(accuracy)
    said += _relations(tables.relation)
    return said


def html(tables: Tables) -> str:
    """The whole page as a string."""
    said = findings(tables) or ["The folder holds metrics but no accuracies yet."]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Layer preference</title><style>{STYLE}</style></head><body>",
        "<h1>Where does the prompt do its work?</h1>",
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in said) + "</ul>",
    ]
    for network, task in _pairs(tables):
        parts.append(f"<h2>{escape(network)} on {escape(task)}</h2>")
        parts += _accuracy_section(tables, network, task)
        parts += _metric_section(tables, network, task)
    parts += _relation_section(tables.relation)
    parts += _comparison_section(tables.comparison)
    parts += _front_section(tables)
    parts += _cost_section(tables.cost)
    parts.append("<h2>What made this page</h2>")
    parts.append(_settings(tables.settings))
    return "\n".join(parts) + "</body></html>\n"


def draw(tables: Tables, folder: Path) -> list[Path]:
    """The same findings as PDF and PNG: accuracy beside metrics, CKA maps, attention distances."""
    written = []
    for network, task in _pairs(tables):
        stem = f"{network}-{task}".replace("/", "_").replace(":", "_").replace(" ", "_")
        profile = _at(tables.profile, network, task)
        measures = set(profile["measure"]) if len(profile) else set()
        shown = [measure for measure in OVERLAYS if measure in measures]
        has_accuracy = len(_at(tables.accuracy, network, task)) > 0
        panels = int(has_accuracy) + len(shown)
        if panels:
            sheet = plots.figure(1, panels, width=plots.COLUMN * min(panels, 4))
            axes = list(sheet.axes)
            if has_accuracy:
                plots.accuracy_by_layer(tables.accuracy, network=network, task=task, ax=axes.pop(0))
            for measure, ax in zip(shown, axes, strict=True):
                plots.metric_by_layer(profile, network=network, task=task, measure=measure, ax=ax)
            written += plots.save(sheet, folder / f"{stem}-layers")
        if "cka" in measures:
            ax = plots.cka_map(profile, network=network, task=task)
            written += plots.save(plots.figure_of(ax), folder / f"{stem}-cka")
        if "attention_distance" in measures:
            ax = plots.attention_distance(profile, network=network, task=task)
            written += plots.save(plots.figure_of(ax), folder / f"{stem}-attention")
    return written


def _controls(accuracy: pd.DataFrame) -> list[str]:
    """Whether AP at the classifier's input equals the linear probe, as it must."""
    test = accuracy[accuracy["measure"] == "test_accuracy"]
    gaps = []
    for _, rows in test.groupby(["network", "task"]):
        table = rows.pivot_table(index=["layer", "seed"], columns="method", values="value")
        if not {"ap", "linear_probe"} <= set(table):
            continue
        ap = table["ap"].dropna()
        last = ap.xs(ap.index.get_level_values("layer").max(), level="layer")
        probe = table["linear_probe"].dropna().groupby("seed").mean()
        gaps += list(100 * (last - probe).dropna())
    if not gaps:
        return []
    return [
        "Control: AP at the classifier's input can express exactly what the linear probe can; "
        f"trained each by itself, AP's accuracy there is {np.mean(gaps):+.2f} points from the "
        f"probe's on average, and at most {np.abs(gaps).max():.2f} in one run. Differences of this "
        "size are the optimiser's, not the layer's."
    ]


def _relations(relation: pd.DataFrame) -> list[str]:
    if relation.empty:
        return []
    rows = relation[relation["statistic"] == "spearman"].dropna(subset=["value"])
    clear = rows[rows["q"] <= 0.05]
    looks = int(rows["looks"].iloc[0]) if len(rows) else 0
    said = [
        f"{row.measure.replace('_', ' ')} correlates with AP's accuracy over layers at "
        f"{row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}] for {row.network} on {row.task}."
        for row in clear.itertuples()
    ]
    if len(rows) and clear.empty:
        strongest = rows.loc[rows["value"].abs().idxmax()]
        said.append(
            f"No metric explains the layer preference beyond chance after {looks} looks; the "
            f"strongest rank correlation is {strongest['value']:+.2f} "
            f"({str(strongest['measure']).replace('_', ' ')}, {strongest['network']} on "
            f"{strongest['task']}). One network has too few layers to say more: each test has a "
            f"smallest possible p of 1/{int(strongest['layers'])}."
        )
    return said


def _accuracy_section(tables: Tables, network: str, task: str) -> list[str]:
    rows = _at(tables.accuracy, network, task)
    rows = rows[rows["measure"] == "test_accuracy"] if len(rows) else rows
    if rows.empty:
        return []
    lines = []
    all_layers = sorted(rows.loc[rows["method"] == "ap", "layer"].unique())
    chosen = best_layers(_at(tables.accuracy, network, task))
    for method, (label, color, line, _) in plots.METHODS.items():
        one = rows[rows["method"] == method]
        if one.empty:
            continue
        if method == "linear_probe":
            low, high = mean_interval(one["value"].to_numpy(float))
            table = pd.DataFrame(
                {"value": one["value"].mean(), "low": low, "high": high}, index=all_layers
            )
        else:
            table = plots.by_layer(one)
        layers = [int(layer) for layer in table.index]
        star = None
        if method == "ap" and len(chosen):
            star = layers.index(int(chosen["layer"].iloc[0]))
        lines.append(
            charts.Line(
                label,
                layers,
                list(100 * table["value"]),
                plots.COLORS[color],
                list(100 * table["low"]),
                list(100 * table["high"]),
                {"-": "", "--": "6 4", ":": "2 4", "-.": "8 3 2 3"}[line],
                _names(rows, layers),
                star,
            )
        )
    summary = f"Test accuracy by layer for {network} on {task}"
    return [
        "<h3>Accuracy of a prompt at each layer</h3>",
        charts.line_chart(
            lines, x_label="layer (0 is the image)", y_label="test accuracy (%)", summary=summary
        ),
        "<p class='legend'>Means over seeds, bands are 95 % intervals of the mean; the large dot "
        "is the layer chosen on validation data.</p>",
        _details("The numbers", _wide(rows)),
    ]


def _metric_section(tables: Tables, network: str, task: str) -> list[str]:
    rows = _at(tables.profile, network, task)
    if rows.empty:
        return []
    parts = []
    for measure in [m for m in OVERLAYS if m in set(rows["measure"])]:
        one = rows[rows["measure"] == measure]
        columns = [name for name in ("value", "low", "high") if name in one]
        table = one.groupby("layer")[columns].mean()
        label = plots.MEASURES.get(measure, measure.replace("_", " "))
        layers = [int(layer) for layer in table.index]
        line = charts.Line(
            label,
            layers,
            list(table["value"]),
            plots.COLORS["purple"],
            low=list(table["low"]) if "low" in table else None,
            high=list(table["high"]) if "high" in table else None,
        )
        parts.append(f"<h3>{escape(label[0].upper() + label[1:])} at each layer</h3>")
        parts.append(
            charts.line_chart(
                [line],
                x_label="layer",
                y_label=label,
                summary=f"{label} by layer for {network} on {task}",
            )
        )
    cka = rows[rows["measure"] == "cka"]
    if len(cka):
        table = cka.pivot_table(index="layer", columns="other_layer", values="value")
        table = table.combine_first(table.T)
        table.index, table.columns = table.index.astype(int), table.columns.astype(int)
        parts.append("<h3>Similarity of layers (linear CKA)</h3>")
        parts.append(
            charts.heat_map(
                table,
                x_label="layer",
                y_label="layer",
                summary=f"CKA between all pairs of layers for {network} on {task}",
            )
        )
    single = rows[rows["measure"] != "cka"]
    if len(single):
        table = single.pivot_table(index="layer", columns="measure", values="value")
        parts.append(_details("All metrics by layer", table.round(4)))
    return parts


def _relation_section(relation: pd.DataFrame) -> list[str]:
    rows = relation.dropna(subset=["value"]) if len(relation) else relation
    rows = rows[rows["statistic"] == "spearman"] if len(rows) else rows
    if rows.empty:
        return []
    labels = [f"{r.measure}: {r.network}, {r.task}"[:46] for r in rows.itertuples()]
    return [
        "<h2>Do the metrics explain the preference?</h2>",
        charts.bars(
            labels,
            list(rows["value"]),
            list(rows["low"]),
            list(rows["high"]),
            x_label="rank correlation with AP's accuracy over layers",
            summary="Rank correlation of each metric with accuracy, with intervals",
            zero=True,
        ),
        _details(
            "The numbers, with p from circular shifts and q after correction", relation.round(4)
        ),
    ]


def _comparison_section(comparison: pd.DataFrame) -> list[str]:
    if comparison.empty:
        return []
    parts = ["<h2>AP beside the other ways to adapt a frozen network</h2>"]
    for key, rows in comparison.groupby(["network", "task"]):
        network, task = key
        rows = rows.sort_values("value", ascending=False)
        parts.append(f"<h3>{escape(str(network))} on {escape(str(task))}</h3>")
        parts.append(
            charts.bars(
                [str(m).replace("_", " ") for m in rows["method"]],
                list(100 * rows["value"]),
                list(100 * rows["low"]),
                list(100 * rows["high"]),
                x_label="test accuracy (%)",
                summary=f"Test accuracy of each method for {network} on {task}",
            )
        )
    parts.append(_details("The numbers", comparison.round(4)))
    return parts


def _front_section(tables: Tables) -> list[str]:
    """Accuracy against cost: time of a step where it was measured, else tunable parameters."""
    rows, cost = tables.comparison, tables.cost
    if rows.empty or "parameters" not in rows:
        return []
    column, label = "parameters", "tunable parameters without the head"
    if {"network", "method", "step_ms", "kept"} <= set(cost):
        steps = cost[~cost["kept"].astype(bool)].groupby(["network", "method"])["step_ms"].min()
        timed = rows.join(steps, on=["network", "method"])
        if timed["step_ms"].notna().any():
            rows, column, label = timed, "step_ms", "time of a training step (ms)"
    parts = []
    for key, one in rows[rows[column] > 0].groupby(["network", "task"]):
        one = one.sort_values([column, "value"], ascending=[True, False])
        best = one["value"] > one["value"].cummax().shift(fill_value=-np.inf)
        parts.append(f"<h3>{escape(str(key[0]))} on {escape(str(key[1]))}</h3>")
        parts.append(
            charts.front_chart(
                [str(method).replace("_", " ") for method in one["method"]],
                list(one[column]),
                list(100 * one["value"]),
                list(best),
                x_label=label,
                y_label="test accuracy (%)",
                summary=f"Test accuracy against {label} for {key[0]} on {key[1]}",
            )
        )
    note = "<p class='legend'>Nothing is both cheaper and better than a method on the line.</p>"
    return ["<h2>Accuracy against cost</h2>", *parts, note] if parts else []


def _cost_section(cost: pd.DataFrame) -> list[str]:
    if cost.empty:
        return []
    return ["<h2>What it costs</h2>", _table(cost.round(4))]


def _settings(settings: dict[str, object]) -> str:
    if not settings:
        return "<p>The folder has no settings.json, so what made its tables is not known.</p>"
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td><code>{escape(_plain(value))}</code></td></tr>"
        for name, value in settings.items()
    )
    return f"<div class='scroll'><table>{rows}</table></div>"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _percent(value: float, low: float, high: float) -> str:
    if np.isnan(low):
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _pairs(tables: Tables) -> list[tuple[str, str]]:
    both = [t[["network", "task"]] for t in (tables.accuracy, tables.profile) if len(t)]
    return [(str(n), str(t)) for n, t in pd.concat(both).drop_duplicates().itertuples(index=False)]


def _at(table: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    if table.empty:
        return table
    return table[(table["network"] == network) & (table["task"] == task)]


def _names(rows: pd.DataFrame, layers: list[int]) -> list[str]:
    if "layer_name" not in rows:
        return []
    named = rows.dropna(subset=["layer_name"]).groupby("layer")["layer_name"].first()
    return [str(named.get(layer, "")) for layer in layers]


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Layers down, methods across, mean test accuracy in percent."""
    table = 100 * rows.pivot_table(index="layer", columns="method", values="value")
    return table.round(2)


def _details(title: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{escape(title)}</summary>{_table(table)}</details>"


def _table(table: pd.DataFrame) -> str:
    if not isinstance(table.index, pd.RangeIndex) and table.index.name:
        table = table.reset_index()
    body = table.to_html(index=False, border=0, na_rep="–", escape=True)
    return f"<div class='scroll'>{body}</div>"
