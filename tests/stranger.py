"""Code of a stranger: somebody who has a checkpoint and transformers, but nothing of this repository."""

# Stands first in a program that runs in a process of its own.
NOTHING_OF_OURS = '''
import sys

class Blocker:
    """Makes our package impossible to import."""
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "litegpt":
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Blocker())
'''
