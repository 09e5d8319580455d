"""The page and the plots, from tables with a planted finding."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.cases import cases
from aptheory.findings.relate import relate
from aptheory.findings.sentences import sentences
from aptheory.reporting import plots
from aptheory.reporting import svg as charts
from aptheory.reporting.curves import Curve, accuracy_curves, metric_curves
from aptheory.reporting.legend import styles
from aptheory.reporting.page import html
from aptheory.reporting.report import findings, report
from aptheory.reporting.run_folder import Tables


@pytest.fixture
def folder(tmp_path):
    """A run's folder: two networks, one task, three seeds, best layer planted at 4."""
    generator = np.random.default_rng(0)
    profile, accuracy = [], []
    for network in ("vit", "cnn"):
        for layer in range(8):
            shared = {"network": network, "task": "signs", "layer": layer}
            shared["layer_name"] = f"blocks.{layer}"
            for head in range(3):
                profile.append(
                    shared
                    | {"measure": "attention_distance", "head": head, "value": 10 + layer + head}
                )
            profile.append(shared | {"measure": "effective_rank", "value": 5.0 + layer})
            for other in range(layer, 8):
                value = 1 - abs(layer - other) / 8
                profile.append(shared | {"measure": "cka", "other_layer": other, "value": value})
            for seed in range(3):
                for measure in ("val_accuracy", "test_accuracy"):
                    for method in ("ap", "layer_probe", "random_perturbation"):
                        peak = 0.2 * np.exp(-((layer - 4) ** 2) / 4) if method == "ap" else 0
                        value = 0.5 + (peak if layer < 7 else 0) + 0.01 * generator.normal()
                        if method == "ap" and layer == 7:
                            value = 0.5
                        row = {"method": method, "seed": seed, "measure": measure, "value": value}
                        accuracy.append(shared | row)
        for seed in range(3):
            row = {"network": network, "task": "signs", "layer": 7, "method": "linear_probe"}
            row |= {"seed": seed, "measure": "test_accuracy", "value": 0.5}
            accuracy.append(row | {"layer_name": "head"})
    profile, accuracy = pd.DataFrame(profile), pd.DataFrame(accuracy)
    profile.to_csv(tmp_path / "profile.csv", index=False)
    accuracy.to_csv(tmp_path / "accuracy.csv", index=False)
    relate(profile, accuracy).to_csv(tmp_path / "relation.csv", index=False)
    (tmp_path / "settings.json").write_text(json.dumps({"seed": 0, "network <b>": "x & y"}))
    return tmp_path


class Balance(HTMLParser):
    """Every tag that opens closes, in order."""

    void = frozenset({"meta", "br", "wbr"})

    def __init__(self):
        super().__init__()
        self.open = []
        self.places, self.links = set(), set()

    def handle_starttag(self, tag, attributes):
        if tag not in self.void:
            self.open.append(tag)
        self.look(attributes)

    def handle_startendtag(self, tag, attributes):
        self.look(attributes)

    def look(self, attributes):
        for name, value in attributes:
            outside = name == "src" or (name == "href" and not value.startswith("#"))
            assert not outside, f"the page reaches out: {value}"
            if name == "id":
                self.places.add(value)
            if name == "href":
                self.links.add(value[1:])

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def test_the_page_says_the_planted_finding_and_reaches_nowhere(folder):
    page = html(Tables.read(folder))
    assert "vit gains from a prompt at layer 4 of 7 (blocks.4), chosen on validation data" in page
    assert "50.0 % for the linear probe" in page
    assert "the two are equal in 6 runs" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "x &amp; y" in page
    assert "network &lt;b&gt;" in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.links <= parser.places
    assert len(parser.links) == 2


def test_gains_are_paired_over_seeds_and_a_clear_one_is_called_so(folder):
    table = pd.read_csv(folder / "accuracy.csv")
    (vit,) = (case for case in cases(table) if case.network == "vit")
    rows = table.query("network == 'vit' and method == 'ap' and measure == 'test_accuracy'")
    ap = 100 * (rows.query("layer == 4").set_index("seed")["value"] - 0.5)
    half = stats.t.ppf(0.975, 2) * ap.std(ddof=1) / np.sqrt(3)
    assert (vit.gain.value, vit.gain.low) == pytest.approx((ap.mean(), ap.mean() - half))
    table.loc[table["method"] == "linear_probe", "value"] = 0.7
    said = sentences(table, pd.DataFrame())
    assert "vit, one task" in said[0]
    assert "by more than any control moves, on 0 and loses to it on 0 of 1" in said[0]
    assert "On signs, vit has no clear gain: validation data choose layer 4 of 7" in said[2]


