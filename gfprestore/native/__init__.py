"""Kernels of our own for the processor: C, compiled when the package is built.

`program.c` and the files that it includes run a list of steps; `network.py` writes GFP-GAN as such a list,
`upscaler.py` Real-ESRGAN's RRDBNet and `detector.py` RetinaFace. `pasting.py` calls another kernel, which brings a face
back into its photo. Where the package was built without a compiler, or the processor has no kernels here,
`gfprestore.engine` runs the networks and cv2 pastes.
"""
