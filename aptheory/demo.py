"""What ``aptheory demo`` runs: the main job on the embedded networks and tasks."""

from aptheory.study import Study

STUDY = Study(
    name="demo",
    networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
    tasks=[
        {"name": "digits", "train": 300, "val": 150, "test": 500},
        {"name": "counting", "train": 300, "val": 150, "test": 500},
    ],
    methods=["ap"],
    layers="all",
    recipes=[{"name": "quick", "epochs": 12}],
    seeds=(0, 1, 2),
)
