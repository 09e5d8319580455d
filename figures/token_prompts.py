"""Does the better place turn when every token has a prompt of its own? Errors at N → ∞. (17)"""

import numpy as np
from matplotlib.figure import Figure

from analyses import two_layer_findings as found
from analyses.results import Results
from analyses.theory_verdicts import LEARNT
from aptheory.reporting import plots
from figures import sheet as page
from figures.sample_complexity import COLOR

NEEDS = "python -m analyses.two_layer --form middle, then python -m analyses.collect"
PROMPTS = {"shared": ("one prompt for all tokens", "-"), "token": ("a prompt a token", "--")}


def draw(results: Results) -> Figure:
    """A panel a model and share of discriminative tokens: the floors by P of both prompts."""
    groups: dict[tuple[str, str], dict[str, list[found.Comparison]]] = {}
    for (model, prompt, fraction), each in found.by_tokens(page.two_layers(results)):
        groups.setdefault((model, fraction), {})[prompt] = each
    both = {
        words: prompts
        for words, prompts in groups.items()
        if set(PROMPTS) <= set(prompts)
        and min(one.floors[0][0] for each in prompts.values() for one in each) <= LEARNT
    }
    most = min(each[-1].labels["tokens"] for prompts in both.values() for each in prompts.values())
    sheet, axes = page.panels(len(both), columns=3, height=1.9)
    with plots.style():
        for ax, ((model, fraction), prompts) in zip(axes, both.items(), strict=True):
            for prompt, (words, dashes) in PROMPTS.items():
                tokens = [one.labels["tokens"] for one in prompts[prompt]]
                for place, name in enumerate(found.PLACES):
                    floors = np.array([one.floors[place] for one in prompts[prompt]])
                    value, low, high = floors.T
                    color = plots.COLORS[COLOR[name]]
                    style = {"color": color, "linestyle": dashes, "label": f"{name}, {words}"}
                    ax.plot(tokens, value, marker="o", ms=3, **style)
                    ax.fill_between(tokens, low, high, color=color, alpha=0.15, linewidth=0)
            ax.set_xscale("log", base=2)
            powers = [count for count in tokens if count & (count - 1) == 0]
            ax.set_xticks(powers, [f"{count:g}" for count in powers])
            ax.minorticks_off()
            ax.set_ylim(-2, 52)  # chance is 50
            ax.set_title(f"{model}, {fraction}", fontsize=7)
            ax.set(xlabel="tokens P", ylabel="error at N → ∞ (%)")
    page.one_legend(sheet, axes, columns=2)
    verdicts = {
        prompt: [
            one.verdict
            for prompts in both.values()
            for one in prompts[prompt]
            if one.labels["tokens"] == most
        ]
        for prompt in PROMPTS
    }
    said = (
        f"{words}: layer 1 in {verdicts[prompt].count('layer 1')}, layer 2 in "
        f"{verdicts[prompt].count('layer 2')}"
        for prompt, (words, _) in PROMPTS.items()
    )
    return page.title(
        sheet,
        f"Which place errs less at P = {most:g}, of {len(both)} settings\n" + "; ".join(said),
    )


if __name__ == "__main__":
    page.alone(draw, __file__)
