"""Write the notebooks from the cells below, run once: python -m analyses.notebooks.write [NAME ...]

A cell that starts with "#" and a blank is text; every other one is code. A test holds the files to
these cells, and their outputs to what a clean kernel gives, so that none can be stale.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent

FIRST_TOUR = (
    "# # A first tour in ten minutes\n\nA pretrained network is an ordered list of layers; a"
    " prompt is one tensor added between two of them. Where does it help?",
    """\
import aptheory as ap

net = ap.load("aptheory_vit_mini")
net""",
    "# Place 0 is the image, the last place the classifier's input. Running to a place "
    "and from it again is running the network.",
    """\
task = ap.task("digits").subset(train=100, val=50, test=100)
x = net.normalize(task.test.images([0, 1, 2, 3], (32, 32)))
z = net.run(x, stop=3)
z.shape, float((net.run(z, start=3) - net(x)).abs().max().detach())""",
    "# Train a prompt at layer 3. What comes before it runs once and is kept.",
    """\
prompt = ap.ActivationPrompt(layer=3).attach(net, classes=len(task.classes))
outcome = ap.fit(prompt, task, recipe=ap.Recipe(epochs=8))
outcome""",
    "# The floor to beat is the linear probe on the same images.",
    """\
probe = ap.LinearProbe().attach(net, classes=len(task.classes))
ap.fit(probe, task, recipe=ap.Recipe(epochs=8))""",
    "# How far does each layer's attention look, and how many directions does it use?",
    """\
profile = ap.profile(net, task, measures=("attention_distance", "effective_rank"), limit=64)
profile.pivot_table(index="layer_name", columns="measure", values="value", sort=False)""",
    """\
from aptheory.reporting import plots

plots.attention_distance(profile, network=net.name, task=task.name);""",
    "# A study is the same for many networks, tasks, layers and seeds. It says what it "
    "would do; `ap.sweep(study, 'DIR')` does it and goes on where it stopped.",
    """\
ap.Study(networks=[net.name], tasks=["digits"], methods=["ap"], seeds=[0, 1, 2])""",
)

WHERE = (
    "# # Where should I put the prompt, in *my* network on *my* images?\n\nPut your images "
    "into `FOLDER/train/CLASS/*.png` (and `val`, `test` beside it, if you have them), "
    "name any timm model, and change the two names below.",
    """\
import aptheory as ap

NETWORK, IMAGES = "aptheory_vit_mini", "textures"  # or 'resnet50', 'folder:my_images'

net = ap.load(NETWORK)
task = ap.task(IMAGES).subset(train=100, val=50, test=100)""",
    "# Without training: a few labelled images, a few passes, a rule fitted on other networks.",
    """\
choice = ap.recommend_layer(net, task, images=48)
choice""",
    "# Check it: train at the recommended place, at the image (visual prompting) and not at all.",
    """\
recipe = ap.Recipe(epochs=6)
classes = len(task.classes)
methods = (ap.ActivationPrompt(layer=choice.layer), ap.VisualPrompt(), ap.LinearProbe())
for method in methods:
    print(ap.fit(method.attach(net, classes=classes), task, recipe=recipe))""",
    "# The whole curve, with seeds and controls, is one command: `aptheory run NETWORK "
    "--task folder:my_images --out DIR`.",
)

METRICS = (
    "# # The metrics\n\nEach is a plain function of tensors, and an accumulator for data "
    "that does not fit into memory. They know nothing of networks or files.",
    """\
import torch

from aptheory import metrics

torch.manual_seed(0)
x = torch.randn(200, 16)""",
    "# **CKA** does not see rotation and scaling; independent features score about zero.",
    """\
rotation = torch.linalg.qr(torch.randn(16, 16)).Q
metrics.cka(x, 3 * x @ rotation), metrics.cka(x, torch.randn(200, 16))""",
    "# **Effective rank** counts directions in use: 16 for white noise, about 2 for a plane.",
    """\
metrics.effective_rank(x), metrics.effective_rank(x[:, :2] @ torch.randn(2, 16))""",
    "# **Attention distance**: uniform attention looks as far as the average pair of patches.",
    """\
