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


@dataclass(frozen=True)
class Choice:
    """A method with all its settings; ``label`` is what tables call it.

    The first entry of a study that names a method has that name as its label; further ones with
    other settings carry those, ``ap:shape=channel``. ``follows`` is the prompt whose learned norm
    a control takes.
    """

    method: Method
    label: str
    follows: Method | None = None


def methods_of(
    study: Study, net: Network, classes: int, attach: Callable[[Method], Adapted]
) -> Iterator[Choice]:
    """Every method of a study on one network, at each of its layers, then the controls.

    ``attach`` attaches a method to ``net`` with a head of ``classes``, or remembers that it did.
    """
    from aptheory.methods import LayerProbe, LinearProbe

    places = [layer.index for layer in net.places(study.layers)]
    seen: set[str] = set()
    names: set[str] = set()
    swept_prompt = False
    target: int | None = None
    for number, (template, fixed) in enumerate(_templates(study, net)):
        label = template.name
        if label in names:
            label = f"{label}:{unusual(template)}"
        names.add(label)
        chosen: Sequence[int | None] = [None] if fixed else places
        prompts = template.role == "prompt" and not fixed and study.controls
        further = swept_prompt
        if prompts:
            swept_prompt = True
            last = len(net.layers) - 1
            chosen = sorted({*(p for p in chosen if p is not None), last})
        if study.equal and number == 0:
            target = _target(template, places, fixed, attach)
        for place in chosen:
            method = template if place is None else _at(template, place)
            if study.equal and number and target is not None:
                from aptheory.methods.sizing import sized

                method = sized(method, net, classes=classes, parameters=target)
            if key_of(method.settings()) in seen:
                continue
            seen.add(key_of(method.settings()))
            yield Choice(method, label)
            control = _control(method, attach) if prompts else None
            if control is not None:
                whose = f":{label}" if further or ":" in label else ""
                yield Choice(control, control.name + whose, follows=method)
    if not swept_prompt:
        return
    controls: list[Method] = [LinearProbe(), *(LayerProbe(layer=place) for place in places)]
    for each in controls:
        if key_of(each.settings()) not in seen:
            yield Choice(each, each.name)


def _control(method: Method, attach: Callable[[Method], Adapted]) -> Method | None:
    """The control of a method, as it is before anything is learned; None too where none fits."""
    try:
        return method.control(attach(method))
    except InputError:
        return None  # the plan says why the method itself does not fit


def _target(
    template: Method, places: Sequence[int], fixed: bool, attach: Callable[[Method], Adapted]
) -> int:
    """Parameters without head of the study's first method, at the middle one of its layers."""
    middle = places[len(places) // 2]
    method = template if fixed else _at(template, middle)
    return attach(method).count(head=False)


def _at(method: Method, place: int) -> Method:
    """The method at that layer."""
    setting: dict[str, Any] = {"layer": place}
    return replace(method, **setting)


def _templates(study: Study, net: Network) -> Iterator[tuple[Method, bool]]:
    """(method, whether its layer is given or it has none) for each entry of the study."""
    from aptheory.methods import Method, applicable, from_settings
    from aptheory.methods.registry import class_of, settings_of

    beside = study.beside
    for entry in study.methods:
        if entry == "all":
            for method in applicable(net):
                if method.role != "control":  # the prompt that is swept brings it
                    yield method, not hasattr(method, "layer")
            continue
        if isinstance(entry, Method):
            yield entry, True
            continue
        if isinstance(entry, Mapping):
            values = {"method" if key == "name" else key: item for key, item in entry.items()}
        else:
            values = settings_of(str(entry).replace(" ", ""))
        swept = values.get("layer") == EACH or (
            _has_layer(class_of(values, beside=beside)) and "layer" not in values
        )
        yield from_settings({**values, "layer": 0} if swept else values, beside=beside), not swept


def _has_layer(kind: type[Method]) -> bool:
    """Whether the method acts at one layer, so that it is swept unless it says which.

    One that changes all of the network where no layer is given is swept with ``layer=each``.
    """
    return any(item.name == "layer" and item.default is not None for item in fields(kind))


def unusual(method: Method) -> str:
    """The settings that differ from the method's own defaults, its layer aside: ``tokens=5``."""
    settings = []
    for item in fields(method):
        value = getattr(method, item.name)
        if value != item.default and item.name not in ("layer", "norm"):
            settings.append(f"{item.name}={value}")
    return ",".join(settings)
