"""gfprestore: restores the faces in folders of scanned photos with GFP-GAN.

The pieces for Python use live in their modules, so that importing the package costs nothing:
`gfprestore.pipeline.restore_photos`, `gfprestore.restorer.FaceRestorer`, `gfprestore.options.RestoreOptions`.
"""

import sys

__version__ = "0.1.0"

# OpenVINO reports every import of itself to its makers, and has no setting against it. Where its telemetry package
# cannot be imported it falls back to a stub that does nothing; people's photos are nobody else's business.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
