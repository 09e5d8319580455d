"""Where does a prompt help? AP's gain over the linear probe against depth (AP paper, Figure 4)."""

from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One panel a network: a thin line a task, their mean with its 95 % interval."""
    accuracy = results.gathered("accuracy")
    networks = sorted(accuracy["network"].unique(), key=page.real_first)
    sheet, axes = page.panels(len(networks), columns=2 if len(networks) == 4 else 3, height=2.1)
    best = evidence.best_depths(accuracy)
    test = accuracy[accuracy["measure"] == "test_accuracy"]
    with plots.style():
        for network, ax in zip(networks, axes, strict=True):
            rows = test[test["network"] == network]
            gains = _gains(rows)
            for task, curve in gains.groupby("task"):
                curve = curve.groupby("depth", as_index=False)["value"].mean()
                thin = {"color": plots.COLORS["grey"], "linewidth": 0.6}
                ax.plot(curve["depth"], curve["value"], label="one task", **thin)
                at = best[(best["network"] == network) & (best["task"] == task)]["depth"]
                chosen = curve[curve["depth"].round(6).isin(at.round(6))]
                ax.plot(
                    chosen["depth"],
                    chosen["value"],
                    "*",
                    color=plots.COLORS["orange"],
                    markersize=6,
                    zorder=4,
                    label="best on validation data",
                )
            # The interval is over tasks where there are some, else over the seeds' means.
            unit = "task" if gains["task"].nunique() > 2 else "seed"
            gains = gains.groupby([unit, "depth"], as_index=False)["value"].mean()
            plots.curves(gains.assign(of="mean and 95 % interval"), x="depth", by="of", ax=ax)
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
            own = best[best["network"] == network]["depth"]
            count = f"{len(own)} task{'s' if len(own) > 1 else ''}, interval over {unit}s"
            where = f"{own.min():.2f} to {own.max():.2f}" if len(own) > 1 else f"{own.median():.2f}"
            ax.set_title(f"{page.short(network)}: chosen at {where}\n{count}", fontsize=7)
            ax.set_xlabel("")
        for ax in axes[-(2 if len(networks) == 4 else 3) :]:
            ax.set_xlabel("depth (0: image, 1: classifier)")
        sheet.supylabel("gain over the linear probe (points)", fontsize=8)
    page.one_legend(sheet, axes)
    said = []
    for kind, vit in (("CNNs", False), ("ViTs", True)):
        rows = best[best["network"].map(evidence.is_vit) == vit]
        if len(rows):
            mean = clustered_mean(rows["depth"], rows["network"], rows["task"])
            said.append(f"{kind} {mean:.2f} over {mean.n} {mean.unit}")
    return page.title(sheet, f"Depth that validation data choose: {'; '.join(said)}")


def _gains(rows):
    """AP minus the linear probe of the same seed, in points: a row per (task, layer, seed)."""
    keys = ["task", "seed"]
    probe = rows[rows["method"] == "linear_probe"].groupby(keys)["value"].mean().rename("probe")
    ap = rows[rows["method"] == "ap"].groupby([*keys, "layer"], as_index=False)["value"].mean()
    ap = ap.join(probe, on=keys)
    ap["value"] = 100 * (ap["value"] - ap["probe"])
    return ap.assign(depth=ap["layer"] / rows["layer"].max())


if __name__ == "__main__":
    page.alone(draw, __file__)