distances = metrics.grid_distances((4, 4), (8, 8))
uniform = torch.full((1, 1, 16, 16), 1 / 16)
metrics.attention_distance(uniform, distances), distances.mean()""",
    "# Every measure of features, or of a pair of them, on two tensors: no network, no files.",
    """\
x, y = torch.randn(200, 16), torch.randn(200, 8)
given = {"features": (x,), "pair": (x, y)}
known = {name: m for name, m in metrics.MEASURES.items() if m.takes in given}
{name: round(float(m.function(*given[m.takes])), 3) for name, m in known.items()}""",
    "# What every measure claims about itself; the tests hold each to its claims.",
    """\
import pandas as pd

pd.DataFrame(
    {
        "measure": name,
        "of": m.takes,
        "range": f"{m.low:g} to {m.high:g}",
        "greater means": m.greater_means,
    }
    for name, m in metrics.MEASURES.items()
)""",
    "# On a network, all layers in one pass:",
    """\
import aptheory as ap

net = ap.load("aptheory_resnet_mini")
task = ap.task("counting").subset(train=60, val=20, test=20)
table = ap.profile(net, task, measures=("effective_rank", "globality", "cka"))
table[table.measure != "cka"].pivot_table(
    index="layer_name", columns="measure", values="value", sort=False
)""",
    """\
from aptheory.reporting import plots

plots.cka_map(table, network=net.name, task=task.name);""",
)

NORMALISATION = (
    "# # Activation prompts and normalisation\n\nWhen is a prompt the same thing as tuning "
    "the shift β of a normalisation layer? Exactly, and checked to rounding.",
    """\
import sys

import torch

import aptheory as ap

sys.path.append("../..")  # the repository's root: the table is one of its analyses
from analyses import equivalence_table

net = ap.load("aptheory_resnet_mini")
x = torch.randn(2, *net.input_shape, generator=torch.Generator().manual_seed(0))""",
    "# Every statement on this network. Equalities have errors near rounding; the "
    "statements that say *not equal* have a smallest difference.",
    """\
table = equivalence_table.measure(net, x)
table""",
    "# A prompt that is constant over positions folds into a bias where a linear map, or "
    "a residual sum of them, stands before it: a plain timm model, at no cost.",
    """\
vit = ap.load("aptheory_vit_mini")
prompt = ap.ActivationPrompt(layer=3, shape="channel").attach(vit, classes=4)
torch.nn.init.normal_(prompt.trainable[0], std=0.1)
prompt.eval()
try:
    plain = ap.fold(prompt)
    print("largest difference:", float((plain(x) - prompt(x)).abs().max().detach()))
except ap.InputError as reason:
    print("no exact fold here:", reason)""",
    "# A full prompt moves every position by its own amount, which no β can; it is "
    "refused with the reason.",
    """\
full = ap.ActivationPrompt(layer=3).attach(vit, classes=4)
try:
    ap.fold(full)
except ap.InputError as reason:
    print(reason)""",
)

THEORY = (
    "# # The theory, on networks small enough to see\n\nA frozen two-layer attention network"
    " whose first layer attends globally and second locally: the shallow prompt should "
    "need fewer samples. Exchange the two ranges: if globality is the reason, the preference "
    "flips.",
    """\
from aptheory.theory.comparison import preference, smallest_by_place
from aptheory.theory.patterns import Patterns
from aptheory.theory.prompt_learning import Learning
from aptheory.theory.two_layer_vit import TwoLayerViT

data = Patterns(8)
learning = Learning(batch=8, steps=60)


def doublings(ranges):
    network = TwoLayerViT.for_data(data, ranges=ranges)
    table = smallest_by_place(
        network,
        data,
        places=("layer 1", "layer 2"),
        sizes=(4, 16, 64),
        rates=(0.0125, 0.04),
        epsilons=(0.05,),
        repetitions=3,
        learning=learning,
    )
    return preference(table)""",
    "# log2 of the samples that layer 2 needs over those of layer 1, with its interval. "
    "(Three repetitions, so a first look: `analyses/two_layer.py` is the real experiment, and what "
    "it found stands under claim 17 of `paper_repro.md`.)",
    """\
{"layer 1 global": doublings((4, 1)), "layer 2 global": doublings((1, 4))}""",
    "# VAPT's view: an attention head with prompts is a mixture of experts. Adaptive "
    "prompts are learned at about n^(-1/2); `analyses/experts_rate.py` measures the "
    "slope.",
    """\
