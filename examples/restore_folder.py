"""Restores a folder of photos from Python: `python examples/restore_folder.py examples/album restored`."""

import sys
from pathlib import Path

from gfprestore.folders import plan_jobs
from gfprestore.models import load_models
from gfprestore.options import RestoreOptions
from gfprestore.pipeline import restore_photos

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    options = RestoreOptions(upscale=2, offline=True)
    jobs = plan_jobs([source], target, format=options.format)
    models = load_models(options, say=print)
    for outcome in restore_photos(jobs, models, options):
        print(outcome.job.source, type(outcome).__name__.lower(), "->", outcome.job.target)
