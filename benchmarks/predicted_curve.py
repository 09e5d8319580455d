"""What a predicted curve costs: a prompt's gain at every layer, from one backward pass a class.

    python benchmarks/predicted_curve.py [--networks aptheory_vit_mini aptheory_resnet_mini]

Prints the CPU seconds of the derivatives of all layers, and of the fits of all layers, over those
of one bare forward and backward pass and of one profile of the same images; and the sketch's error.
"""

from __future__ import annotations

import statistics

import torch
from measuring import arguments, cpu_seconds, network, pictures, print_environment, ratio

from aptheory.profiling.profile import profile
from aptheory.theory.joint import Joint, best_ridge, sketch_error
from aptheory.theory.tangent import tangent_features

#: What a profile of any network can hold.
MEASURES = ("cka", "effective_rank", "globality")


def main() -> None:
    given = arguments(__doc__ or "", classes=10, width=256)
    print_environment(given)
    for name in given.networks:
        net = network(name)
        images = pictures(given.images, net)
        weight = torch.randn(net.num_features, given.classes) / net.num_features**0.5
        last = len(net.layers) - 1

        def stage(layer: int, net=net):
            return lambda z: net.run(z, start=layer, stop=layer + 1)

        stages = [stage(layer) for layer in range(last)] + [lambda z, w=weight: z @ w]
        batches = list(images.split(given.batch))

        def bare(net=net, batches=batches, weight=weight, last=last):
            for x in batches:
                x = x.clone().requires_grad_()
                torch.autograd.grad((net.run(x, stop=last) @ weight).sum(), x)

        def derivatives(stages=stages, batches=batches):
            return tangent_features(stages, batches, width=given.width)

        derived, plain, once = ratio(bare, derivatives, repeats=given.repeats)
        looked = statistics.median(
            cpu_seconds(lambda net=net, images=images: profile(net, images, measures=MEASURES))
            for _ in range(given.repeats)
        )
        labels = torch.arange(given.images) % given.classes
        with torch.no_grad():
            features = torch.cat([net.run(x, stop=last) for x in batches])
        rows, logits = derivatives(), features @ weight

        def fits(rows=rows, features=features, logits=logits, labels=labels):
            for row in rows:
                joint = Joint(features, row)
                joint.cross_entropy(logits, labels, best_ridge(joint, logits, labels))

        fitted = cpu_seconds(fits)
        error = max(sketch_error(stages, images[:16], width=given.width))
        print(
            f"{name}: {given.images} images, {given.classes} classes, {last + 1} layers: "
            f"derivatives {derived:.1f} and fits {fitted / plain:.1f} times a bare forward and "
            f"backward ({plain:.2f} s); derivatives {once / looked:.2f} times a profile; largest "
            f"error of a sketched kernel {error:.1%}"
        )


if __name__ == "__main__":
    main()