import pandas as pd

from aptheory.theory.expert_rate import Setting, one_repetition

pd.DataFrame(
    {"n": n, **row} for n in (200, 800) for row in one_repetition(Setting(), n, seed=0)
).pivot_table(index=["measure", "fit"], columns="n", values="value")""",
)

PICTURES = (
    "# # A folder of pictures, from end to end\n\nOne subfolder a class is all that is needed. "
    "Here handwritten threes and eights stand in for your pictures: put your own folder's name "
    "instead, and leave the second cell out.",
    """\
from pathlib import Path

import aptheory as ap

FOLDER = Path("my_images")""",
    """\
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    if label in (3, 8) and number < 800:
        place = FOLDER / ("three" if label == 3 else "eight")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15 * pixels).astype("uint8")).save(place / f"{number:04d}.png")""",
    "# What is read is said: the classes, the seeded splits, how a picture becomes an image. "
    "`aptheory tasks check folder:my_images` opens every picture and names damage and copies.",
    """\
task = ap.task(f"folder:{FOLDER}")
task""",
    "# Which layer, without training? And what would the best probe of an earlier layer do?",
    """\
net = ap.load("aptheory_vit_mini")
choice = ap.recommend_layer(net, task, images=60)
choice.layer""",
    "# Train one prompt there, and the probe that it must beat.",
    """\
recipe = ap.Recipe(epochs=10)
model = ap.fit_model(net, task, method="ap", layer=choice.layer, recipe=recipe)
probe = ap.fit_model(net, task, method="linear_probe", recipe=recipe)
print(model, probe, sep="\\n")""",
    "# Scores with intervals, on the test pictures.",
    """\
from aptheory.models.evaluation import evaluate

evaluation = evaluate(model, task)
evaluation.scores.round(3)""",
    """\
evaluation.confusion""",
    "# One file holds what was learned: safetensors, nothing in it is executed. It takes paths, "
    "folders, arrays and pictures.",
    """\
model.save("threes_and_eights.safetensors")
ap.load_model("threes_and_eights.safetensors").predict(FOLDER / "eight").head().round(3)""",
)

NOTEBOOKS = {
    "1_first_tour": FIRST_TOUR,
    "2_where_to_put_the_prompt": WHERE,
    "3_metrics": METRICS,
    "4_prompts_and_normalisation": NORMALISATION,
    "5_theory": THEORY,
    "6_a_folder_of_pictures": PICTURES,
}
LARGEST = 100_000
"""Bytes of one output: what is larger is for the kernel of who runs the notebook."""


def notebook(cells: tuple[str, ...]) -> nbformat.NotebookNode:
    """The cells as a notebook without outputs, the same bytes every time."""
    made = new_notebook()
    made.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for number, text in enumerate(cells):
        is_text = text.startswith("# ")
        cell = new_markdown_cell(text[2:]) if is_text else new_code_cell(text)
        cell["id"] = f"cell-{number}"
        made.cells.append(cell)
    return made


def executed(cells: tuple[str, ...]) -> nbformat.NotebookNode:
    """The notebook with what a clean kernel gives, in an empty folder; without times of day."""
    from nbclient import NotebookClient

    root = str(HERE.parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook(cells),
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        )
        made = client.execute()
    made.metadata.pop("language_info", None)
    for cell in made.cells:
        cell.get("outputs", [])[:] = [
            output for output in cell.get("outputs", []) if len(str(output)) <= LARGEST
        ]
    return made


if __name__ == "__main__":
    for name in sys.argv[1:] or NOTEBOOKS:
        nbformat.write(executed(NOTEBOOKS[name]), HERE / f"{name}.ipynb")
        print(HERE / f"{name}.ipynb")