def test_the_sentence_on_metrics_speaks_of_accuracy_alone(folder):
    relation = pd.read_csv(folder / "relation.csv")
    gains = relation.assign(target="ap - linear_probe", q=0.0, value=0.99)
    both = pd.concat([relation.assign(target="ap", q=1.0), gains])
    assert not any("+0.99" in said for said in sentences(pd.DataFrame(), both))


def test_every_value_of_the_curve_can_be_hovered(folder):
    page = html(Tables.read(folder))
    table = pd.read_csv(folder / "accuracy.csv")
    chosen = table.query("network == 'vit' and method == 'ap' and measure == 'test_accuracy'")
    for layer, value in (100 * chosen.groupby("layer")["value"].mean()).items():
        assert re.search(rf'aria-label="layer {layer} .blocks.{layer}.: AP {value:.3g}[ ;]', page)


def test_the_plots_are_written_as_vector_and_raster(folder):
    report(folder)
    names = {path.name for path in (folder / "plots").iterdir()}
    for network in ("vit", "cnn"):
        for kind in ("layers", "cka", "attention"):
            assert {f"{network}-signs-{kind}.pdf", f"{network}-signs-{kind}.png"} <= names
    assert not plt.get_fignums()


@pytest.mark.slow
def test_the_same_tables_give_the_same_bytes(folder):
    first = {p.name: p.read_bytes() for p in [report(folder), *(folder / "plots").iterdir()]}
    second = {p.name: p.read_bytes() for p in [report(folder), *(folder / "plots").iterdir()]}
    assert first == second


def test_a_folder_without_accuracies_still_gives_a_page(folder):
    (folder / "accuracy.csv").unlink()
    (folder / "relation.csv").unlink()
    assert "no accuracies yet" in html(Tables.read(folder))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds neither profile.csv nor accuracy.csv"):
        report(tmp_path)


def test_a_null_result_is_printed_as_one(folder):
    tables = Tables.read(folder)
    tables.relation["q"], tables.relation["looks"] = 1.0, 12
    assert any("No metric explains the layer preference" in said for said in findings(tables))


def test_accuracy_axes_hold_the_tables_numbers(folder):
    table = pd.read_csv(folder / "accuracy.csv")
    ax = plots.accuracy_by_layer(table, network="cnn", task="signs")
    line = next(one for one in ax.get_lines() if one.get_label() == "activation prompt")
    chosen = table.query("network == 'cnn' and method == 'ap' and measure == 'test_accuracy'")
    np.testing.assert_allclose(line.get_ydata(), 100 * chosen.groupby("layer")["value"].mean())
    plt.close("all")


def test_asking_for_a_network_that_is_not_there_names_those_that_are(folder):
    table = pd.read_csv(folder / "accuracy.csv")
    with pytest.raises(InputError, match="it has cnn, vit"):
        plots.accuracy_by_layer(table, network="swin", task="signs")
    plt.close("all")


def test_the_front_keeps_only_what_nothing_beats():
    table = pd.DataFrame(
        {"label": list("abcd"), "relative_time": [1.0, 2, 3, 4], "value": [0.5, 0.4, 0.7, 0.6]}
    )
    ax = plots.cost_front(table)
    assert [note.get_text() for note in ax.texts] == list("abcd")
    assert [note.get_text() for note in ax.texts if note.get_fontweight() == "bold"] == ["a", "c"]
    plt.close("all")


def test_charts_survive_a_flat_curve_and_a_single_point():
    for x, y in (([0, 1], [3.0, 3.0]), ([0], [1.0])):
        chart = charts.line_chart([Curve("one", x, y)], x_label="x", y_label="y", summary="flat")
        assert "nan" not in chart
        assert re.search(r"<circle", chart)


