"""The generator's own kernels for the processor: C, compiled when the package is built.

`program.h` and `program.c` run a list of steps, `network.py` writes GFP-GAN as such a list, `engine.py` runs it. Where
the package was built without a compiler, or the processor has no kernels here, `gfprestore.engine` runs the network.
"""
