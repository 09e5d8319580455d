"""What a prompt changes: where the evidence for the true class lies, before and after."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.prompt_views, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """A column an image; rows: the image, then each network before and after."""
    table = results.table("prompt_views/views")
    images = sorted(table["image"].dropna().unique())
    networks = sorted(table["network"].dropna().unique())
    lines = [(network, kind) for network in networks for kind in ("before", "after")]
    sheet = plots.figure(1 + len(lines), len(images), width=plots.PAGE * 0.7, height=0.95)
    axes = np.array(sheet.axes).reshape(1 + len(lines), len(images))
    said = []
    with plots.style():
        for column, image in enumerate(images):
            one = table[table["image"] == image]
            picture = _picture(one[one["kind"] == "pixels"])
            for ax in axes[:, column]:
                ax.set(xticks=[], yticks=[])
                ax.grid(False)
            axes[0, column].imshow(picture)
            axes[0, column].set_title(str(one["label"].dropna().iloc[0]), fontsize=7)
            for ax, (network, kind) in zip(axes[1:, column], lines, strict=True):
                rows = one[(one["network"] == network) & (one["kind"] == kind)]
                heat = rows.pivot(index="row", columns="column", values="value")
                extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
                ax.imshow(picture.mean(-1), cmap="gray", vmin=-128, vmax=255)
                # The picture shows through where there is no evidence.
                strength = heat.to_numpy(float).clip(0, 1)
                ax.imshow(
                    strength, cmap="autumn", alpha=0.8 * strength, extent=extent, vmin=0, vmax=1
                )
        for ax, (network, kind) in zip(axes[1:, 0], lines, strict=True):
            ax.set_ylabel(f"{page.short(network)}\n{kind}", fontsize=6)
        for network in networks:
            rows = table[table["network"] == network]
            accuracy = rows.set_index("kind")["value"]
            said.append(
                f"{page.short(network)}: maps agree at {_agreement(rows):.2f}, accuracy "
                f"{100 * accuracy['accuracy before']:.0f} to "
                f"{100 * accuracy['accuracy after']:.0f} %"
            )
    return page.title(
        sheet,
        "Evidence for the true class (red some, yellow most), before and after a prompt\n"
        + "\n".join(said),
    )


def _picture(rows: pd.DataFrame) -> np.ndarray:
    order = rows.sort_values(["row", "column", "channel"])["value"].to_numpy()
    side = int(rows["row"].max()) + 1
    return order.reshape(side, -1, 3).astype(np.uint8)


def _agreement(rows: pd.DataFrame) -> float:
    """Mean over images of the correlation between the maps before and after."""
    wide = rows[rows["kind"].isin(["before", "after"])].pivot(
        index=["image", "row", "column"], columns="kind", values="value"
    )
    each = [group["before"].corr(group["after"]) for _, group in wide.groupby("image")]
    return float(np.nanmean(each))


if __name__ == "__main__":
    page.alone(draw, __file__)