def test_the_front_names_what_nothing_beats(folder):
    rows = [("ap", 1000, 0.8), ("norm_tuning", 5000, 0.7), ("full", 90000, 0.9)]
    table = pd.DataFrame(rows, columns=["method", "parameters", "value"])
    table = table.assign(network="vit", task="signs", low=table["value"], high=table["value"])
    table.to_csv(folder / "comparison.csv", index=False)
    page = html(Tables.read(folder))
    section = page.split("Accuracy against cost")[1].split("What made this page")[0]
    assert ">AP</text>" in section
    assert ">full fine-tuning</text>" in section
    assert ">norm tuning</text>" not in section
    assert "norm tuning: 70 at 5,000" in section
    assert ">1M</text>" not in section  # the axis ends at the decade above the dearest
    assert "Not drawn" not in section
    free = [("layer_probe", 0, 0.95), ("linear_probe", 0, 0.6)]  # beats all that is drawn
    free = pd.DataFrame(free, columns=["method", "parameters", "value"])
    free = free.assign(network="vit", task="signs", low=free["value"], high=free["value"])
    pd.concat([table, free]).to_csv(folder / "comparison.csv", index=False)
    page = html(Tables.read(folder))
    assert "Of what is drawn, nothing is both cheaper and better" in page
    assert "no cost is known: layer probe, linear probe." in page


def test_tables_have_a_heading_for_every_column(folder):
    page = html(Tables.read(folder)).replace("<thead>", "")
    tables = re.findall("<table(?! class='settings').*?</table>", page, re.DOTALL)
    assert len(tables) > 4
    for table in tables:
        head, *rows = table.split("</tr>")[:-1]
        assert {row.count("<td") for row in rows} == {head.count("<th")}


def test_a_control_has_the_colour_of_its_prompt_and_not_that_of_another():
    names = ["ap", "random_perturbation", "ap:read=best", "random_perturbation:ap:read=best"]
    found = styles(pd.DataFrame({"method": names}))
    assert found[names[2]].color == found[names[3]].color
    assert len({(style.color, style.line) for style in found.values()}) == 4


def test_the_title_of_a_relation_counts_what_could_be_tested(folder):
    table = pd.read_csv(folder / "relation.csv").query("statistic == 'spearman'")

    def title(q):
        drawn = plots.relation(table.assign(q=q)).get_title(loc="left")
        plt.close("all")
        return drawn

    assert title(np.nan) == "4 correlations, none testable: too few layers"
    assert title([0.01, np.nan, 0.5, 0.04]).startswith("2 of 3 correlations are clear of zero")
    assert title([0.01, np.nan, 0.5, 0.04]).endswith(", 1 not testable")
    assert title(0.5) == "0 of 4 correlations are clear of zero (q ≤ 0.05)"


LOOK = """<body><iframe id=p style="width:WIDTHpx;height:800px;border:0"></iframe><pre id=o></pre>
<script>const frame = document.getElementById('p');
frame.onload = () => {
  const page = frame.contentDocument, see = frame.contentWindow;
  const all = mark => [...page.querySelectorAll(mark)].map(one => one.getBoundingClientRect());
  const box = page.querySelector('.box'), shown = () => see.getComputedStyle(box).visibility;
  const before = shown();
  page.querySelectorAll('details').forEach(one => one.open = true);
  box.parentElement.focus();
  document.getElementById('o').textContent = 'LOOK' + JSON.stringify({
    width: page.documentElement.scrollWidth,
    charts: all('.plot').length,
    lowest: Math.min(...all('.plot').map(chart => chart.height)),
    narrowest: Math.min(...all('.plot').map(chart => chart.width)),
    widest: Math.max(...all('.plot, .forest svg, .legend span').map(one => one.right)),
    letters: Math.min(...all('.plot text').map(one => one.height)),
    tallest: Math.max(...all('details tr:not(:first-child)').map(one => one.height)),
    bar: Math.min(...all('.forest svg').map(one => one.width)),
    touched: [before, shown()],
    boxes: Math.max(...all('.box').map(one => one.right)),
    first: page.querySelector('li').textContent,
    outside: page.querySelectorAll('img, script, link').length,
  }) + 'END';
};
frame.srcdoc = PAGE;</script>"""


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no chromium or chrome on this machine, so the page is not looked at")
    return found


