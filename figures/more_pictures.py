"""What a prompt has over the probes, on the campaign's few pictures and on many."""

from matplotlib.figure import Figure

from analyses.campaign_plan import NEAR, TRAIN
from analyses.more_pictures import PROBES, TASKS, THIRDS, epochs_of, gains, growth
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.more_pictures --assets DIR"
OVER = {"linear_probe": "the linear probe", "all_layers_probe": "the probe of all layers"}
COLORS = dict(zip(THIRDS, ("orange", "yellow", "blue", "green"), strict=True))


def draw(results: Results) -> Figure:
    """A row a probe, a column a task: points over the probe for three trainings, a line a
    network."""
    found = gains(results.table("evidence/more_pictures"))
    found = found[found["network"].isin(list(THIRDS))]
    tasks = [task for task in TASKS if task in set(found["task"])]
    sheet, axes = page.panels(len(PROBES) * len(tasks), columns=len(tasks), height=2.1)
    places = [(probe, task) for probe in PROBES for task in tasks]
    with plots.style():
        for ax, (probe, task) in zip(axes, places, strict=True):
            trainings = (
                (TRAIN, 30, f"{TRAIN}"),
                (TRAIN, epochs_of(TRAIN), f"{TRAIN},\nas long"),
                (TASKS[task], epochs_of(TASKS[task]), f"{TASKS[task]:,}"),
            )
            of_task = found[found["task"] == task].set_index(["network", "train", "epochs"])
            for network, color in COLORS.items():
                at = [
                    (x, of_task[f"over_{probe}"].get((network, pictures, epochs)))
                    for x, (pictures, epochs, _) in enumerate(trainings)
                ]
                known = [(x, y) for x, y in at if y is not None]
                ax.plot(
                    [x for x, _ in known],
                    [y for _, y in known],
                    ".-",
                    color=plots.COLORS[color],
                    label=page.short(network),
                )
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
            ax.set_xticks(range(len(trainings)), [words for *_, words in trainings])
            ax.set_xlim(-0.3, len(trainings) - 0.7)
            if probe == PROBES[0]:
                ax.set_title(f"{task} ({'near' if task in NEAR else 'far'})", fontsize=7)
            else:
                ax.set_xlabel("training pictures")
            if task == tasks[0]:
                ax.set_ylabel(f"points over\n{OVER[probe]}")
        for start in range(0, len(axes), len(tasks)):
            row = axes[start : start + len(tasks)]
            ends = [end for ax in row for end in ax.get_ylim()]
            for ax in row:
                ax.set_ylim(min(ends), max(ends))
    page.one_legend(sheet, axes, columns=4)
    more = growth(found)
    more = more[more["equal_steps"] & (more["probe"] == PROBES[0])]
    said = ", ".join(
        f"{row.task} {row.more:+.1f} [{row.low:+.1f}, {row.high:+.1f}]" for row in more.itertuples()
    )
    return page.title(
        sheet,
        f"Many pictures in place of {TRAIN}, at equal steps, change what a prompt gains over the "
        f"linear probe by: {said} (points, mean of {int(more['networks'].min())} networks, one "
        "seed)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)
