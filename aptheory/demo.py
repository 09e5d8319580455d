"""What ``aptheory demo`` runs: the main job on the embedded networks and tasks."""

from aptheory.study import Study

STUDY = Study(
    name="demo",
    networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
    tasks=[
        {"name": "digits", "train": 160, "val": 100, "test": 300},
        {"name": "orientation", "train": 160, "val": 100, "test": 300},
    ],
    methods=["ap"],
    layers="all",
    recipes=[{"name": "quick", "epochs": 6}],
    seeds=(0, 1, 2),
)
