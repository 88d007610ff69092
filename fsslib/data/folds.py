"""How the classes of a data set are divided into folds."""

from collections.abc import Sequence

from ..arguments import choose, whole
from ..errors import DatasetError
from .base import check_fold, few

SCHEMES = {"contiguous": "blocks in class order", "interleaved": "every n-th class"}


def fold_classes(classes: Sequence[int], fold: int, folds: int = 4, scheme: str = "contiguous") -> tuple[int, ...]:
    """The novel classes of `fold`, counted from 0 (code that counts from 1 calls it fold + 1).

    Args:
        classes: sorted class ids. folds: how many folds there are; every class is novel in exactly one.
        scheme: `"contiguous"` cuts the order into blocks: PASCAL-5i (fold 0: classes 1 to 5) and PANet's COCO (1 to
            20). `"interleaved"` takes every n-th: COCO-20i since PFENet (fold 0: 1, 5, 9, ...). Scores of the two
            must not be compared.
    Raises DatasetError for an unknown scheme or fold, and for fewer classes than folds.
    """
    choose(scheme, tuple(SCHEMES), "fold_scheme=", DatasetError)
    if len(set(classes)) < len(classes):
        raise DatasetError(f"classes={few(classes, 20)}: a class stands twice, and would be novel in two folds.")
    if type(folds) is not int or not 1 <= folds <= len(classes):
        raise DatasetError(f"folds={folds!r}: expected a whole number from 1 to {len(classes)}, the number of classes.")
    check_fold(fold, folds)
    if scheme == "interleaved":
        return tuple(classes[fold::folds])
    at = [round(len(classes) * part / folds) for part in (fold, fold + 1)]
    return tuple(classes[at[0] : at[1]])


def held_back(wanted: int | Sequence[int], base: Sequence[int]) -> tuple[int, ...]:
    """The validation classes: the last `wanted` base classes, or the ids given; at least one class stays to train on.
    Raises DatasetError for anything else."""
    if type(wanted) is int and 0 <= wanted < max(len(base), 1):
        return tuple(base[len(base) - wanted :])
    ids = {whole(cls) for cls in wanted} if isinstance(wanted, (tuple, list)) else {None}
    if ids < set(base):
        return tuple(sorted(ids))
    raise DatasetError(
        f"val_classes={wanted!r}: expected a number from 0 to {max(len(base) - 1, 0)}, or ids of some base classes of "
        f"this fold ({few(base, 20)})."
    )
