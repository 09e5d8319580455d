"""Where in a frozen vision network does a learned perturbation do its work, and why?

Each public name is imported when it is first used, so that ``import aptheory`` stays quick. The
table says where each lives; the block for type checkers says the same in their language.
"""

from typing import TYPE_CHECKING

from aptheory.version import __version__ as __version__

if TYPE_CHECKING:
    from aptheory import methods as methods
    from aptheory import metrics as metrics
    from aptheory import tasks as tasks
    from aptheory import theory as theory
    from aptheory.choosing.places import recommend_places as recommend_places
    from aptheory.choosing.recommend import recommend_layer as recommend_layer
    from aptheory.errors import InputError as InputError
    from aptheory.exploration import explore as explore
    from aptheory.findings.compare import compare as compare
    from aptheory.findings.layer_map import layer_map as layer_map
    from aptheory.findings.norm_and_prompt import compare_norm as compare_norm
    from aptheory.findings.relate import relate as relate
    from aptheory.methods import E2VPT as E2VPT
    from aptheory.methods import SSF as SSF
    from aptheory.methods import VAPT as VAPT
    from aptheory.methods import VPT as VPT
    from aptheory.methods import VQT as VQT
    from aptheory.methods import ActivationPrompt as ActivationPrompt
    from aptheory.methods import Adapter as Adapter
    from aptheory.methods import BitFit as BitFit
    from aptheory.methods import FullFineTuning as FullFineTuning
    from aptheory.methods import GateVPT as GateVPT
    from aptheory.methods import LayerProbe as LayerProbe
    from aptheory.methods import LinearProbe as LinearProbe
    from aptheory.methods import LoRA as LoRA
    from aptheory.methods import Method as Method
    from aptheory.methods import NormTuning as NormTuning
    from aptheory.methods import Partial as Partial
    from aptheory.methods import RandomPerturbation as RandomPerturbation
    from aptheory.methods import VisualPrompt as VisualPrompt
    from aptheory.methods import attach_saved as attach_saved
    from aptheory.methods import fold as fold
    from aptheory.methods import register as register
    from aptheory.methods import save as save
    from aptheory.models.fitting import fit_model as fit_model
    from aptheory.models.model import Model as Model
    from aptheory.models.model import load_model as load_model
    from aptheory.networks.layer import Layer as Layer
    from aptheory.networks.loading import load as load
    from aptheory.networks.network import Network as Network
    from aptheory.profiling.profile import extract as extract
    from aptheory.profiling.profile import profile as profile
    from aptheory.profiling.similarity import similarity as similarity
    from aptheory.reporting import plots as plots
    from aptheory.reporting.report import report as report
    from aptheory.studies.status import status as status
    from aptheory.studies.study import Study as Study
    from aptheory.studies.sweep import sweep as sweep
    from aptheory.tasks import Task as Task
    from aptheory.tasks import task as task
    from aptheory.training.cost import cost as cost
    from aptheory.training.fit import fit as fit
    from aptheory.training.fit import fit_many as fit_many
    from aptheory.training.outcome import Outcome as Outcome
    from aptheory.training.recipe import Recipe as Recipe
    from aptheory.training.recipe import Run as Run

_METHODS = (
    *("ActivationPrompt", "VisualPrompt", "LinearProbe", "LayerProbe", "RandomPerturbation"),
    *("NormTuning", "BitFit", "VPT", "VQT", "VAPT", "GateVPT", "E2VPT", "LoRA", "Adapter", "SSF"),
    *("Partial", "FullFineTuning", "Method", "register", "save", "attach_saved", "fold"),
)
_HOME = {
    "load": "networks.loading",
    "Network": "networks.network",
    "Layer": "networks.layer",
    "task": "tasks",
    "Task": "tasks",
    **dict.fromkeys(_METHODS, "methods"),
    "profile": "profiling.profile",
    "extract": "profiling.profile",
    "similarity": "profiling.similarity",
    "Recipe": "training.recipe",
    "Run": "training.recipe",
    "Outcome": "training.outcome",
    "fit": "training.fit",
    "fit_many": "training.fit",
    "cost": "training.cost",
    "Study": "studies.study",
    "sweep": "studies.sweep",
    "status": "studies.status",
    "recommend_layer": "choosing.recommend",
    "recommend_places": "choosing.places",
    "fit_model": "models.fitting",
    "load_model": "models.model",
    "Model": "models.model",
    "relate": "findings.relate",
    "layer_map": "findings.layer_map",
    "compare_norm": "findings.norm_and_prompt",
    "compare": "findings.compare",
    "explore": "exploration",
    "report": "reporting.report",
    "InputError": "errors",
}
_MODULES = {name: name for name in ("metrics", "methods", "tasks", "theory")} | {
    "plots": "reporting.plots"
}
__all__ = sorted([*_HOME, *_MODULES, "__version__"])

if not TYPE_CHECKING:

    def __getattr__(name):
        from importlib import import_module

        if name in _MODULES:
            value = import_module(f"aptheory.{_MODULES[name]}")
        elif name in _HOME:
            value = getattr(import_module(f"aptheory.{_HOME[name]}"), name)
        else:
            raise AttributeError(f"module 'aptheory' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        return __all__
