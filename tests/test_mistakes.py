"""Plausible mistakes, 260: one sentence, exit code 2, no traceback, the remedy named."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aptheory.cli import app

GOOD = {
    "networks": '["aptheory_resnet_mini"]',
    "tasks": '["digits"]',
    "layers": "[11]",
    "seeds": "[0]",
}
NETWORK = '[{ name = "aptheory_resnet_mini", %s }]'
TASK = '[{ name = "digits", %s }]'

#: (line of a study, words of the sentence): the line takes the place of the good one of its key.
STUDY = [
    ("netwroks = ['aptheory_resnet_mini']", "did you mean networks"),
    (f"name = '{300 * 'x'}'", "100 at most"),
    ("precision = 'bfloat16'", "belongs to the recipe: recipe = { precision = ... }"),
    ("read = 'best'", "has no 'read'; it has "),
    ("networks = []", "give at least one"),
    ("networks = [5]", "expected a name or a table"),
    ("networks = ['aptheory_resnet_mimi']", "near ones are"),
    ("networks = ['vit_tinny_patch16_224']", "near ones are"),
    ("networks = [{ nam = 'aptheory_resnet_mini' }]", "did you mean name"),
    ("networks = [{ weights = 'random' }]", "has no name"),
    ("networks = [{ name = 5 }]", "expected text"),
    ("networks = [{ name = '' }]", "expected text"),
    ("networks = ['aptheory_resnet_mini', 'aptheory_resnet_mini']", "label"),
    ("networks = " + NETWORK % "options = 'x'", "expected a table"),
    ("networks = " + NETWORK % "options = { depth = 3 }", "change these arguments"),
    ("networks = " + NETWORK % "mean = 'x'", "a channel"),
    ("networks = " + NETWORK % "mean = []", "a channel"),
    ("networks = " + NETWORK % "std = [0.0, 0.0, 0.0]", "above 0"),
    ("networks = " + NETWORK % "seed = -1", "from 0"),
    ("networks = " + NETWORK % "seed = 'x'", "from 0"),
    ("networks = " + NETWORK % "input_shape = [3, 32]", "[channels, height, width]"),
    ("networks = " + NETWORK % "input_shape = [3, 32, 10000000]", "[channels, height, width]"),
    ("networks = " + NETWORK % "input_shape = 'x'", "[channels, height, width]"),
    ("networks = " + NETWORK % "granularity = 'layer'", "'block' or 'stage'"),
    ("networks = " + NETWORK % "interpolation = 'cubic'", "bicubic"),
    ("networks = " + NETWORK % "weights = 5", "a file"),
    ("networks = " + NETWORK % "weights = 'nowhere.safetensors'", "there is no weights file"),
    ("networks = [{ factory = ':fn' }]", "module:name"),
    ("networks = [{ factory = 'nowhere_at_all:fn' }]", "check the module's name"),
    ("networks = [{ factory = 'math:nothing' }]", "cannot be imported"),
    ("networks = [{ factory = 'fn' }]", "module:function"),
    ("networks = [{ factory = 5 }]", "module:function"),
    ("networks = [{ factory = 'math:pi' }]", "is a float; name a function that returns"),
    ("networks = [{ factory = 'math:sqrt', options = { x = 1 } }]", "call it by itself"),
    ("networks = [{ factory = 'builtins:dict' }]", "expected a torch module"),
    ("networks = [{ factory = 'broken_module:fn' }]", "SyntaxError"),
    ("networks = [{ factory = 'raising_module:fn' }]", "on purpose"),
    ("networks = [{ factory = 'leaving_module:fn' }]", "SystemExit"),
    ("tasks = []", "give at least one"),
    ("tasks = [7]", "expected a name or a table"),
    ("tasks = ['digit']", "did you mean"),
    ("tasks = ['digits', 'digits']", "label"),
    ("tasks = ['folder:nowhere']", "nowhere"),
    ("tasks = ['npz:nowhere.npz']", "nowhere"),
    ("tasks = ['nowhere:place']", "places begin with"),
    ("tasks = ['folder:']", "names nothing"),
    ("tasks = " + TASK % "train = 0", "from 1 up"),
    ("tasks = " + TASK % "train = 'many'", "from 1 up"),
    ("tasks = " + TASK % "val = -3", "from 1 up"),
    ("tasks = " + TASK % "size = 3", "has no 'size'"),
    ("tasks = " + TASK % "seed = 1.5", "from 0"),
    ("methods = ['app']", "choose one of"),
    ("methods = []", "give at least one"),
    ("methods = [3]", "expected text"),
    ("methods = ['ap:layr=3']", "has no setting 'layr'"),
    ("methods = ['ap:layer']", "not setting=value"),
    ("methods = ['ap:shape=round']", "must be one of"),
    ("methods = ['vpt:tokens=many']", "expected a whole number"),
    ("methods = ['lora:rank=0']", "rank"),
    ("methods = [{ tokens = 3 }]", "has no name"),
    ("methods = ['nowhere_at_all:Prompt']", "cannot be imported"),
    ("methods = ['math:pi']", "is not a method"),
    ("methods = ['((((((((((']", "choose one of"),
    ("methods = ['vpt']", "makes sense"),
    ("layers = []", "layers is empty"),
    ("layers = [99]", "an index from 0 to"),
    ("layers = 'some'", "an index from 0 to"),
    ("layers = [1.5]", "fraction"),
    ("layers = [true]", "expected 'all'"),
    ("layers = { a = 1 }", "expected 'all'"),
    ("recipe = 'quik'", "quick"),
    ("recipe = 5", "expected a name"),
    ("recipe = { name = 'quick', epoch = 3 }", "epoch"),
    ("recipe = { name = 'quick', epochs = -1 }", "epochs"),
    ("recipe = { name = 'quick', batch_size = 99999999999999999999 }", "from 1 to 1000000000"),
    ("seeds = []", "give at least one"),
    ("seeds = [-1]", "from 0 up"),
    ("seeds = [0.5]", "from 0 up"),
    ("seeds = [1, 1]", "twice"),
    (f"seeds = [{2**70}]", "from 0 up"),
    ("seeds = 'three'", "from 0 up"),
    ("search = []", "expected a table"),
    ("search = { lrs = [1] }", "did you mean lr"),
    ("search = { lr = 'x' }", "list of numbers"),
    ("search = { lr = [-1] }", "list of numbers"),
    ("search = { lr = [] }", "list of numbers"),
    ("search = { lr = [nan] }", "list of numbers"),
    ("protocol = 'vtab1k'", "'vtab'"),
    ("equal = 'flops'", "'parameters'"),
    ("controls = 'yes'", "true or false"),
    ("together = 0", "from 1 up"),
    ("threads = 'all'", "from 1 up"),
    ("layers_together = 1.5", "from 1 up"),
    ("device = 'gpu'", "'cuda'"),
    ("device = 0", "'cuda'"),
    ("name = 5", "expected letters"),
    ("name = '../../x'", "expected letters"),
    ("budget = 5", "has no 'budget'"),
    ("out = 'runs/x'", "has no 'out'"),
    ("network = 'aptheory_resnet_mini'", "keep one of them"),
    ("seeds = [0", "not valid TOML"),
    ("x = " + "[" * 100_000, "nested too deeply"),
]
#: (words of a command, words of the sentence)
LONG = "n" * 200
"""Of a name that leaves no room for that of its part."""
COMMAND = [
    ("layers", "NETWORK"),
    ("layers aptheory_resnet_mini --granularity layer", "'block' or 'stage'"),
    ("layers :fn", "module:name"),
    ("layers profile:net", "cannot be imported"),
    ("sweep", "--network and --task"),
    ("sweep nowhere.toml", "no such file"),
    ("sweep -n aptheory_resnet_mini -t digits --subset many", "three numbers"),
    ("sweep -n aptheory_resnet_mini -t digits --subset 1,²,3", "three numbers"),
    ("sweep -n aptheory_resnet_mini -t digits --seeds 1000000000", "--seeds"),
    ("sweep -n aptheory_resnet_mini -t digits --seeds 0", "--seeds"),
    ("sweep -n aptheory_resnet_mini -t digits --epochs 0", "--epochs"),
    ("sweep -n aptheory_resnet_mini -t digits --engin here", "--engin"),
    ("profile aptheory_resnet_mini -t digits -o out --seed -1", "--seed"),
    ("profile aptheory_resnet_mini -t digits -o out --measures ckaa", "ckaa"),
    ("profile aptheory_resnet_mini -t digits", "--out"),
    ("cost aptheory_resnet_mini ap --batch-size 0", "--batch-size"),
    ("cost aptheory_resnet_mini ap --classes 0", "--classes"),
    ("cost aptheory_resnet_mini ap --classes 1000000000", "to 1000000"),
    ("recommend aptheory_resnet_mini -t digits --images 1", "--images"),
    ("recommend aptheory_resnet_mini", "--task"),
    ("status nowhere", "holds no study"),
    ("report nowhere", "neither profile.csv nor accuracy.csv"),
    ("relate nowhere", "neither profile.csv nor accuracy.csv"),
    ("swep", "swep"),
    ("layers aptheory_resnet_mini --input-shape 3,32", "[channels, height, width]"),
    ("layers aptheory_resnet_mini --input-shape 3,32,x", "3,224,224"),
    ("layers aptheory_resnet_mini --input-shape 300000,32,32", "width], none above 16,384"),
    ("layers aptheory_resnet_mini --input-shape 3,0,0", "[channels, height, width]"),
    ("layers aptheory_resnet_mini --mean nan,nan,nan", "the mean of a network"),
    ("layers aptheory_resnet_mini --std 1,inf,1", "the std of a network"),
    ("layers aptheory_resnet_mini --std 0.5,x", "--std is '0.5,x'"),
    ("layers aptheory_resnet_mini --prefix 5", "no tokens"),
    ("layers aptheory_resnet_mini --prefix 500000", "the prefix of a network"),
    ("layers aptheory_vit_mini --prefix 5", "prefix=5 fits none of its places (there are [1])"),
    ("layers aptheory_vit_mini --layout map", "they are tokens, vector"),
    ("layers aptheory_vit_mini --layout round", "'map', 'map_last' or 'tokens'"),
    ("layers aptheory_resnet_mini --classifier nowhere", "no module 'nowhere'"),
    ("layers aptheory_resnet_mini --blocks nowhere", "no module 'nowhere'"),
    ("layers aptheory_vit_mini --output x", "no 'x'"),
    ("layers aptheory_resnet_mini --option depth", "give key=value"),
    ("layers aptheory_vit_mini --option depth=1 --option depth=2", "sets 'depth' twice"),
    ("layers aptheory_vit_mini --option nonsense=3", "change these arguments"),
    ("layers aptheory_resnet_mini --weights .", ". is no file"),
    ("layers aptheory_resnet_mini --weights pretraind", "there is no weights file pretraind"),
    ("layers aptheory_resnet_mini --weights random --weights pretrained", "is given 2 times"),
    ("layers torchvision:nope --weights random", "aptheory networks lists them"),
    ("layers os:getcwd", "expected a torch module"),
    ("layers résnet18", "near ones are resnet18"),
    ("layers aptheory_resnet_mini --granularity stages", "'block' or 'stage'"),
    ("recommend aptheory_resnet_mini -t digits -t cells", "--task is given 2 times"),
    ("recommend aptheory_resnet_mini -t digits --group patient", "comes with its splits"),
    ("fit aptheory_resnet_mini -t digits --lr nan", "greater than or equal to 0"),
    ("fit aptheory_resnet_mini -t digits --lr -1", "greater than or equal to 0"),
    ("fit aptheory_resnet_mini -t digits --lr inf", "lr must be a finite number"),
    ("fit aptheory_resnet_mini -t digits --weight-decay inf", "weight_decay must be a finite"),
    ("fit aptheory_resnet_mini -t digits --label-smoothing nan", "--label-smoothing"),
    ("fit aptheory_resnet_mini -t digits --label-smoothing 2", "--label-smoothing"),
    ("fit aptheory_resnet_mini -t digits --patience -1", "--patience"),
    ("fit aptheory_resnet_mini -t digits --batch-size 0", "--batch-size"),
    ("fit aptheory_resnet_mini -t digits --epochs 0", "--epochs"),
    (f"fit aptheory_resnet_mini -t digits --seed {10**22}", "--seed"),
    ("fit aptheory_resnet_mini -t digits --seed x", "--seed"),
    ("fit aptheory_resnet_mini -t digits --device mps", "use 'auto'"),
    ("fit aptheory_resnet_mini -t digits --device cuda:99", "use 'auto'"),
    ("fit aptheory_resnet_mini -t digits --device cuda:x", "expected one of auto"),
    ("fit aptheory_resnet_mini -t digits --precision int8", "float32, bfloat16, float16"),
    ("fit aptheory_resnet_mini -t digits --recipe Quick", "choose one of quick"),
    ("fit aptheory_resnet_mini -t digits --augment flips", "none, flip, crop"),
    ("fit aptheory_resnet_mini -t digits --mix mixcut", "none, mixup, cutmix"),
    ("fit aptheory_resnet_mini -t digits --tracker wandbb", "tensorboard, mlflow, wandb"),
    ("fit aptheory_resnet_mini -t digits --out .", "name a file"),
    ("fit aptheory_resnet_mini -t digits --subset 40,20", "three numbers"),
    ("fit aptheory_resnet_mini -t digits --subset 1,1,1", "at least 10, one a class"),
    ("fit aptheory_resnet_mini -t digits --resize big", "network, center, squash, border"),
    ("fit aptheory_resnet_mini -t digits -m app", "choose one of ap"),
    ("fit aptheory_resnet_mini -t digits -m ap:layer=3,layer=4", "sets 'layer' twice"),
    ("fit aptheory_resnet_mini -t digits -m ap:layer=3 --layer 5", "says its layer already"),
    ("fit aptheory_resnet_mini -t digits -m linear_probe --layer 5", "has no layer"),
    ("fit aptheory_resnet_mini -t digits --layer 2.5", "no place 2.5"),
    ("fit aptheory_resnet_mini -t digits --layer 99", "no place 99"),
    ("fit aptheory_resnet_mini -t digits --layer nan", "no place nan"),
    ("fit aptheory_resnet_mini -t digits --layer 5 --read 2", "same place or a later one"),
    ("fit aptheory_resnet_mini -t digits --layer 5 --read best", "leave layer out"),
    ("fit aptheory_vit_mini -t digits -m vpt:tokens=1000000000", "at most 65536"),
    ("fit aptheory_vit_mini -t digits -m vpt:tokens=-1", "at least 1"),
    ("fit aptheory_vit_mini -t digits -m vpt:tokens=1e3", "expected a whole number"),
    ("fit aptheory_vit_mini -t digits -m e2vpt:extra=1000000000", "choose smaller settings"),
    ("fit aptheory_vit_mini -t digits -m vqt:tokens=0", "at least 1"),
    ("fit aptheory_vit_mini -t digits -m adapter:bottleneck=0", "at least 1"),
    ("extract aptheory_resnet_mini -t digits --layers nope -o out", "no place 'nope'"),
    ("extract aptheory_resnet_mini -t digits --split vall -o out", "train, val, test"),
    ("extract aptheory_resnet_mini -t digits --pooled maxi -o out", "mean, class, all"),
    (
        "extract aptheory_resnet_mini -t digits --format csv -o out",
        "--format is 'csv'; expected one of npz",
    ),
    ("fit aptheory_resnet_mini -t digits --mix mixup --balance", "leave one of the two out"),
    (f"fit aptheory_resnet_mini -t digits --out {LONG}.safetensors", "give the file one of 190"),
    (f"run aptheory_resnet_mini -t digits --save {LONG}.st", "give the file one of 190"),
    ("map aptheory_resnet_mini -t digits --out piped", "settings.json is a device or a pipe"),
    ("sweep -n aptheory_resnet_mini -t digits --out piped", "settings.json is a device or a pipe"),
    ("map aptheory_resnet_mini -t digits --epochs 1 --judge luck", "accuracy, loss"),
    ("map aptheory_resnet_mini -t digits --layers nope", "no place 'nope'"),
    ("compare-norm aptheory_resnet_mini -t digits --layers 3 --lr nan", "a number from 0 up"),
    ("shift aptheory_resnet_mini -t digits --reference nope", "no task is called 'nope'"),
    ("shift aptheory_vit_mini -t digits --images 20", "no BatchNorm"),
    ("cost aptheory_vit_mini", "methods"),
    ("cost aptheory_vit_mini ap:layer=99", "no place 99"),
    ("cost aptheory_vit_mini ap=3", "choose one of ap"),
    ("predict nowhere.safetensors notes.txt", "there is no model file"),
    ("predict nowhere.safetensors notes.txt --out nowhere.safetensors", "this command reads"),
    ("predict nowhere.safetensors notes.txt --out a.png", "called as a picture is"),
    ("fit aptheory_vit_mini -t digits --layer 3 --out pictures/1.png", "called as a picture is"),
    ("fit aptheory_vit_mini -t digits -m vpt:dropout=1 --out m.safetensors", "must be below 1"),
    ("export notes.txt --to torch", "notes.txt"),
    ("predict nowhere.safetensors notes.txt --out .", "is a folder"),
    ("predict nowhere.safetensors notes.txt --top 0", "--top"),
    ("predict nowhere.safetensors notes.txt --workers -1", "--workers"),
    ("predict nowhere.safetensors", "pictures"),
    ("evaluate nowhere.safetensors -t digits --out scores.csv", "is to be a page of HTML"),
    ("evaluate /dev/null -t digits", "/dev/null is no file"),
    ("evaluate nowhere.safetensors -t digits --out nowhere.safetensors", "this command reads"),
    ("export nowhere.safetensors", "--to"),
    ("export nowhere.safetensors --to a/b", "there is no model file"),
    ("export nowhere.safetensors --to torch --out nowhere.safetensors", "this command reads"),
    ("tasks nope", "nope"),
    ("run aptheory_resnet_mini", "give --task"),
    ("run aptheory_resnet_mini -t digits --read begin", "end, best or both"),
    ("run nowhere.toml", "there is no such file"),
    ("run nowhere.toml -t digits", "there is no study file nowhere.toml"),
    ("run aptheory_resnet_mini -t digits --dry-run --save-study .", "is a folder"),
    ("run aptheory_resnet_mini aptheory_resnet_mini -t digits --dry-run", "label"),
    ("tasks check digits --root a --root b", "--root is given 2 times"),
    ("tasks check folder:pictures --sheet pictures/a", "lies among the pictures"),
    ("tasks check folder:pictures --sheet notes.txt", "notes.txt is no folder"),
    ("tasks check csv:two.csv?label=a&label=b", "option 'label' is given twice"),
    ("tasks check digits --sheet=", "--sheet is empty"),
    ("tasks --root=", "--root is empty"),
    ("sweep .", "is a folder"),
    ("sweep /dev/zero", "larger than 1 MB"),
    ("sweep -n aptheory_resnet_mini -t digits --layers nope --dry-run", "nope"),
    ("sweep -n aptheory_resnet_mini -t digits --engine rays", "'processes', 'ray' or 'here'"),
    ("sweep -n aptheory_resnet_mini -t digits --address auto", "use engine 'ray'"),
    ("sweep -n aptheory_resnet_mini -t digits --workers 0", "--workers"),
    ("train aptheory_resnet_mini -t digits", "No such command"),
    ("run digits -t aptheory_resnet_mini", "no task is called"),
    ("run aptheory_resnet_mini -t digits --seeds 1.5", "--seeds"),
    ("run aptheory_resnet_mini -t digits --layers= --dry-run", "--layers is empty"),
    ("run aptheory_resnet_mini -t digits --layers 0,,3 --dry-run", "no place ''"),
    ("run aptheory_resnet_mini -t digits --layers 3-5 --dry-run", "no place '3-5'"),
    ("run aptheory_resnet_mini -t digits --layers 1.5,0.2 --dry-run", "no place 1.5"),
    ("run aptheory_resnet_mini -t digits --method AP --dry-run", "choose one of ap"),
    ("run aptheory_resnet_mini -t digits --method ap,vpt --dry-run", "choose one of ap"),
    ("run aptheory_resnet_mini -t digits --images 0", "--images"),
    ("run aptheory_resnet_mini -t digits:foo --dry-run", "places begin with"),
    ("run aptheory_resnet_mini -t folder:notes.txt --dry-run", "neither a folder nor a zip"),
    ("run aptheory_resnet_mini -t npz:notes.txt --dry-run", "is no npz file"),
    ("run aptheory_resnet_mini -t npz:pipe --dry-run", "is not a file"),
    ("run aptheory_resnet_mini -t csv:empty.csv --dry-run", "cannot be read as a table"),
    ("run aptheory_resnet_mini -t csv:two.csv --dry-run", "no column that is plainly the path"),
    ("run aptheory_resnet_mini -t folder:empty_folder --dry-run", "holds no image"),
    ("run aptheory_resnet_mini -t folder:notes.txt/x --dry-run", "does not exist"),
    ("run aptheory_resnet_mini -t digits --out notes.txt", "cannot make the folder"),
    ("run aptheory_resnet_mini -t digits --tracker tensorboardd", "There is no tracker"),
    ("run good.toml --epochs 3 --dry-run", "leave out --epochs"),
    ("run good.toml --full --seeds 2 --dry-run", "leave out --seeds, --full"),
    ("run good.toml -m vpt --dry-run", "leave out --method"),
    ("sweep good.toml -n aptheory_resnet_mini -t digits --dry-run", "leave out --network, --task"),
    ("sweep good.toml --layers 3 --subset 40,20,40 --dry-run", "leave out --subset, --layers"),
    ("sweep good.toml --weights random --dry-run", "leave out --weights"),
    ("sweep good.toml --precision bfloat16 --dry-run", "leave out --precision"),
    ("sweep aptheory_resnet_mini", "there is no such file"),
    ("sweep empty.csv", "has no networks"),
    ("sweep notes.txt", "not valid TOML"),
    ("sweep pipe", "is a pipe"),
    ("sweep loop", "symbolic links"),
    ("sweep -n aptheory_resnet_mini --dry-run", "--network and --task"),
    ("fit aptheory_resnet_mini -t digits --weights notes.txt", "neither a safetensors"),
    ("fit aptheory_resnet_mini -t digits --weights pipe", "pipe is no file"),
    ("fit aptheory_resnet_mini -t digits --weights=", "--weights is empty"),
    ("fit aptheory_resnet_mini -t digits --epochs 1e3", "--epochs"),
    ("fit aptheory_resnet_mini -t digits --device CPU", "expected one of auto"),
    ("fit aptheory_resnet_mini -t digits --mix none,mixup", "none, mixup, cutmix"),
    ("fit aptheory_resnet_mini -t digits --subset -1,5,5", "three numbers"),
    ("fit aptheory_resnet_mini -t digits --out=", "--out is empty"),
    ("fit aptheory_resnet_mini -t digits --out pipe", "a pipe, not a file"),
    ("fit aptheory_resnet_mini -t digits --out notes.txt/m", "cannot be written"),
    ("fit aptheory_resnet_mini -t digits --out loop/m", "cannot be written"),
    ("fit aptheory_resnet_mini -t digits --blocks=", "--blocks is empty"),
    ("fit aptheory_resnet_mini -t digits --std -1,1,1", "above 0"),
    ("fit aptheory_resnet_mini -t digits --input-shape 3x32x32", "--input-shape"),
    ("fit aptheory_resnet_mini -t digits --option =3", "give key=value"),
    (
        "fit aptheory_vit_mini -t digits --option num_classes=100000000000",
        "whole numbers up to 1000000",
    ),
    ("fit aptheory_vit_mini -t digits --option embed_dim=7", "change these arguments"),
    ("fit aptheory_resnet_mini aptheory_vit_mini -t digits", "unexpected extra argument"),
    ("predict notes.txt notes.txt", "not a safetensors file"),
    ("predict pipe notes.txt", "pipe is no file"),
    ("predict notes.txt notes.txt --top abc", "--top"),
    ("evaluate notes.txt", "--task"),
    ("extract aptheory_resnet_mini -t digits --format NPZ -o x", "npz, parquet"),
    ("extract aptheory_resnet_mini -t digits --split train,val -o x", "train, val, test"),
    ("map aptheory_resnet_mini -t digits --seeds 0", "--seeds"),
    ("compare-norm aptheory_resnet_mini -t digits --layers 999", "no place"),
    ("shift aptheory_resnet_mini -t digits --reference folder:nowhere", "nowhere"),
    ("shift aptheory_resnet_mini -t digits --images 0", "--images"),
    ("sweep aptheory_resnet_mini -t digits", "networks are named with --network"),
    ("status notes.txt", "is no folder; give the one"),
    ("status /dev/null", "is no folder; give the one"),
    ("report notes.txt", "is no folder; give the one"),
    ("relate notes.txt", "is no folder; give the one"),
    ("predict . notes.txt", "is a folder; a model is one file"),
    ("map aptheory_vit_mini -t digits --out notes.txt/a", "notes.txt is no folder"),
    ("demo --out notes.txt", "cannot make the folder"),
    ("layers timm/resnet18", "near ones are"),
    ("fit aptheory_vit_mini -t digits -m ap:std=1e9 --layer 3", "from 0 to 1e+06"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with modules that do not import."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "broken_module.py").write_text("def fn(:\n")
    (folder / "raising_module.py").write_text("def fn():\n    raise ValueError('on purpose')\n")
    (folder / "leaving_module.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "notes.txt").write_text("milk\neggs\n")
    (folder / "empty.csv").write_text("")
    (folder / "two.csv").write_text("a,b\n1,2\n")
    (folder / "good.toml").write_text("\n".join(f"{word} = {v}" for word, v in GOOD.items()))
    (folder / "empty_folder").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "piped").mkdir()
    os.mkfifo(folder / "piped" / "settings.json")
    (folder / "profile.py").write_text("raise RuntimeError('a file of the user ran')\n")
    return folder


def refusal(*words: str) -> str:
    """The one sentence of a refused command."""
    result = CliRunner().invoke(app, list(words))
    told = [line for line in result.stderr.splitlines() if line.startswith("aptheory: ")]
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert len(told) == 1, result.output
    assert len(told[0]) < 1200
    assert "Traceback" not in result.output
    return told[0]


@pytest.mark.parametrize(("line", "words"), STUDY, ids=[line[:60] for line, _ in STUDY])
def test_a_mistake_in_a_study(place, monkeypatch, line, words):
    monkeypatch.chdir(place)
    key = line.partition(" =")[0]
    lines = [f"{word} = {value}" for word, value in GOOD.items() if word != key]
    (place / "study.toml").write_text("\n".join([line, *lines]) + "\n", encoding="utf-8")
    assert words in refusal("sweep", "study.toml", "--dry-run")


@pytest.mark.parametrize(("command", "words"), COMMAND, ids=[command for command, _ in COMMAND])
def test_a_mistake_on_the_command_line(place, monkeypatch, command, words):
    monkeypatch.chdir(place)
    assert words in refusal(*command.split())


ROW = {
    "network": "n",
    "task": "t",
    "method": "ap",
    "layer": 1,
    "seed": 0,
    "measure": "test_accuracy",
    "value": 0.5,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.pop("method"), "has no column method"),
        (lambda row: row.pop("layer"), "has no column layer"),
        (lambda row: row.update(layer="first"), "holds no numbers in layer"),
        (lambda row: row.update(layer=-1), "outside 0 to"),
        (lambda row: row.update(layer=10**12), "outside 0 to"),
        (lambda row: row.update(layer=0.5), "no whole number"),
        (lambda row: row.update(layer=np.nan), "no whole number"),
        (lambda row: row.update(value="good"), "holds no numbers in value"),
        (lambda row: row.update(value=np.inf), "without bound"),
        (lambda row: row.update(value=-3), "an accuracy of -3, which is not from 0 to 1"),
        (lambda row: row.update(value=5e9), "an accuracy of 5e+09"),
        (lambda row: row.update(value=np.nan), "an accuracy of nan"),
        (lambda row: row.update(depth=-1), "a depth that is not from 0 to 1"),
        (lambda row: row.update(depth=1e-320), "a depth as of a network of more than"),
        (lambda row: row.update(depth=1e-9), "a depth as of a network of more than"),
        (lambda row: row.update(seed=-1), "a seed below 0"),
        (lambda row: row.update(network=np.nan), "rows without a network"),
        (lambda row: row.update(dict.fromkeys(range(1000))), "more than 1000"),
        (lambda row: row.update({"x" * 2**20: 1}), "names no columns"),
    ],
)
def test_a_table_that_is_damaged(tmp_path, change, words):
    row = dict(ROW)
    change(row)
    pd.DataFrame([row]).to_csv(tmp_path / "accuracy.csv", index=False)
    assert words in refusal("report", str(tmp_path))


@pytest.mark.parametrize(
    "text", ["{", "[1]", '"x"', "[" * 100_000, '{"a": NaN}', "\xff", '{"a": "\\ud800"}']
)
def test_settings_that_are_damaged(tmp_path, text):
    pd.DataFrame([ROW]).to_csv(tmp_path / "accuracy.csv", index=False)
    (tmp_path / "settings.json").write_text(text, encoding="latin-1")
    assert "settings.json" in refusal("report", str(tmp_path))


def test_a_profile_whose_similarities_are_of_no_pair(tmp_path):
    row = {**ROW, "measure": "cka"}
    pd.DataFrame([row]).to_csv(tmp_path / "profile.csv", index=False)
    assert "has no column other_layer" in refusal("report", str(tmp_path))
    row |= {"other_layer": 1, "value": np.nan}
    pd.DataFrame([row, {**row, "layer": 2}]).to_csv(tmp_path / "profile.csv", index=False)
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 0


@pytest.mark.parametrize(
    "plan",
    [
        "{",
        "[]",
        "[" * 100_000,
        json.dumps({"batches": []}),
        json.dumps({"name": "x", "not_applicable": [], "batches": {"a": {"runs": [5]}}}),
        json.dumps({"name": 5, "not_applicable": [], "batches": {}}),
        json.dumps(
            {
                "name": "x",
                "not_applicable": [],
                "batches": {"a": {"runs": [], "seconds": 1, "labels": {}}},
            }
        ),
    ],
)
def test_a_plan_that_is_damaged(tmp_path, plan):
    (tmp_path / "plan.json").write_text(plan)
    assert "run the sweep again" in refusal("status", str(tmp_path))


@pytest.mark.parametrize("column", ["difference", "rank", "layer"])
def test_a_comparison_that_holds_texts_for_numbers(tmp_path, column):
    pd.DataFrame([ROW]).to_csv(tmp_path / "accuracy.csv", index=False)
    numbers = dict.fromkeys(["value", "low", "high", "difference", "rank", "layer"], 0)
    row = {"network": "n", "task": "t", "method": "ap", **numbers, column: "much"}
    pd.DataFrame([row]).to_csv(tmp_path / "comparison.csv", index=False)
    assert f"holds no numbers in {column}" in refusal("report", str(tmp_path))


def test_there_are_two_hundred_and_sixty_of_them():
    assert len(STUDY) + len(COMMAND) >= 260
