"""What every method has in common: ``method.attach(net, classes=...)`` gives an ``Adapted``.

A method says what it trains and at which place the network first feels it. The rest follows:
whatever comes before that place is frozen and independent of what is learned, so it can be run
once and kept; K runs can share the frozen remainder; saving keeps the learned tensors alone; and
where the learned tensors can be written into ordinary weights exactly, ``fold`` does it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aptheory.arguments import Between, Seed, check_fields, checked_arguments
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.methods.head import Head, Summaries
from aptheory.methods.per_run import PerRun, RunDropout, by_run
from aptheory.methods.samples import AnyAxis, put_samples_first, sample_axes
from aptheory.networks.doors import check_default_device
from aptheory.networks.fast_path import fast_path_off, has_fast_path
from aptheory.networks.reading import Reading, check_pooling

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network

ROLES = ("prompt", "control", "probe", "baseline")
"""What a method is in a comparison: see `Method`."""
MOST_CLASSES = 2**20
LARGEST_SIZE = 2**16
"""Of what makes a method larger or smaller: tokens, a rank, a bottleneck."""
MOST_NUMBERS = 2**31
"""Of one learned tensor, all runs together; looked at before the memory is taken."""

Runs = Annotated[int, Between(1, 10_000)]
"""How many train as one stack."""


@dataclass(frozen=True)
class Method:
    """The settings of one way to adapt a frozen network; subclasses add their fields.

    ``read`` is the place that the head reads, or several side by side, or "all"; None is the
    network's own end. What it reads there is pooled: the "mean" over positions, the "class" token,
    "both" side by side, or "all" positions. Nothing behind the place runs, and nothing there is
    trained.

    ``name`` is what tables and the command line call it, ``label`` what a reader does, ``short``
    the same where there is little room. ``role`` is "prompt" (swept over layers, with its
    control), "control" (what a prompt must beat), "probe" (a classifier on frozen features) or
    "baseline" (any other way to adapt a network). ``size`` names the setting that decides how many
    parameters are trained, where there is one. ``stackable`` methods can hold several runs at
    once. ``batchnorm`` is the policy for running statistics: "frozen" (never touched, evaluation
    mode even while training) or "trained" (batch statistics, as in fine-tuning).
    """

    read: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    pooling: str = field(default="mean", kw_only=True)
    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    short: ClassVar[str] = ""
    role: ClassVar[str] = "baseline"
    size: ClassVar[str | None] = None
    stackable: ClassVar[bool] = True
    batchnorm: ClassVar[str] = "frozen"

    def __post_init__(self) -> None:
        """What can be refused before a network is known: no pooling, no fraction of a depth."""
        for setting in ("layer", "read"):
            if isinstance(value := getattr(self, setting, None), list):
                object.__setattr__(self, setting, tuple(value))
        check_fields(self, self.name or type(self).__name__)
        check_pooling(self.pooling)
        if self.size is not None and not 1 <= getattr(self, self.size) <= LARGEST_SIZE:
            raise InputError(
                f"{self.size} must be at least 1 and at most {LARGEST_SIZE}, got "
                f"{getattr(self, self.size)}."
            )
        for setting in ("layer", "read"):
            value = getattr(self, setting, None)
            for place in value if isinstance(value, tuple) else (value,):
                if isinstance(place, float) and not 0 <= place <= 1:
                    raise InputError(
                        f"{setting}={place!r} is no place: a number with a point is a fraction of "
                        "the depth, from 0.0 to 1.0, and a place's index is a whole number."
                    )

    def reading(self, net: Network) -> Reading:
        """Where the head reads in this network."""
        return Reading.of(net, self.read, pooling=self.pooling)

    @classmethod
    def default(cls, net: Network) -> Method:
        """A sensible instance for this network; InputError where the method makes no sense."""
        return cls()

    def control(self, adapted: Adapted) -> Method | None:
        """What this method, trained as ``adapted``, must be measured against at its own place.

        Of what was learned a control may take its ``norm`` alone; every other setting must follow
        from the method's own. None: it has no control.
        """
        return None

    def first_layer(self, net: Network) -> int:
        """The first place of ``net`` that feels this method: `install` says it, once attached.

        Methods that know it from their settings say so without attaching.
        """
        return self.attach(net, classes=1).first_layer

    def install(self, adapted: Adapted) -> int:
        """Add this method's tensors to ``adapted`` and return the first place that feels them."""
        raise InputError(
            f"{type(self).__name__} cannot be attached: it does not say what it trains"
        )

    def reset(self, adapted: Adapted, seed: int) -> None:
        """Draw again what is not held in PerRun tensors; most methods have nothing there."""

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        """Write what was learned into a plain copy of the network, or raise InputError."""
        raise InputError(f"{self.name} cannot be folded: no ordinary weights express it")

    @checked_arguments
    def attach(
        self, net: Network, *, classes: int, runs: Runs = 1, seed: Seed | Sequence[Seed] = 0
    ) -> Adapted:
        """This method on ``net`` with a fresh head of ``classes`` outputs; ``net`` stays as it was.

        ``runs=K`` keeps K independent copies of everything that learns. ``seed`` is one integer
        (run k is drawn from seed + k) or one integer a run. A network of half precision is adapted
        in float32: its weights are cast up.

        Raises InputError when the method does not fit the network, or cannot be stacked.
        """
        check_default_device()
        if not 1 <= classes <= MOST_CLASSES or runs < 1:
            raise InputError(
                f"classes and runs must be at least 1, and classes at most {MOST_CLASSES}; got "
                f"classes={classes} and runs={runs}."
            )
        if runs > 1 and not self.stackable:
            raise InputError(
                f"{self.name} changes the network itself and cannot hold {runs} runs at once: "
                "attach it with runs=1, once a run"
            )
        return Adapted(self, net.in_float32(), classes=classes, seeds=_seeds(seed, runs))

    def settings(self) -> dict[str, Any]:
        """{"method": name, field: value, ...}: plain values for TOML, JSON and a run's identity.

        A class that is not built in adds ``"factory": "module:Class"``, by which it is found.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.read is None:  # a run at the network's end is called as it was before heads moved
            values = {key: v for key, v in values.items() if key not in ("read", "pooling")}
        if values.get("layer", 0) is None:  # as before every method had a layer
            del values["layer"]
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
        return {"method": self.name, **self._factory(), **plain}

    def _factory(self) -> dict[str, str]:
        kind = type(self)
        if kind.__module__.startswith("aptheory."):
            return {}
        return {"factory": f"{kind.__module__}:{kind.__qualname__}"}


def _seeds(seed: int | Sequence[int], runs: int) -> list[int]:
    seeds = [seed + k for k in range(runs)] if isinstance(seed, int) else [int(s) for s in seed]
    if len(seeds) != runs:
        raise InputError(f"{runs} runs need {runs} seeds, got {len(seeds)}")
    return seeds


class Adapted(nn.Module):
    """A frozen network with what one method adds to it, for one run or K runs at once.

    Attributes:
        net: its own structure over the same frozen weights (``Network.share``), up to the last
            place that the head reads.
        edits: place index (as text) -> the modules applied, in order, to the activation there.
        summaries: what blocks give the head beside that, where a method lets them.
        head: the linear classifier on the features of ``reading``, and the summaries.
        acts_at: the first place that feels what is learned, the head aside.
        first_layer: nothing before this place depends on what is learned: where it acts, or where
            the head first reads, if that is earlier.
    """

    net: Network

    def __init__(self, method: Method, net: Network, *, classes: int, seeds: Sequence[int]) -> None:
        super().__init__()
        # In a tuple so that the caller's network is not registered as a part of this one.
        self._source = (net,)
        self.method = method
        self.classes = classes
        self.runs = len(seeds)
        self.seeds = list(seeds)
        self.reading = method.reading(net)
        self.net = self.original.share()
        self.like = next(iter(self.net.parameters())).detach()
        self.edits = nn.ModuleDict()
        self.summaries = Summaries()
        given: Any = method.install(self)
        self.has_fast_path = has_fast_path(self.net)
        whole = hasattr(given, "__index__") and not isinstance(given, bool)
        if not whole or not 0 <= int(given) < len(net.layers):
            raise InputError(
                f"install of {type(method).__name__} returned {shown(given)}; expected the index "
                "of the first place that feels the method."
            )
        felt = int(given)
        if self.places and self.places[0] < felt:
            raise InputError(
                f"install of {type(method).__name__} returned {felt}, but it edits place "
                f"{self.places[0]}; it must return the first place that feels the method."
            )
        if felt > self.exit:
            raise InputError(
                f"{method.name} acts at place {felt} of {net.name} and its head reads at place "
                f"{self.exit}: read at the same place or a later one."
            )
        self.acts_at, self.first_layer = felt, min(felt, self.reading.first)
        width = self.summaries.width + sum(
            self.reading.pooled(layer, torch.zeros(1, *layer.shape)).shape[-1]
            for layer in self.reading.layers
        )
        self._check_size(width * classes)
        if self.runs > 1 and (common := self.common_parts()):
            raise InputError(
                f"{method.name} cannot hold {self.runs} runs at once: {common[0]} is one for all "
                "of them; make it with adapted.per_run(shape), or attach it once a run."
            )
        self.head = Head(self.runs, width, classes, like=self.like)
        self.reset(seeds)
        self.train()

    @property
    def source(self) -> Network:
        """The network that it was attached to."""
        return self._source[0]

    @property
    def original(self) -> Network:
        """The source up to the last place that the head reads, as nothing has changed it."""
        return self.source.until(self.exit)

    @property
    def exit(self) -> int:
        """The last place that the head reads."""
        return self.reading.last

    # ---- building blocks for the methods

    def per_run(self, shape: Sequence[int], initial: Any = None, *, learns: bool = True) -> PerRun:
        """A tensor of ``shape`` for each run, zero at the start unless ``initial`` says else."""
        self._check_size(math.prod(shape))
        extra = {} if initial is None else {"initial": initial}
        return PerRun(self.runs, shape, like=self.like, learns=learns, **extra)

    def _check_size(self, numbers: int) -> None:
        if self.runs * numbers > MOST_NUMBERS:
            raise InputError(
                f"{self.method.name} would learn a tensor of {self.runs * numbers:,} numbers; "
                f"choose smaller settings than {self.method.settings()}."
            )

    def edit(self, place: int, module: nn.Module) -> None:
        """Apply ``module`` to the activation that enters ``place``.

        Raises:
            InputError: it is no module.
        """
        if not isinstance(module, nn.Module):
            raise InputError(
                f"an edit at place {place} is {shown(module)}; expected a torch module of what "
                "enters there."
            )
        if str(place) not in self.edits:
            self.edits[str(place)] = nn.ModuleList()
        self.edits_at(place).append(module)

    def edits_at(self, place: int) -> nn.ModuleList:
        """The modules applied to the activation that enters ``place``, in order."""
        edits = self.edits[str(place)]
        assert isinstance(edits, nn.ModuleList)
        return edits

    @property
    def places(self) -> list[int]:
        """The places with edits, in order."""
        return sorted(int(key) for key in self.edits)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put ``module`` where the network has its submodule ``name`` (dotted).

        Of several runs it sees the samples on the first axis, wherever the submodule has them,
        unless it is an `AnyAxis`; InputError where that cannot be.
        """
        inner = self.net.replace(name, module)
        look_like(module, inner)
        axis = sample_axes(self.original).get(name, 0) if self.runs > 1 else 0
        if isinstance(module, AnyAxis):
            module.axis = axis
        elif axis > 0:
            put_samples_first(module, inner, axis)

    # ---- running it

    def features(self, z: Tensor) -> Float[Tensor, "samples width"]:
        """From the activation entering ``first_layer`` (K*B, ...) to the head's features."""
        given = self.summaries.given
        given.clear()
        z = z.to(self.net.dtype)  # what is kept of a network of float64 is float32
        with fast_path_off() if self.has_fast_path else nullcontext():
            features = self.reading.features(
                self.net, z, start=self.first_layer, edits=tuple(self.places), edit=self.edited
            )
        if given:
            features = torch.cat([features, *given], dim=1)
            given.clear()
        return features

    def edited(self, layer: Layer, z: Tensor) -> Tensor:
        """What enters a place, as the modules there leave it."""
        for module in self.edits_at(layer.index) if layer.index in self.places else ():
            given, z = z, module(z)
            if not torch.compiler.is_compiling():  # there sizes are symbols
                self._check_edit(module, layer, given, z)
        return z

    def _check_edit(self, module: nn.Module, layer: Layer, given: Tensor, z: Any) -> None:
        if not isinstance(z, Tensor) or z.ndim < 2 or len(z) != len(given):
            found = tuple(z.shape) if isinstance(z, Tensor) else f"a {type(z).__name__}"
            raise InputError(
                f"{type(module).__name__} of {self.method.name} made {found} of what enters place "
                f"{layer.index} ({layer.name}), {tuple(given.shape)}; it must return a tensor of "
                "as many images."
            )

    def rest(self, z: Tensor) -> Float[Tensor, "samples classes"]:
        """Logits (K*B, classes) from the activation entering ``first_layer``, (K*B, ...)."""
        return self.head(self.features(z))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Logits (B, classes), or (K, B, classes) with K > 1 runs that share the images."""
        x = x.to(self.net.dtype)
        z = self.net.run(x, stop=self.first_layer) if self.first_layer > 0 else x
        if self.runs == 1:
            return self.rest(z)
        z = z.unsqueeze(0).expand(self.runs, *z.shape).flatten(0, 1)
        return by_run(self.rest(z), self.runs)

    def train(self, mode: bool = True) -> Adapted:
        """Training mode for what was added; the frozen network stays in evaluation mode."""
        self.training = mode
        for name, part in self.named_children():
            part.train(mode and (name != "net" or self.method.batchnorm == "trained"))
        for module in self.net.modules():
            if isinstance(module, RunDropout):
                module.training = mode
        return self

    # ---- the parameters

    @property
    def trainable(self) -> tuple[nn.Parameter, ...]:
        """Every parameter that learns, of all runs, the head's among them."""
        return tuple(p for p in self.parameters() if p.requires_grad)

    def run_parameters(self, run: int) -> list[tuple[str, nn.Parameter]]:
        """(name, parameter) of one run alone; the head's are "head.weight" and "head.bias"."""
        return list(self._of_run(run, learned_only=True))

    def unit_of(self, name: str) -> float:
        """What the learning rate of a parameter from `run_parameters` is measured in."""
        module = dict(self.named_modules()).get(name)
        return module.unit if isinstance(module, PerRun) else 1.0

    def _of_run(self, run: int, *, learned_only: bool) -> Iterator[tuple[str, nn.Parameter]]:
        own: set[int] = set()
        for name, module in self.named_modules():
            if isinstance(module, PerRun):
                own.update(id(value) for value in module.values)
                if module.values[run].requires_grad or not learned_only:
                    yield name, module.values[run]
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and id(parameter) not in own:
                yield name, parameter

    def common_parts(self) -> list[str]:
        """The names of what learns and would be one for all runs, not made with `per_run`."""
        own = {id(p) for m in self.modules() if isinstance(m, PerRun) for p in m.values}
        learned = (
            name for name, p in self.named_parameters() if p.requires_grad and id(p) not in own
        )
        # Batch statistics learn too, and are taken over the samples of all runs.
        batch_norms = (
            f"edits.{name}"
            for name, module in self.edits.named_modules()
            if isinstance(module, _BatchNorm)
        )
        return [*learned, *batch_norms]

    def count(self, *, head: bool = True) -> int:
        """Parameters that one run learns, with or without its head; pruned ones left out."""
        learned = sum(
            parameter.numel()
            for name, parameter in self.run_parameters(0)
            if head or not name.startswith("head.")
        )
        pruning: list[Any] = [m for m in self.modules() if hasattr(m, "pruned")]
        return learned - sum(module.pruned() for module in pruning)

    def adapted_parts(self) -> dict[str, int]:
        """What learns beside the head -> how many parameters of one run: modules of the network by
        name, and places by theirs."""
        known = {name for name, _ in self.source.module.named_modules()}
        counts: dict[str, int] = defaultdict(int)
        for name, parameter in self.run_parameters(0):
            words = name.split(".")
            if words[0] == "edits":
                layer = self.source.layers[int(words[1])]
                counts[f"place {layer.index} ({layer.name})"] += parameter.numel()
            elif words[0] == "net":
                path = words[2:]
                ends = (n for n in range(len(path), -1, -1) if ".".join(path[:n]) in known)
                counts[".".join(path[: next(ends)])] += parameter.numel()
        return dict(counts)

    def __repr__(self) -> str:
        parts = self.adapted_parts()
        total, beside = self.count(), self.count(head=False)
        runs = f", {self.runs} runs" if self.runs > 1 else ""
        lines = [
            f"{self.method.name} on {self.source.name}: {beside:,} parameters in {len(parts)} "
            f"parts learn, and {total - beside:,} in the head{runs}"
        ]
        width = max((len(name) for name in parts), default=0)
        lines += [f"  {name or '(the model itself)':{width}}  {n:,}" for name, n in parts.items()]
        return "\n".join(lines)

    def reset(self, seeds: Sequence[int]) -> None:
        """Draw everything learned again, run k from ``seeds[k]``."""
        self.seeds = _seeds(seeds, self.runs)
        for run, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed)
            for module in self.modules():
                if isinstance(module, PerRun):
                    module.reset(run, generator)
                elif isinstance(module, RunDropout):
                    module.reset(run, int(torch.randint(2**62, (), generator=generator)))
            self.method.reset(self, seed)

    def select(self, run: int) -> Adapted:
        """Run ``run`` alone, as an Adapted of its own with runs == 1."""
        return self.take([run])

    @torch.no_grad()
    def take(self, runs: Sequence[int]) -> Adapted:
        """These runs (negative: from the end) as an Adapted of their own, in this order.

        It shares the frozen weights alone: what was learned, what the heads standardise by, and the
        streams of dropout masks are copies, so that each run goes on as it would have here.
        """
        for run in runs:
            if not -self.runs <= run < self.runs:
                raise InputError(f"there is no run {run}: this holds runs 0 to {self.runs - 1}")
        numbers = [run % self.runs for run in runs]
        seeds = [self.seeds[run] for run in numbers]
        taken = Adapted(self.method, self.source, classes=self.classes, seeds=seeds)
        taken.to(self.head.shift)  # its device and precision
        for place, run in enumerate(numbers):
            theirs = {
                **dict(self.named_parameters()),
                **dict(self._of_run(run, learned_only=False)),
            }
            for name, parameter in taken._of_run(place, learned_only=False):
                parameter.copy_(theirs[name]).requires_grad_(theirs[name].requires_grad)
        taken.head.shift.copy_(self.head.shift[numbers])
        taken.head.scale.copy_(self.head.scale[numbers])
        if self.method.batchnorm == "trained":
            for own, other in zip(taken.net.buffers(), self.net.buffers(), strict=True):
                own.copy_(other)
        for ours, other_module in zip(taken.modules(), self.modules(), strict=True):
            if isinstance(ours, RunDropout) and isinstance(other_module, RunDropout):
                ours.follow(other_module, numbers)
        return taken.train(self.training)

    # ---- keeping it

    def state(self) -> dict[str, Tensor]:
        """Everything that differs from the frozen network, one run: name -> tensor."""
        if self.runs != 1:
            raise InputError(f"{self.runs} runs are held here: choose one with select(k) first")
        tensors = {name: p.detach() for name, p in self._of_run(0, learned_only=False)}
        tensors |= {"head.shift": self.head.shift[0], "head.scale": self.head.scale[0]}
        if self.method.batchnorm == "trained":
            tensors |= {f"net.{name}": b for name, b in self.net.named_buffers()}
        return tensors


def look_like(module: nn.Module, inner: nn.Module) -> None:
    """Give a stand-in the plain settings of what it stands for: a forward around may read them."""
    for name, value in vars(inner).items():
        if not name.startswith("_") and not hasattr(module, name):
            setattr(module, name, value)
