"""Modules under their former names: what notebooks and reports of others may still import."""

import importlib
import sys
import warnings

import pytest

import fsslib
from fsslib import names

# What the notebooks and the README once imported, by module.
FORMER = {
    "paths": "data notebooks repository cache", "baselines": "baselines",
    "costs": "macs seconds parameters", "recipe": "datasets model train score result table protocol",
    "merging": "MERGE_RULES",
    "plots_prototypes": "verdict percent mean_interval score_curves differences pooling strip",
    "plots_attention": "matches dots gallery", "plots_ablation": "gain_verdict ablation shares",
    "plots_comparison": "ranking matrix knobs contrasts", "plots_protocol": "over_folds switches",
    "plots_superpixels": "tinted placement", "plots_flow": "dataflow", "nn.feature_cache": "CachedBackbone",
    "nn.feature_store": "MemoryStore DiskStore", "nn.transformer": "block_mask correlate",
    "nn.superpixels": "cluster allocate", "nn.seeds": "clean_seeds", "nn.ensemble": "Ensemble",
    "models.one_way": "OneWayModel Outcome", "data.weak": "annotate", "data.shapes_classes": "NAMES",
    "figure": "show save picture COLOURS", "data.disk": "amount alone", "data.index": "LabelIndex",
    "data.folder_report": "FolderReport KINDS", "data.folder_layouts": "LAYOUTS Entry Found",
    "data.folder_lists": "read_list listed", "experiments.commands": "parse_value reports main",
    "experiments.model_conflicts": "CLASSES Problem near", "experiments.files": "read_parameters",
    "experiments.runner": "attempt main", "experiments.workplace": "claimed busy execute stop_all reason",
    "experiments.gallery": "write_index first_picture",
    "labs.compare": "agree difference", "labs.order": "names hidden_state Finding", "labs.essay": "essay",
    "labs.verdicts": "verdicts LONGEST", "labs.table": "report class_table write_table", "labs.result": "Result",
    "labs.limits": "TooLong time_limit", "labs.shell": "TURN soften_stubs", "labs.guard": "guard unguard TooMuchOutput",
    "labs.stage_00": "iou_of", "labs.stage_01": "temperature", "labs.stage_01_masks": "inside_only box_bias",
    "labs.stage_07": "miou", "widgets.still": "still bundle", "widgets.attention": "explore_attention",
}  # fmt: skip


@pytest.mark.parametrize("former", FORMER)
def test_former_names_lead_to_their_new_homes(former):
    sys.modules.pop(f"fsslib.{former}", None)
    with pytest.warns(DeprecationWarning, match=rf"fsslib\.{former} is now fsslib\."):
        module = importlib.import_module(f"fsslib.{former}")
    for name in FORMER[former].split():
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_every_former_name_has_a_home():
    for former, homes in names._HOMES.items():
        assert importlib.util.find_spec(former) is not None
        for home in homes:
            importlib.import_module(home)


def test_a_former_module_is_an_attribute_as_well(monkeypatch):
    sys.modules.pop("fsslib.paths", None)
    monkeypatch.delattr(fsslib, "paths", raising=False)
    with pytest.warns(DeprecationWarning, match="now fsslib.files"):
        assert fsslib.paths.data() == fsslib.files.data_folder()


def test_packages_that_hand_on_what_their_module_held():
    from fsslib import plots
    from fsslib.data.folder import Folder
    from fsslib.data.shapes import Shapes5i
    from fsslib.nn.backbones import Backbone, build_backbone

    assert plots.overlay and Folder and Shapes5i and issubclass(type(build_backbone("tiny")), Backbone)


def test_an_optional_package_that_is_missing_is_named(monkeypatch):
    hand_out, listed, _ = names.on_demand("fsslib.widgets", {"painter": "SupportPainter"})

    def missing(name):
        raise ModuleNotFoundError("No module named 'anywidget'", name="anywidget")

    monkeypatch.setattr(names, "import_module", missing)
    with pytest.raises(ImportError, match=r"widgets need anywidget: pip install -e '\.\[notebooks\]'"):
        hand_out("SupportPainter")
    assert {"SupportPainter", "painter", "strokes"} <= set(listed())


def test_no_warning_where_nothing_old_is_used():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module("fsslib.plots.pooling")
