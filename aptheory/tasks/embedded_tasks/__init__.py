"""Tasks that need no file: real digits, and generated images."""

# name -> module.function, imported when used so that listing names costs nothing
EMBEDDED = {
    "digits": "digits.digits",
    "textures": "textures.textures",
    "objects": "objects.objects",
    "cells": "cells.cells",
    "counting": "structured.counting",
    "position": "structured.position",
    "orientation": "structured.orientation",
    "distance": "structured.distance",
}
#: group, classes, images of train, val, test
EMBEDDED_FACTS = {
    "digits": ("natural", 10, (800, 200, 797)),
    "textures": ("natural", 10, (800, 200, 1000)),
    "objects": ("natural", 10, (800, 200, 1000)),
    "cells": ("specialized", 5, (800, 200, 1000)),
    "counting": ("structured", 8, (800, 200, 1000)),
    "position": ("structured", 6, (800, 200, 1000)),
    "orientation": ("structured", 8, (800, 200, 1000)),
    "distance": ("structured", 5, (800, 200, 1000)),
}
