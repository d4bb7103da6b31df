"""What transformers and peft write to the terminal, and how it is kept off it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars, notes ("newly initialised") and warnings of transformers and peft off the terminal.

    What matters of them lorafit finds out itself: adapted modules are counted, golden logits compared.
    """
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def leave_sparse_tensors_unchecked() -> None:
    """Tell torch that sparse tensors need no checks, which is its default, so that it does not warn of that."""
    import torch

    checks: Any = torch.sparse.check_sparse_tensor_invariants
    checks.disable()
