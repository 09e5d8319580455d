"""Which methods a study means on one network, at which layers, and with which controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from aptheory.errors import InputError
from aptheory.studies.records import key_of
from aptheory.studies.study import Study

if TYPE_CHECKING:
    from aptheory.methods import Adapted, Method
    from aptheory.networks.network import Network


EACH = "each"
"""As a method's layer: one run at every layer of the study."""
BEST = "best"
"""As a method's read: the place whose own probe is best on validation images."""
HALFWAY = "halfway"
"""As the layer of a method that reads there: one run, halfway to that place."""


@dataclass(frozen=True)
class Entry:
    """One entry of a study's methods on a network.

    ``swept``: it is run at every layer of the study. ``reads_best``: its head reads at the place
    whose own probe is best on validation images, which ``method`` does not know yet. ``halfway``:
    of the layers it is run at the one halfway to that place alone. ``number``: which of the
    study's methods it is; None of one that ``all`` brought.
    """

    method: Method
    swept: bool
    reads_best: bool
    halfway: bool = False
    number: int | None = None

    @property
    def label(self) -> str:
        """What tables call it where it needs more than its name."""
        words = [f"read={BEST}"] if self.reads_best else []
        settings = ",".join(filter(None, [*words, unusual(self.method)]))
        return f"{self.method.name}:{settings}" if settings else self.method.name

    def at(self, place: int, net: Network) -> Entry:
        """The same, reading at ``place``; the network's end needs no word."""
        read = None if place == len(net.layers) - 1 else place
        return replace(self, method=replace(self.method, read=read))

    def layers(self, places: Sequence[int], net: Network) -> list[int]:
        """Where it is prompted of ``places``: no place lies behind the one that is read.

        Beside these halfway to the place, where the place was found.
        """
        if self.method.read is None:
            return list(places)
        try:
            end = net.places(self.method.read)[-1].index
        except InputError:
            return list(places)  # the plan says what is wrong with it
        if self.halfway:
            return [end // 2]
        halfway = {end // 2} if self.reads_best else set()
        return sorted({*(place for place in places if place <= end), *halfway})


@dataclass(frozen=True)
class Choice:
    """A method with all its settings; ``label`` is what tables call it.

    An entry of a study has its method's name as its label; where several name one method with other
    settings, each carries its own, ``ap:shape=channel``. ``follows`` is the prompt whose learned
    norm a control takes. ``reads_best``: the place that it reads was found by the study's probes.
    ``number``: which of the study's methods asked for it. ``again``: an earlier one did already.
    """

    method: Method
    label: str
    follows: Method | None = None
    reads_best: bool = False
    number: int | None = None
    again: bool = False


def methods_of(
    study: Study,
    net: Network,
    classes: int,
    attach: Callable[[Method], Adapted],
    read: int | None = None,
) -> Iterator[Choice]:
    """Every method of a study on one network, at each of its layers, then the controls.

    ``attach`` attaches a method to ``net`` with a head of ``classes``, or remembers that it did.
    ``read`` is the place whose own probe is best; methods that read there are left out as long as
    it is not known.
    """
    from aptheory.methods import LayerProbe, LinearProbe

    places = [layer.index for layer in net.places(study.layers)]
    last = len(net.layers) - 1
    probed = {*places, *((*net.block_layers, last) if finds_reading(study) else ())}
    seen: set[str] = set()
    entries = list(_entries(study, net))
    # Controls are called so already; what else has such a name says its settings with it.
    labels = {probe.name: {"", probe.name} for probe in (LayerProbe, LinearProbe)}
    for entry in entries:
        labels.setdefault(entry.method.name, set()).add(entry.label)
    swept_prompt = False
    target: int | None = None
    for position, entry in enumerate(entries):
        name = entry.method.name
        label = entry.label if entry.reads_best or len(labels[name]) > 1 else name
        if entry.reads_best:
            if read is None:
                continue
            entry = entry.at(read, net)
        template = entry.method
        chosen: Sequence[int | None] = entry.layers(places, net) if entry.swept else [None]
        prompts = template.role == "prompt" and entry.swept and study.controls
        further = swept_prompt
        if prompts:
            swept_prompt = True
            if template.read is None:
                chosen = sorted({*(p for p in chosen if p is not None), last})
        if study.equal and position == 0:
            target = _target(template, places, entry.swept, attach)
        for place in chosen:
            method = template if place is None else _at(template, place)
            if study.equal and position and target is not None:
                from aptheory.methods.sizing import sized

                method = sized(method, net, classes=classes, parameters=target)
            key = key_of(_resolved(method, net))
            again = key in seen
            seen.add(key)
            yield Choice(
                method, label, reads_best=entry.reads_best, number=entry.number, again=again
            )
            if again:
                continue
            control = _control(method, attach) if prompts else None
            if control is not None:
                several = further or ":" in label or control.name in labels
                whose = f":{label}" if several else ""
                yield Choice(control, control.name + whose, method, entry.reads_best)
    if not swept_prompt and not finds_reading(study):
        return
    controls: list[Method] = [LinearProbe(), *(LayerProbe(layer=p) for p in sorted(probed))]
    for each in controls:
        if key_of(_resolved(each, net)) not in seen:
            yield Choice(each, each.name)


def _resolved(method: Method, net: Network) -> dict[str, Any]:
    """A method's settings with its places as indices, however they were named: what it is."""
    settings = dict(method.settings())
    for word in ("layer", "read"):
        if (named := getattr(method, word, None)) is None:
            continue
        try:
            places = [place.index for place in net.places(named)]
        except InputError:  # a span, or the plan says what is wrong with it
            continue
        settings[word] = places
    end = net.layers[-1]
    pools_alike = end.layout == "vector" or settings.get("pooling") == type(method).pooling
    if settings.get("read") == [end.index] and pools_alike:  # as the method reads by itself
        settings |= {"read": None, "pooling": None}
    return {name: value for name, value in settings.items() if value is not None}


def _control(method: Method, attach: Callable[[Method], Adapted]) -> Method | None:
    """The control of a method, as it is before anything is learned; None too where none fits."""
    try:
        return method.control(attach(method))
    except InputError:
        return None  # the plan says why the method itself does not fit


def _target(
    template: Method, places: Sequence[int], swept: bool, attach: Callable[[Method], Adapted]
) -> int:
    """Parameters without head of the study's first method, at the middle one of its layers."""
    middle = places[len(places) // 2]
    method = _at(template, middle) if swept else template
    return attach(method).count(head=False)


def _at(method: Method, place: int) -> Method:
    """The method at that layer."""
    setting: dict[str, Any] = {"layer": place}
    return replace(method, **setting)


def _entries(study: Study, net: Network) -> Iterator[Entry]:
    from aptheory.methods import Method, applicable, from_settings
    from aptheory.methods.registry import class_of, settings_of

    beside = study.beside
    for number, entry in enumerate(study.methods):
        if entry == "all":
            for method in applicable(net):
                if method.role != "control":  # the prompt that is swept brings it
                    yield Entry(method, swept=hasattr(method, "layer"), reads_best=False)
            continue
        if isinstance(entry, Method):
            found = entry.read == BEST
            method = replace(entry, read=None) if found else entry
            yield Entry(method, swept=False, reads_best=found, number=number)
            continue
        if isinstance(entry, Mapping):
            values = {"method" if key == "name" else key: item for key, item in entry.items()}
        else:
            values = settings_of(str(entry).replace(" ", ""))
        found = values.get("read") == BEST
        if found:
            del values["read"]
        halfway = values.get("layer") == HALFWAY
        if halfway and not found:
            raise InputError(f"layer={HALFWAY} is halfway to the place of read={BEST}: give both.")
        swept = values.get("layer") in (EACH, HALFWAY) or (
            _has_layer(class_of(values, beside=beside)) and "layer" not in values
        )
        method = from_settings({**values, "layer": 0} if swept else values, beside=beside)
        yield Entry(method, swept, found, halfway, number)


def finds_reading(study: Study) -> bool:
    """Whether a method of the study reads at the place whose own probe is best."""
    return any(reads_best(entry) for entry in study.methods)


def reads_best(entry: Any) -> bool:
    """Whether a method of a study reads at the place whose own probe is best."""
    if isinstance(entry, str):
        return f"read={BEST}" in entry.replace(" ", "").partition(":")[2].split(",")
    read = entry.get("read") if isinstance(entry, Mapping) else getattr(entry, "read", None)
    return bool(read == BEST)


def _has_layer(kind: type[Method]) -> bool:
    """Whether the method acts at one layer, so that it is swept unless it says which.

    One that changes all of the network where no layer is given is swept with ``layer=each``.
    """
    return any(item.name == "layer" and item.default is not None for item in fields(kind))


def unusual(method: Method, *, follows: bool = False) -> str:
    """The settings that differ from the method's own defaults, its layer aside: ``tokens=5``.

    Places together, such as ``layer=all`` or ``layer=5+7``, are no layer of a table and are told.
    ``follows``: it is the control of a prompt, whose norm is that of the prompt and not told.
    """
    settings = []
    for item in fields(method):
        value = getattr(method, item.name)
        aside = (item.name == "layer" and _one_place(value)) or (follows and item.name == "norm")
        if value != item.default and not aside:
            told = "+".join(map(str, value)) if isinstance(value, tuple | list) else value
            settings.append(f"{item.name}={told}")
    return ",".join(settings)


def _one_place(layer: Any) -> bool:
    """Whether a method's layer is one place, and no span of them or several."""
    if isinstance(layer, str):
        return layer not in ("all", "blocks") and ".." not in layer
    return not isinstance(layer, tuple | list)