@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_the_page_on_a_phone_and_on_a_desk(width, folder, browser, tmp_path):
    """Nothing wider than the window, charts large enough to read, values on touch."""
    text = html(Tables.read(folder))
    where = tmp_path / "look.html"
    text = json.dumps(text).replace("</", "<\\/")
    where.write_text(LOOK.replace("WIDTH", str(width)).replace("PAGE", text), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    options += " --disable-background-networking --disable-component-update --disable-sync"
    options += f" --user-data-dir={tmp_path / 'user'} --virtual-time-budget=5000 --dump-dom"
    shown = subprocess.run(
        [browser, *options.split(), where.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout
    seen = json.loads(re.search("LOOK({.*})END", shown).group(1))
    assert seen["width"] <= width
    assert seen["widest"] <= width
    assert seen["boxes"] <= width
    assert seen["charts"] >= 8
    assert seen["lowest"] > 200
    assert seen["narrowest"] > 250
    assert seen["letters"] > 11
    assert seen["bar"] > 200
    assert seen["touched"] == ["hidden", "visible"]
    assert seen["outside"] == 0
    assert seen["tallest"] < 60
    assert "the place chosen for a prompt lies at 0.57 of its depth" in seen["first"]


def test_a_folder_whose_methods_hold_no_prompt_has_a_page(tmp_path):
    """One seed of norm tuning, as `aptheory sweep --method norm_tuning --seeds 1` leaves it."""
    row = {"network": "vit", "task": "signs", "method": "norm_tuning", "layer": 0, "seed": 0}
    row |= {"layer_name": "image", "depth": 0.0, "measure": "test_accuracy", "value": 0.6}
    pd.DataFrame([row]).to_csv(tmp_path / "accuracy.csv", index=False)
    report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "norm tuning 60.0 %" in page
    assert "nan" not in page.lower()


def test_the_page_and_the_plots_draw_the_same_curves(folder):
    accuracy = pd.read_csv(folder / "accuracy.csv")
    ax = plots.accuracy_by_layer(accuracy, network="vit", task="signs")
    lines = {line.get_label(): line for line in ax.get_lines()}
    for curve in accuracy_curves(accuracy, "vit", "signs"):
        np.testing.assert_allclose(lines[curve.label].get_ydata(), curve.y)
        assert lines[curve.label].get_color() == curve.color
    assert "probe of layer" in ax.get_title(loc="left")
    assert accuracy_curves(accuracy, "vit", "another") == []
    plt.close("all")


def test_every_measure_of_one_number_a_layer_is_charted_with_its_unit(folder):
    rows = pd.read_csv(folder / "profile.csv")
    radius = rows[rows["measure"] == "effective_rank"].assign(measure="receptive_radius")
    found = metric_curves(pd.concat([rows, radius]), "vit", "signs")
    assert list(found) == ["attention_distance", "receptive_radius", "effective_rank"]
    assert found["receptive_radius"].label == "receptive radius (pixels)"


def test_the_page_says_what_its_numbers_stand_on(folder):
    pictures = {"count": {"train": 60, "val": 30, "test": 60}, "classes": {"train": 10, "test": 9}}
    pictures |= {"left_out": {"text file": 2}, "copies": {"test in train": 3}, "notes": ["grey"]}
    settings = {
        "command": "aptheory run vit --task signs",
        "pictures": {"signs": pictures, "other": "?"},
        "weights": {"vit": "/here/vit.pt"},
        "preprocessing": {"vit": {"network": "images: 32 x 32."}},
        "warnings": {"vit": "massive activations at layer 5"},
        "reading": ["vit on signs reads best at place 7"],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    page = html(Tables.read(folder))
    for words in (
        "60 training pictures of 10 classes, 30 validation pictures of ? classes, 60 test pictures",
        "copies across splits: 3 of test in train; left out on reading: 2 × text file",
        "Weights of vit: /here/vit.pt; it expects images: 32 x 32.",
        "<li>vit on signs reads best at place 7.</li>",
        "Warning: vit has massive activations at layer 5.",
        "The command: aptheory run vit --task signs",
        "@media(prefers-color-scheme:dark)",
    ):
        assert words in page
