"""Kernels of our own for the processor: C, compiled when the package is built.

`program.c` and the files that it includes run a list of steps; `network.py` writes GFP-GAN as such a list, `rrdb.py`
and `srvgg.py` Real-ESRGAN's networks, `detector.py` RetinaFace and `parser.py` BiSeNet. Beside them are kernels that
enlarge photos and cut faces out of them, which `resampling.py` calls, and one that brings faces back, for `pasting.py`.
Where the package was built without a compiler, or the processor has no kernels here, `gfprestore.engine` runs the
networks, and OpenCV resamples and pastes.
"""
