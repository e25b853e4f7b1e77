"""gfprestore: restores the faces in folders of scanned photos with GFP-GAN.

The pieces for Python use live in their modules, so that importing the package costs nothing:
`gfprestore.pipeline.restore_photos`, `gfprestore.restorer.FaceRestorer`, `gfprestore.options.RestoreOptions`.
"""

__version__ = "0.1.0"
