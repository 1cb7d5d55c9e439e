"""The commands of `python -m rnnkern`, one file each, imported when they run."""
