"""The command `keras-transfer VERB`: each verb is a file of this folder with a `main`."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

from keras_transfer import __version__

PROGRAM = "keras-transfer"

# Each verb with what it does, for `--help`.
VERBS = {
    "search": "search heads, learning rates and fine-tuning on a folder of images",
    "compare": "compare feature extraction with fine-tuning on a folder of images",
    "predict": "classify images by an exported model",
    "report": "write a page on what a trained model makes of a folder of images",
    "plot-history": "draw the tables that trainings have left, one or several",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Args:
        arguments: The verb and its own arguments; those of this process unless given.

    Returns:
        The exit code: 0; 2 for input that the user can put right; others as the verb says.
    """
    verb, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if verb not in VERBS:
        return _without_verb(verb)
    module = importlib.import_module(f"keras_transfer.cli.{verb.replace('-', '_')}")
    if verb == "search" and arguments is None:
        return int(module.main(rest, is_process=True))
    return int(module.main(rest))


def _without_verb(given: str) -> int:
    width = max(map(len, VERBS)) + 2
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} VERB ...",
        description="Transfer learning for Keras 3.",
        epilog="verbs:\n"
        + "".join(f"  {verb:{width}}{text}\n" for verb, text in VERBS.items())
        + f"\n`{PROGRAM} VERB --help` shows the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    if given.startswith("-"):
        parser.parse_args([given])
    near = difflib.get_close_matches(given, VERBS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Expected one of {', '.join(VERBS)}."
    parser.exit(2, f"{PROGRAM}: error: {given!r} is no verb. {hint}\n")
