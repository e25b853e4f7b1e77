"""`python -m gfprestore`: the command where its script is not on the path."""

from gfprestore.cli import run

if __name__ == "__main__":
    run()
